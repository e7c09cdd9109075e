"""Weights & Biases."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dlp_plugins.registry import trackers
from dlp_plugins.trackers._accelerate import AccelerateTracker


@trackers.register("wandb", requires=("wandb",), extra="wandb")
class Wandb(AccelerateTracker):
    """Metrics in a Weights & Biases project; not tested with the service."""

    def __init__(
        self,
        folder: Path,
        project: Annotated[str, Field(description="the project's name")] = "dlp-plugins",
        mode: Annotated[
            Literal["online", "offline", "disabled"],
            Field(description="offline writes into the run folder, for `wandb sync`"),
        ] = "online",
    ) -> None:
        super().__init__(folder)
        self.project, self.mode = project, mode

    def _open(self, name: str, resumed: bool) -> Any:
        from accelerate.tracking import WandBTracker

        # of this run alone: rows of a suite all have folders called seed0
        kept = self.folder / "wandb_run_id"
        if not (resumed and kept.is_file()):
            kept.write_text(secrets.token_hex(8), encoding="utf-8")
        return WandBTracker(
            self.project, name=name, dir=str(self.folder), mode=self.mode, resume="allow",
            id=kept.read_text(encoding="utf-8"),
        )  # fmt: skip
