"""A search for settings: every trial a run, judged by the lowest validation error it reaches.

Optuna proposes the settings (TPE: Bergstra et al., NIPS 2011) and stops a trial whose error is
above the median of the others at the same epoch. All is in one folder, the study in SQLite, so that
the same call goes on after a break. The test error is neither read nor shown.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_plugins._files.lock import Lock
from dlp_plugins._files.writing import write_text
from dlp_plugins.bench.runner import TrialStarted
from dlp_plugins.bench.running import STAGE_TWO, Runs
from dlp_plugins.component import install_command
from dlp_plugins.errors import DlpError, MissingDependency, RunFolderError, SaveError, UsageError
from dlp_plugins.recipe.check import check_dependencies, load_recipe
from dlp_plugins.recipe.files import RecipeError
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.training import events
from dlp_plugins.tuning.results import (
    STUDY,
    TABLE,
    TRIALS_FOLDER,
    State,
    TrialResult,
    Tuned,
)
from dlp_plugins.tuning.space import Search, combination, combinations, parse_space

TRIALS = 20
LOCK = "lock"
# Trials to finish before any is stopped, and epochs that each has at least: the first errors of
# stage one, and of stage two, say little about the last ones.
COMPARED, FIRST_EPOCHS = 4, 3
ERRORS = ("validation_error", "teacher_validation_error")
# Attributes of the study, and of its trials.
REQUEST, BROKEN_OFF, PROBLEM, SETTINGS = "request", "broken off", "problem", "settings"


@dataclass(frozen=True)
class TrialDone:
    number: int
    result: TrialResult


Listener = Callable[[TrialStarted | TrialDone | events.Event], None]


def tune(
    recipe: str,
    search: Iterable[str],
    out: str | Path | None = None,
    *,
    trials: int = TRIALS,
    settings: Iterable[str] = (),
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    prune: bool = True,
    listeners: Sequence[Listener] = (),
) -> Tuned:
    """Search settings of a recipe for the lowest validation error.

    Args:
        recipe: path or name; it must hold out validation images.
        search: as `solver.alpha=0.5..0.999`, see `space`.
        out: the study's folder, by default runs/tune-RECIPE. A study that is there is continued.
        trials: in all, those of former calls included.
        settings: `key=value` of every trial.
        prune: stop trials that are worse than the median.
        listeners: called with every event of the trials and of their runs.

    Raises:
        UsageError, RecipeError: the recipe, a setting or a search is wrong, or nothing is held out.
        RunFolderError: the folder holds another study, or another process writes there.
        MissingDependency: Optuna is not installed.
        SaveError: the folder cannot be written. KeyboardInterrupt: after saving.

    >>> from dlp_plugins.tuning.study import tune
    >>> found = tune("digits", ["solver.alpha=0.5..0.999"], settings=["dataset.num_validation=100"])
    ... # doctest: +SKIP
    """
    job = prepare(recipe, search, out, settings=settings, plugins=plugins, trials=trials)
    return job.run(device, prune, listeners)


@dataclass(frozen=True)
class Tuning:
    """A search, checked and ready to run. source: path or name of the recipe. total: of trials."""

    source: str
    recipe: Recipe
    settings: tuple[str, ...]
    space: list[Search]
    folder: Path
    total: int
    plugins: tuple[str | Path, ...]

    def run(
        self, device: str = "auto", prune: bool = True, listeners: Sequence[Listener] = ()
    ) -> Tuned:
        """As `tune`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{self.folder} could not be made: {error.strerror}.") from error
        with Lock(self.folder / LOCK):
            return _Study(self, device, prune, events.Listeners(listeners)).run()

    @property
    def shares_stage_one(self) -> bool:
        """Whether all trials have the same stage one, which is then trained once."""
        return all(search.key.split(".")[0] in STAGE_TWO for search in self.space)

    @property
    def request(self) -> dict[str, Any]:
        """What a study that is continued must have in common with this one."""
        searched = {s.key: [*s.ends, s.log] for s in self.space}
        return json.loads(json.dumps({"recipe": self.recipe.as_dict(), "search": searched}))


