"""One run of many: started, resumed, or read where it is finished; a common stage one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_plugins.errors import RunFolderError
from dlp_plugins.recipe.check import check_layers
from dlp_plugins.recipe.files import Layer
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.registry import PROPAGATION
from dlp_plugins.training import events
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.run import run

# Keys of a recipe that stage one does not depend on.
STAGE_TWO = (*PROPAGATION, "source", "pseudo_labels", "tracker", "description")
# The same of its table [training]; they get their defaults.
TRAINING_STAGE_TWO = ("stage_two_steps", "soft_labels")


@dataclass(frozen=True)
class Runs:
    """How runs below one folder are done. what: to call them in an error, such as 'a suite'."""

    folder: Path
    device: str
    plugins: Sequence[str | Path]
    what: str

    def run_or_resume(
        self,
        recipe: Recipe,
        folder: Path,
        listeners: Sequence[events.Listener],
        stage_one: Path | None = None,
        again: bool = False,
    ) -> dict[str, Any]:
        """The summary of a run: of what is finished, else of what is trained or continued now.

        again: train once more, whatever is there.

        Raises:
            RunFolderError: the folder holds a run of another recipe. As `run`.
        """
        target = RunFolder(folder)
        begun = target.recipe.is_file()
        if begun:
            try:
                target.check_same_recipe(recipe.as_dict())
            except RunFolderError as error:
                raise RunFolderError(f"{error} For {self.what}: give another --out.") from None
        saved = (target.training, target.training_previous, target.stage_one, target.summary)
        resume = begun and not again and any(path.exists() for path in saved)
        return run(
            recipe,
            folder,
            device=self.device,
            resume=resume,
            overwrite=begun and not resume,  # broken off before its first checkpoint
            plugins=self.plugins,
            stage_one=stage_one,
            listeners=listeners,
        )

    def stage_one_folder(self, alone: Recipe) -> RunFolder:
        """Where the common stage one of that recipe is trained."""
        return RunFolder(self.folder / "_stage_one" / key_of(alone))

    def shared_stage_one(
        self, recipe: Recipe, listeners: Sequence[events.Listener], start: Callable[[Recipe], None]
    ) -> Path | None:
        """The end of stage one of this recipe, trained unless it is there; None without epochs.

        start: called with the recipe of stage one before it is trained.
        """
        alone = stage_one_alone(recipe)
        if not alone.training.stage_one_epochs:
            return None
        common = self.stage_one_folder(alone)
        if not is_whole(common):
            start(alone)
            # A summary without the file itself: nothing to resume, it is trained again.
            again = common.summary.is_file()
            self.run_or_resume(alone, common.path, listeners, again=again)
        return common.stage_one


def is_whole(stage_one: RunFolder) -> bool:
    """Whether a common stage one is finished, and its weights are there."""
    return stage_one.summary.is_file() and stage_one.stage_one.is_file()


def stage_one_alone(recipe: Recipe) -> Recipe:
    """The recipe's stage one: the same for all recipes that differ only in what comes after it."""
    settings = {k: v for k, v in recipe.as_dict().items() if k not in STAGE_TWO}
    kept = {k: v for k, v in settings["training"].items() if k not in TRAINING_STAGE_TWO}
    training = {**kept, "stage_two_epochs": 0}
    return check_layers([Layer("stage one", {**settings, "training": training})])


def key_of(recipe: Recipe) -> str:
    """A short name of the recipe's settings."""
    text = json.dumps(recipe.as_dict(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
