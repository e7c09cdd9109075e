"""Passes a run's events on to the trackers that its recipe names."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from dlp_plugins import registry
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.trackers.contract import Tracker
from dlp_plugins.training import events
from dlp_plugins.training.folder import RunFolder, flatten


@contextlib.contextmanager
def tracking(recipe: Recipe, folder: RunFolder) -> Iterator[list[events.Listener]]:
    """Listeners for the recipe's trackers, finished at the end however the run ends."""
    listeners = [
        _TrackerListener(
            part.name,
            registry.trackers.build(part.name, folder=folder.path, **part.params),
            flatten(recipe.as_dict()),
        )
        for part in recipe.tracker
    ]
    try:
        yield list(listeners)
    finally:
        for listener in listeners:
            listener.finish(None)


class _TrackerListener:
    """One tracker as a listener. A tracker that fails is dropped with a warning."""

    def __init__(self, name: str, tracker: Tracker, settings: dict[str, Any]) -> None:
        self.name, self.settings = name, settings
        self.tracker: Tracker | None = tracker
        self.step = 0

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.RunStarted(folder=folder, history=history):
                self.step = len(history)
                self._call(lambda t: t.begin(folder.name, self.settings, history))
            case events.EpochDone(metrics=metrics):
                self._call(lambda t: t.log(metrics, self.step))
                self.step += 1
            case events.RunDone(summary=summary):
                self.finish(summary)

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Let the tracker go; a second call does nothing."""
        self._call(lambda t: t.finish(summary))
        self.tracker = None

    def _call(self, action: Callable[[Tracker], None]) -> None:
        if self.tracker is None:
            return
        try:
            action(self.tracker)
        except Exception as error:
            self.tracker = None
            warnings.warn(
                f"tracker {self.name} stopped: {type(error).__name__}: {error}. The run goes on "
                "without it.",
                stacklevel=2,
            )
