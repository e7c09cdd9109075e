"""The metrics file: one line of JSON per epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlp_plugins._files.writing import to_json, write_text
from dlp_plugins.registry import trackers
from dlp_plugins.trackers.contract import Metrics, Tracker

FILE = "metrics.jsonl"


@trackers.register("jsonl")
class JsonLines(Tracker):
    """Writes `metrics.jsonl` into the run folder, one line per epoch.

    A resumed run writes the file again from the checkpoint's record, so that a line is there once.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def begin(self, name: str, settings: dict[str, Any], history: Sequence[Metrics]) -> None:
        # Replaced first, so that no link or pipe of that name is ever written to.
        write_text(self.path, "".join(map(_line, history)))

    def log(self, metrics: Metrics, step: int) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(metrics))


def _line(metrics: Metrics) -> str:
    return to_json(metrics) + "\n"
