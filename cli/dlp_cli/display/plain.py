"""A run on a pipe: one line per epoch, nothing that moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlp_cli.display.run_state import RunState, for_the_test
from dlp_plugins.training import events
from dlp_plugins.units import counted

# metric: how it reads in the line; what was not measured is left out
PARTS = {
    "loss_total": "loss {:.4f}",
    "test_error": "test error {:.2f} %",
    "teacher_test_error": "teacher's {:.2f} %",
    "validation_error": "validation error {:.2f} %",
    "pseudo_label_accuracy": "pseudo-label accuracy {:.2f} %",
    "certainty": "certainty {:.3f}",
    "learning_rate": "lr {:.4g}",
    "images_per_second": "{:,.0f} images/s",
}
# Printed only where they are not 0.
WARNINGS = {
    "unreached": ("image that no label reaches", "images that no label reaches"),
    "not_yet_reached": ("image not reached yet", "images not reached yet"),
    "unlabeled_components": ("component without a label", "components without a label"),
    "empty_classes": ("class without an example", "classes without an example"),
}


class PlainLines:
    """A listener that hands lines to `write`."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self.write = write
        self.state = RunState("")

    def __call__(self, event: events.Event) -> None:
        self.state(event)
        match event:
            case events.RunStarted() as s:
                self.write(
                    f"{s.description or s.folder.name}: {s.num_train:,} images, {s.num_labeled:,} "
                    f"labelled, {s.num_classes:,} classes, {for_the_test(s)}; "
                    f"{s.device}; {'resumed in' if s.resumed else 'writes to'} {s.folder}"
                )
            case events.Note():
                self.write(event.text)
            case events.EpochDone():
                self.write(self._epoch_line(event))

    def _epoch_line(self, event: events.EpochDone) -> str:
        m = event.metrics
        parts = [form.format(m[key]) for key, form in PARTS.items() if key in m]
        if event.stage == "propagation" and (solved := self.state.convergence):
            parts.append(solved.figures())
        parts += [counted(m[key], *nouns) for key, nouns in WARNINGS.items() if m.get(key)]
        return f"{event.stage} {event.epoch + 1}/{self.state.epochs}: {', '.join(parts)}"
