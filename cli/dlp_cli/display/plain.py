"""A run on a pipe: one line an epoch, nothing that moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlp_cli.display.run_state import RunState
from dlp_plugins.training import events

# metric: how it reads in the line; what was not measured is left out
PARTS = {
    "loss_total": "loss {:.4f}",
    "test_error": "test error {:.2f} %",
    "teacher_test_error": "teacher's {:.2f} %",
    "validation_error": "validation error {:.2f} %",
    "pseudo_label_accuracy": "pseudo-labels {:.2f} % right",
    "certainty": "certainty {:.3f}",
    "residual": "residual {:.1e}",
    "iterations": "in {} iterations",
    "learning_rate": "lr {:.4g}",
    "images_per_second": "{:,.0f} images/s",
}
# Said only when there is something to say.
WARNINGS = {
    "unreached": "{:,} images no label reaches",
    "unlabeled_components": "{:,} components without a label",
    "empty_classes": "{:,} classes without an example",
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
                    f"labelled, {s.num_classes:,} classes, {s.num_test:,} for the test; "
                    f"{s.device}; {'resumed in' if s.resumed else 'writes to'} {s.folder}"
                )
            case events.Note():
                self.write(event.text)
            case events.EpochDone():
                self.write(self._epoch_line(event))

    def _epoch_line(self, event: events.EpochDone) -> str:
        m = event.metrics
        parts = [form.format(m[key]) for key, form in PARTS.items() if key in m]
        parts += [form.format(m[key]) for key, form in WARNINGS.items() if m.get(key)]
        if not m.get("converged", True):
            parts.append("solver not converged")
        return f"{event.stage} {event.epoch + 1}/{self.state.epochs}: {', '.join(parts)}"
