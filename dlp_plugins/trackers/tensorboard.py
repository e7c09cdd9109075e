"""TensorBoard."""

from __future__ import annotations

from typing import Any

from dlp_plugins.registry import trackers
from dlp_plugins.trackers._accelerate import AccelerateTracker


@trackers.register("tensorboard", requires=("tensorboard",), extra="tensorboard")
class TensorBoard(AccelerateTracker):
    """Event files in the run folder: `tensorboard --logdir runs` shows all runs together."""

    def _open(self, name: str, resumed: bool) -> Any:
        from accelerate.tracking import TensorBoardTracker

        return TensorBoardTracker("tensorboard", logging_dir=str(self.folder))
