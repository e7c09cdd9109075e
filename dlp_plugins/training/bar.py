"""A run's progress as one bar, for a notebook: a listener for `run`."""

from __future__ import annotations

from typing import Any

from dlp_plugins.notebook.progress import bar
from dlp_plugins.training import events

# What stands behind the bar, of what was measured
SHOWN = {"loss_total": "loss", "test_error": "test error", "validation_error": "validation error"}


class EpochBar:
    """Epochs of both stages."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.RunStarted(stages=stages, history=history):
                total = sum(epochs for _, epochs in stages)
                self.bar = bar(desc="epochs", total=total, initial=len(history))
            case events.EpochDone(metrics=m) if self.bar is not None:
                found = {name: f"{m[key]:.4g}" for key, name in SHOWN.items() if key in m}
                self.bar.set_postfix(found, refresh=False)
                self.bar.update()
            case events.RunDone() | events.RunInterrupted() if self.bar is not None:
                self.bar.close()
