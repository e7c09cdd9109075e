"""Runs a suite's trials: resumes what is unfinished, shares stage one, goes on past a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_plugins.bench.running import Runs, key_of, stage_one_alone
from dlp_plugins.bench.suite import Suite, Trial
from dlp_plugins.errors import DlpError
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.training import events


@dataclass(frozen=True)
class Result:
    """How one trial ended: `summary` as in its summary.json, or `failure`, a sentence."""

    trial: Trial
    summary: dict[str, Any] | None = None
    failure: str | None = None


@dataclass(frozen=True)
class TrialStarted:
    """number: from 0; work: 'stage one, shared by 6 runs' or the row's name."""

    number: int
    total: int
    work: str
    seed: int
    epochs: int


@dataclass(frozen=True)
class TrialDone:
    number: int
    result: Result


Listener = Callable[[TrialStarted | TrialDone | events.Event], None]


def run_suite(
    suite: Suite,
    folder: Path,
    *,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    listeners: Sequence[Listener] = (),
) -> list[Result]:
    """Run every trial below `folder` and return the results in the suite's order.

    A trial that is finished already is read, one that was broken off is resumed. A trial that fails
    is recorded and the others go on. A listener that fails is dropped.
    """
    return _Runner(suite, folder, device, plugins, events.Listeners(listeners)).run()


class _Runner:
    def __init__(
        self,
        suite: Suite,
        folder: Path,
        device: str,
        plugins: Sequence[str | Path],
        tell: events.Listeners,
    ) -> None:
        self.suite, self.tell = suite, tell
        self.runs = Runs(folder, device, plugins, "a suite")
        self.shared = Counter(key_of(stage_one_alone(trial.recipe)) for trial in suite.trials)

    def run(self) -> list[Result]:
        results = []
        for number, trial in enumerate(self.suite.trials):
            results.append(self._result(number, trial))
            self.tell(TrialDone(number, results[-1]))
        return results

    def _result(self, number: int, trial: Trial) -> Result:
        try:
            stage_one = self._stage_one(number, trial)
            self._started(number, trial, trial.row, trial.recipe)
            summary = self.runs.run_or_resume(
                trial.recipe, self.runs.folder / trial.folder, [self.tell], stage_one
            )
            return Result(trial, summary)
        except DlpError as error:
            return Result(trial, failure=str(error))
        except Exception as error:  # a plug-in's bug must not take the other trials with it
            return Result(trial, failure=f"{type(error).__name__}: {error}")

    def _stage_one(self, number: int, trial: Trial) -> Path | None:
        """The end of stage one, trained once for all trials that share it; None if none does."""
        key = key_of(stage_one_alone(trial.recipe))
        if self.shared[key] < 2:
            return None
        work = f"stage one, shared by {self.shared[key]} runs"
        return self.runs.shared_stage_one(
            trial.recipe, [self.tell], lambda alone: self._started(number, trial, work, alone)
        )

    def _started(self, number: int, trial: Trial, work: str, recipe: Recipe) -> None:
        t = recipe.training
        epochs = t.stage_one_epochs + t.stage_two_epochs
        self.tell(TrialStarted(number, len(self.suite.trials), work, trial.seed, epochs))
