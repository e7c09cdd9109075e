"""Runs a suite's cells: resumes what is unfinished, shares stage one, goes on past a failure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_plugins.bench.suite import Cell, Suite
from dlp_plugins.errors import DlpError, RunFolderError
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.registry import PROPAGATION
from dlp_plugins.training import events
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.run import run

# Settings that stage one does not depend on.
STAGE_TWO = (*PROPAGATION, "source", "pseudo_labels", "tracker", "description")


@dataclass(frozen=True)
class Result:
    """How one cell ended: `summary` as in its summary.json, or `failure`, a sentence."""

    cell: Cell
    summary: dict[str, Any] | None = None
    failure: str | None = None


@dataclass(frozen=True)
class CellStarted:
    """number: from 0; work: 'stage one, shared by 6' or the row's name."""

    number: int
    total: int
    work: str
    seed: int
    epochs: int


@dataclass(frozen=True)
class CellDone:
    number: int
    result: Result


Watcher = Callable[[CellStarted | CellDone | events.Event], None]


def run_suite(
    suite: Suite, folder: Path, *, device: str = "auto", watchers: Sequence[Watcher] = ()
) -> list[Result]:
    """Run every cell below `folder` and return the results in the suite's order.

    A cell that is finished already is read, one that was broken off is resumed. A cell that fails
    is recorded and the others go on.
    """
    shared = Counter(_stage_one_key(cell.recipe) for cell in suite.cells)
    results = []
    for number, cell in enumerate(suite.cells):
        results.append(_run_cell(number, cell, suite, folder, device, shared, watchers))
        _tell(watchers, CellDone(number, results[-1]))
    return results


def _run_cell(
    number: int,
    cell: Cell,
    suite: Suite,
    folder: Path,
    device: str,
    shared: Counter[str],
    watchers: Sequence[Watcher],
) -> Result:
    def start(work: str, recipe: Recipe) -> None:
        t = recipe.training
        epochs = t.stage_one_epochs + t.stage_two_epochs
        _tell(watchers, CellStarted(number, len(suite.cells), work, cell.seed, epochs))

    try:
        key, stage_one = _stage_one_key(cell.recipe), None
        if shared[key] > 1 and cell.recipe.training.stage_one_epochs:
            common = folder / "_stage_one" / key
            alone = _stage_one_alone(cell.recipe)
            if not RunFolder(common).summary.is_file():
                start(f"stage one, shared by {shared[key]} runs", alone)
                _run_or_resume(alone, common, device, None, watchers)
            stage_one = RunFolder(common).stage_one
        start(cell.row, cell.recipe)
        return Result(
            cell, _run_or_resume(cell.recipe, folder / cell.folder, device, stage_one, watchers)
        )
    except DlpError as error:
        return Result(cell, failure=str(error))
    except Exception as error:  # a plug-in's bug must not take the other cells with it
        return Result(cell, failure=f"{type(error).__name__}: {error}")


def _run_or_resume(
    recipe: Recipe,
    folder: Path,
    device: str,
    stage_one: Path | None,
    watchers: Sequence[Watcher],
) -> dict[str, Any]:
    target = RunFolder(folder)
    begun = target.recipe.is_file()
    if begun:
        try:
            target.check_same_recipe(recipe.as_dict())
        except RunFolderError as error:
            raise RunFolderError(f"{error} For a suite: give another --out.") from None
        if not target.training.is_file() and not target.summary.is_file():
            begun = False  # broken off before its first checkpoint
    return run(
        recipe,
        folder,
        device=device,
        resume=begun,
        overwrite=not begun and target.recipe.is_file(),
        stage_one=stage_one,
        listeners=watchers,
    )


def _stage_one_alone(recipe: Recipe) -> Recipe:
    training = recipe.training.model_copy(update={"stage_two_epochs": 0})
    return recipe.model_copy(update={"training": training})


def _stage_one_key(recipe: Recipe) -> str:
    """The same for recipes whose stage one is the same."""
    settings = _stage_one_alone(recipe).as_dict()
    settings = {k: v for k, v in settings.items() if k not in STAGE_TWO}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _tell(watchers: Sequence[Watcher], event: CellStarted | CellDone) -> None:
    for watcher in watchers:
        watcher(event)
