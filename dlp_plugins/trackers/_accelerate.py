"""The trackers that Accelerate knows, driven as one of ours."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlp_plugins.trackers.contract import Metrics, Tracker

FOLDER = "trackers"  # within the run folder, for what a tracker writes there


class AccelerateTracker(Tracker):
    """Numbers of each epoch to one of `accelerate.tracking`; texts and missing values are left out.

    Where a resumed run takes up an epoch again it is logged at the same step a second time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self._tracker: Any = None

    @abstractmethod
    def _open(self, name: str, resumed: bool) -> Any:
        """Accelerate's tracker for a run of that name, not yet started."""

    def begin(self, name: str, settings: dict[str, Any], history: Sequence[Metrics]) -> None:
        self.folder.mkdir(exist_ok=True)
        self._tracker = self._open(name, resumed=bool(history))
        self._tracker.start()
        if not history:
            plain = (bool, int, float, str)
            self._tracker.store_init_configuration(
                {k: v if isinstance(v, plain) else str(v) for k, v in settings.items()}
            )

    def log(self, metrics: Metrics, step: int) -> None:
        numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, (bool, int, float))}
        self._tracker.log(numbers, step=step)

    def finish(self, summary: dict[str, Any] | None) -> None:
        if self._tracker is not None:
            self._tracker.finish()
