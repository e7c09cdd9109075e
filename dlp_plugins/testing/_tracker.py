"""check_tracker: a run, its interruption and its resumption, and files where they may lie."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlp_plugins.registry import trackers
from dlp_plugins.testing._common import require
from dlp_plugins.trackers.contract import Metrics, Tracker

SETTINGS = {"seed": 0, "solver.name": "cg", "solver.alpha": 0.99, "dataset.mean": [0.5]}
# files of a run folder that `--overwrite` knows
ALLOWED = {"metrics.jsonl", "trackers"}


def check_tracker(tracker: str | Callable[..., Tracker], **parameters: Any) -> None:
    """Check a tracker: it takes every kind of metric, resumes, and writes below its own folder.

    Args:
        tracker: a registered name; or the class itself, as each run builds its own.

    Raises:
        AssertionError: the sentence says what is wrong.
    """
    where = getattr(tracker, "__name__", str(tracker))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        done: list[Metrics] = []
        for first in (True, False):
            if isinstance(tracker, str):
                made = trackers.build(tracker, folder=folder, **parameters)
            else:
                made = tracker(folder=folder, **parameters)
            require(
                isinstance(made, Tracker), f"{where}: it must be a {Tracker.__module__}.Tracker"
            )
            try:
                made.begin("run", dict(SETTINGS), list(done))
                for _ in range(2):
                    metrics = _metrics(len(done))
                    before = dict(metrics)
                    made.log(metrics, len(done))
                    require(metrics == before, f"{where}: it changes the metrics it is given")
                    done.append(metrics)
                made.finish(None if first else {"test_error": 10.0})
            except AssertionError:
                raise
            except Exception as error:
                run = "a run" if first else "a resumed run"
                raise AssertionError(
                    f"{where}: it fails in {run}: {type(error).__name__}: {error}"
                ) from error
        foreign = sorted(p.name for p in folder.iterdir() if p.name not in ALLOWED)
        require(
            not foreign,
            f"{where}: {', '.join(foreign)} in the run folder; files belong below 'trackers'",
        )


def _metrics(epoch: int) -> Metrics:
    """A number, a text and a truth value of one epoch."""
    return {"stage": "propagation", "epoch": epoch, "test_error": 50.0 - epoch, "converged": True}