def prepare(
    recipe: str,
    search: Iterable[str],
    out: str | Path | None = None,
    *,
    settings: Iterable[str] = (),
    plugins: Sequence[str | Path] = (),
    trials: int = TRIALS,
) -> Tuning:
    """Check everything that can be checked before anything is trained or written; see `tune`."""
    check_optuna()
    if trials < 1:
        raise UsageError("--trials: at least 1.")
    space, settings = parse_space(search), tuple(settings)
    checked = load_recipe(recipe, settings)
    check_dependencies(checked)
    if checked.dataset.num_validation == 0:
        raise UsageError(
            f"{recipe} holds out no validation images, and the test error must not choose. Hold "
            "some out: --set dataset.num_validation=100."
        )
    _check_values(recipe, settings, space)
    folder = Path("runs") / f"tune-{Path(recipe).stem}" if out is None else Path(out)
    most = combinations(space)
    total = trials if most is None else min(trials, most)
    job = Tuning(recipe, checked, settings, space, folder, total, tuple(plugins))
    if (folder / STUDY).is_file():
        _open(job, None)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder} is there and holds no study. Give another --out.")
    return job


def check_optuna() -> None:
    """Raise MissingDependency unless Optuna is installed."""
    try:
        import optuna
    except ImportError:
        raise MissingDependency(
            f"dlp tune needs optuna, which is not installed. Run: {install_command('tune')}"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _check_values(recipe: str, settings: Sequence[str], space: Sequence[Search]) -> None:
    """Refuse ends and choices that a recipe cannot hold, all of them at once."""
    problems = []
    first = {search.key: search.ends[0] for search in space}
    for search in space:
        for value in search.ends:
            chosen = {**first, search.key: value}
            try:
                load_recipe(recipe, [*settings, *(f"{k}={v}" for k, v in chosen.items())])
            except UsageError as error:
                text = f"--search {search.key}, at {value}: {error}"
                problems.append(text.replace("\n", "\n  "))
    if problems:
        raise RecipeError("\n".join(dict.fromkeys(problems)))


def _open(job: Tuning, pruner: Any) -> Any:
    """The Optuna study in the folder, made where there is none.

    Raises:
        RunFolderError: it is of another recipe or search, or cannot be read.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    path = (job.folder / STUDY).resolve()
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path}", study_name="tune", pruner=pruner, load_if_exists=True
        )
        known = study.user_attrs.get(REQUEST)
        if known is None:
            study.set_user_attr(REQUEST, job.request)
    except (SQLAlchemyError, RuntimeError, optuna.exceptions.OptunaError) as error:
        text = str(error).splitlines()[0]
        raise RunFolderError(f"{path} holds no study: {text} Give another --out.") from None
    if known is not None and known != job.request:
        raise RunFolderError(
            f"{job.folder} holds a study of another recipe, other settings or another search. Give "
            "another --out."
        )
    return study


class _Study:
    def __init__(self, job: Tuning, device: str, prune: bool, tell: events.Listeners) -> None:
        import optuna

        self.job, self.tell = job, tell
        self.runs = Runs(job.folder, device, job.plugins, "`dlp tune`")
        before = job.recipe.training.stage_one_epochs if job.shares_stage_one else 0
        pruner = optuna.pruners.MedianPruner(COMPARED, n_warmup_steps=before + FIRST_EPOCHS)
        self.study = _open(job, pruner if prune else optuna.pruners.NopPruner())
        # Not the seed alone: a study that goes on would propose its first settings again.
        seed = job.recipe.seed + len(self.study.trials)
        few = min(10, max(1, job.total // 2))
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=few)
        self.states: dict[Any, State] = {
            optuna.trial.TrialState.COMPLETE: "finished",
            optuna.trial.TrialState.PRUNED: "stopped",
            optuna.trial.TrialState.FAIL: "failed",
        }

    def run(self) -> Tuned:
        self._put_back()
        while len(done := self._results()) < self.job.total:
            self._propose_untried()
            trial = self.study.ask()
            texts = {search.key: search.draw(trial) for search in self.job.space}
            trial.set_user_attr(SETTINGS, texts)
            self._try(trial, texts, len(done))
            result = self._result(self.study.trials[trial.number])
            self.tell(TrialDone(len(done), result))
            self._write()
        return self._write()

    def _put_back(self) -> None:
        """What a former process left unfinished, or failed there, is tried again.

        In its folder, so from where it stood.
        """
        from optuna.trial import TrialState

        for trial in self.study.get_trials(states=[TrialState.RUNNING, TrialState.FAIL]):
            numbers = self.study.user_attrs.get(BROKEN_OFF, [])
            if trial.number in numbers:
                continue
            if trial.params.keys() == {search.key for search in self.job.space}:
                self.study.enqueue_trial(trial.params)
            self.study.set_user_attr(BROKEN_OFF, [*numbers, trial.number])
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _propose_untried(self) -> None:
        """Of lists alone every combination is tried once; of fewer trials the seed draws which."""
        from optuna.trial import TrialState

        space, total = self.job.space, self.job.total
        most = combinations(space)
        if most is None or self.study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
            return
        tried = [trial.params for trial in self.study.get_trials(deepcopy=False)]
        drawn = random.Random(self.job.recipe.seed).sample(range(most), total)
        for number in range(most) if total == most else drawn:
            if (values := combination(space, number)) not in tried:
                self.study.enqueue_trial(values)
                return

    def _try(self, trial: Any, texts: dict[str, str], number: int) -> None:
        import optuna

        try:
            value = self._train(trial, texts, number)
        except events.StopRun:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return
        except SaveError:
            raise  # the next trial could not be written either
        except DlpError as error:
            problem = str(error)
        except Exception as error:  # a plug-in's bug must not take the other trials with it
            problem = f"{type(error).__name__}: {error}"
        else:
            self.study.tell(trial, value)
            return
        trial.set_user_attr(PROBLEM, problem)
        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _train(self, trial: Any, texts: dict[str, str], number: int) -> float:
        """The lowest validation error of a run with these settings."""
        job, chosen = self.job, [f"{k}={v}" for k, v in texts.items()]
        recipe = load_recipe(job.source, [*job.settings, *chosen])

        def started(work: str, of: Recipe) -> None:
            epochs = of.training.stage_one_epochs + of.training.stage_two_epochs
            self.tell(TrialStarted(number, job.total, work, of.seed, epochs))

        stage_one = None
        if job.shares_stage_one:
            stage_one = self.runs.shared_stage_one(
                recipe, [self.tell], lambda alone: started("stage one, shared by all trials", alone)
            )
        started(" ".join(chosen), recipe)
        folder = job.folder / TRIALS_FOLDER / _name(chosen)
        report = _Report(trial, recipe.training.stage_one_epochs, job.shares_stage_one)
        summary = self.runs.run_or_resume(recipe, folder, [self.tell, report], stage_one)
        return min(summary[f"best_{key}"] for key in ERRORS if f"best_{key}" in summary)

    def _result(self, trial: Any) -> TrialResult:
        state = self.states[trial.state]
        finished = state == "finished"
        known = [trial.value] if finished else [*trial.intermediate_values.values()]
        return TrialResult(
            trial.number,
            trial.user_attrs.get(SETTINGS, {}),
            state,
            min(known, default=None),
            len(trial.intermediate_values),
            trial.user_attrs.get(PROBLEM, ""),
        )

    def _results(self) -> list[TrialResult]:
        """Of trials that have ended, in their order."""
        broken_off = self.study.user_attrs.get(BROKEN_OFF, [])
        return [
            self._result(trial)
            for trial in self.study.trials
            if trial.state in self.states and trial.number not in broken_off
        ]

    def _write(self) -> Tuned:
        found = Tuned.of([search.key for search in self.job.space], self._results())
        write_text(self.job.folder / TABLE, found.to_csv())
        return found


class _Report:
    """A listener that reports each epoch's error to Optuna, and ends the run where it asks to.

    shared: stage one is that of all trials, and so tells nothing of this one.
    """

    def __init__(self, trial: Any, stage_one_epochs: int, shared: bool) -> None:
        self.trial = trial
        self.before = {"propagation": stage_one_epochs} | ({} if shared else {"supervised": 0})

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.RunStarted):
            for line in event.history:
                self._report(line["stage"], line["epoch"], line)
        elif isinstance(event, events.EpochDone):
            self._report(event.stage, event.epoch, event.metrics)
            if self.trial.should_prune():
                raise events.StopRun

    def _report(self, stage: str, epoch: int, metrics: dict[str, Any]) -> None:
        errors = [metrics[key] for key in ERRORS if key in metrics]
        if errors and stage in self.before:
            self.trial.report(min(errors), self.before[stage] + epoch + 1)


def _name(settings: Sequence[str]) -> str:
    """The name of a trial's folder: of equal settings the same."""
    return hashlib.sha256("\n".join(sorted(settings)).encode()).hexdigest()[:12]
