"""What a tracker is: it takes down a run's metrics, one line per epoch.

To write one, subclass `Tracker`, register it, and hand its name to
`dlp_plugins.testing.check_tracker`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

Metrics = dict[str, Any]
"""Of one epoch: "stage", "epoch", losses, errors in percent, seconds, ..."""


class Tracker(ABC):
    """Keeps metrics somewhere. Built with the context argument `folder`, the run's own folder.

    A tracker that writes files puts them below `folder / "trackers"`: `--overwrite` removes that
    folder, and refuses a run folder that holds anything it does not know.

    An error that a tracker raises stops the tracker, never the run.
    """

    def begin(  # noqa: B027 - optional
        self, name: str, settings: dict[str, Any], history: Sequence[Metrics]
    ) -> None:
        """A run starts or is resumed.

        Args:
            name: of the run.
            settings: the resolved recipe, flat: "solver.alpha" to 0.99.
            history: metrics of the epochs done before, in order; empty for a fresh run.
        """

    @abstractmethod
    def log(self, metrics: Metrics, step: int) -> None:
        """One epoch is done.

        Args:
            metrics: numbers, texts and truth values.
            step: the epoch, counted over both stages from 0.
        """

    def finish(self, summary: dict[str, Any] | None) -> None:  # noqa: B027 - optional
        """The run ends; `summary` is None where it was interrupted."""
