"""Runs a suite's trials: resumes what is unfinished, shares stage one, goes on past a failure."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_plugins.bench.claims import Claims
from dlp_plugins.bench.running import Runs, is_whole, key_of, stage_one_alone
from dlp_plugins.bench.suite import Suite, Trial
from dlp_plugins.errors import DlpError
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.registry import raised_by
from dlp_plugins.training import events
from dlp_plugins.training.folder import LOCK
from dlp_plugins.units import counted

WAIT_SECONDS = 1.0  # between two looks at what other processes have finished


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

    Several processes, also of several machines that share the folder, divide the trials; each
    returns all results.
    """
    return _Runner(suite, folder, device, plugins, events.Listeners(listeners)).run()


class _BusyError(Exception):
    """Another process trains the stage one that a trial needs."""


class _Runner:
    def __init__(
        self,
        suite: Suite,
        folder: Path,
        device: str,
        plugins: Sequence[str | Path],
        tell: events.Listeners,
    ) -> None:
        self.suite, self.folder, self.tell = suite, folder, tell
        self.runs = Runs(folder, device, plugins, "a suite")
        self.claims = Claims(folder)
        self.listeners: list[events.Listener] = [tell, self._stop_if_lost]
        self._has_waited = False
        self.shared = Counter(key_of(stage_one_alone(trial.recipe)) for trial in suite.trials)

    def run(self) -> list[Result]:
        results: dict[int, Result] = {}
        trials = self.suite.trials
        with self.claims:
            while left := [n for n in range(len(trials)) if n not in results]:
                before = len(results)
                for number in left:
                    if (result := self._result(number, trials[number])) is not None:
                        results[number] = result
                        self.tell(TrialDone(number, result))
                if len(results) == before:
                    self._wait(len(left))
        return [results[number] for number in range(len(trials))]

    def _wait(self, left: int) -> None:
        if not self._has_waited:
            self.tell(events.Note(f"Waiting for {counted(left, 'run')} of other processes."))
        self._has_waited = True
        time.sleep(WAIT_SECONDS)

    def _stop_if_lost(self, event: object) -> None:
        if self.claims.lost:
            raise KeyboardInterrupt  # all that passes through listeners

    def _result(self, number: int, trial: Trial) -> Result | None:
        """None while another process has the trial or the stage one that it needs."""
        folder = self.folder / trial.folder
        try:
            with self._claimed(folder) as ours:
                if not ours:
                    return None
                stage_one = self._stage_one(number, trial)
                self._started(number, trial, trial.row, trial.recipe)
                summary = self.runs.run_or_resume(trial.recipe, folder, self.listeners, stage_one)
                return Result(trial, summary)
        except _BusyError:
            return None
        except Exception as error:  # a plug-in's bug must not take the other trials with it
            return Result(trial, failure=_reason(error))

    @contextlib.contextmanager
    def _claimed(self, folder: Path) -> Iterator[bool]:
        """Whether this process has that run, which failed in no other; its failure is told them.

        Raises:
            DlpError: another process has failed at it.
        """
        name = str(folder.relative_to(self.folder))
        with self.claims.claimed(name, folder / LOCK) as ours:
            if ours and (why := self.claims.failure(name)) is not None:
                raise DlpError(why)
            try:
                yield ours
            except _BusyError:
                raise
            except Exception as error:
                self.claims.failed(name, _reason(error))
                raise

    def _stage_one(self, number: int, trial: Trial) -> Path | None:
        """The end of stage one, trained once for all trials that share it; None if none does.

        Raises:
            _BusyError: another process trains it.
        """
        alone = stage_one_alone(trial.recipe)
        key = key_of(alone)
        if self.shared[key] < 2 or not alone.training.stage_one_epochs:
            return None
        common = self.runs.stage_one_folder(alone)
        if is_whole(common):
            return common.stage_one
        with self._claimed(common.path) as ours:
            if not ours:
                raise _BusyError
            work = f"stage one, shared by {self.shared[key]} runs"
            return self.runs.shared_stage_one(
                trial.recipe, self.listeners, lambda one: self._started(number, trial, work, one)
            )

    def _started(self, number: int, trial: Trial, work: str, recipe: Recipe) -> None:
        t = recipe.training
        epochs = t.stage_one_epochs + t.stage_two_epochs
        self.tell(TrialStarted(number, len(self.suite.trials), work, trial.seed, epochs))


def _reason(error: Exception) -> str:
    if isinstance(error, DlpError):
        return str(error)
    return raised_by(error) or f"{type(error).__name__}: {error}"
