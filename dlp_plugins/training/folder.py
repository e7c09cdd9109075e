"""The folder a run leaves: its files, which of them may be removed, and how they are written.

environment.json       format of the folder, versions, device, threads, plug-in files
model.json             classes, mean, std, shape and network: with the weights, all that a
                       prediction needs
labeled_indices.json   positions in the training split: labelled, validation; hashes of the data
recipe.toml            the resolved recipe; the last file written at the start, so it stands for
                       all of the above
metrics.jsonl          one line per epoch (tracker jsonl)
pseudo_labels.npz      labels, weights, certainty of the last refresh
pseudo_labels.csv      the same by file name and class name
checkpoint/            training.safetensors (all that a resume needs) and the previous one,
                       stage_one, student, teacher, best_...
README.md              the model card: recipe, data, errors
summary.json           written last: its presence means that the run is complete
trackers/              whatever other trackers write
.lock                  while a process writes here: which one
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dlp_plugins._files import writing
from dlp_plugins._files.lock import Lock
from dlp_plugins._files.reading import read_json
from dlp_plugins.errors import DataError, RunFolderError, SaveError
from dlp_plugins.recipe.check import check_layers
from dlp_plugins.recipe.files import Layer, read_toml
from dlp_plugins.recipe.model import Recipe

# Counted up when a newer version cannot continue what an older one wrote.
FORMAT = 2
ADVICE = "Make room, then continue with --resume."
# In the order in which --overwrite removes them: as long as recipe.toml and environment.json are
# there, a removal that was broken off can be repeated.
FILES = (
    "summary.json", "README.md", "metrics.jsonl", "pseudo_labels.npz", "pseudo_labels.csv",
    "labeled_indices.json", "model.json", "recipe.toml", "environment.json",
)  # fmt: skip
CHECKPOINTS = (
    "training", "training_previous", "stage_one", "student", "teacher", "best_student_weights",
    "best_teacher_weights",
)  # fmt: skip
TRACKERS = "trackers"
CARD = "README.md"
CARD_MARK = "library_name: dlp-plugins"  # a README.md without it is somebody's own
# Keys that every summary.json has.
REQUIRED = {"epochs", "images_per_second", "peak_memory_mb", "seconds", "seed"}
LOCK = ".lock"
_WEIGHTS = [f"{name}.safetensors" for name in CHECKPOINTS]
_LEFT_OVER = writing.left_over([*FILES, *_WEIGHTS])


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    writing.write_text(path, text, ADVICE)


def write_json(path: Path, value: Any) -> None:
    write_text(path, writing.to_json(value, indent=2) + "\n")


def write_with(path: Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """Let `write` fill a temporary file, then put it in place; the old file goes to `previous`."""
    with writing.replacing(path, ADVICE, previous) as temporary:
        write(temporary)


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.toml"
        self.environment = path / "environment.json"
        self.model = path / "model.json"
        self.labeled_indices = path / "labeled_indices.json"
        self.pseudo_labels = path / "pseudo_labels.npz"
        self.pseudo_label_table = path / "pseudo_labels.csv"
        self.card = path / CARD
        self.summary = path / "summary.json"
        self.checkpoint = path / "checkpoint"
        self.trackers = path / TRACKERS
        self.training = self.weights("training")
        self.training_previous = self.weights("training_previous")
        self.stage_one = self.weights("stage_one")

    def weights(self, name: str) -> Path:
        """The file of one of CHECKPOINTS."""
        return self.checkpoint / f"{name}.safetensors"

    def best_weights(self, network: str) -> Path:
        """The weights of a network ('student' or 'teacher') at its best epoch by validation."""
        return self.weights(f"best_{network}_weights")

    # -- a new run --------------------------------------------------------------------------------

    def check_free(self, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
        """Refuse a folder that a new run may not write into. Changes nothing.

        A folder that holds only what a run writes before its first result counts as empty.

        Args:
            overwrite: a finished or broken-off run may be replaced.
            inputs: files and folders that the new run reads; none of them may lie in here.

        Raises:
            RunFolderError: the folder is in use, is not empty, or holds what no run wrote.
        """
        with self._explained():
            if self.path.is_dir():
                self._check_entries(overwrite, inputs)
            elif self.path.exists() or self.path.is_symlink():
                raise RunFolderError(f"{self.path} is not a folder. Choose another with --out.")

    def _check_entries(self, overwrite: bool, inputs: Iterable[Path]) -> None:
        entries = [p for p in self._entries() if not _passing(p) and p != self.checkpoint]
        foreign = sorted(p.name for p in entries if not self._is_ours(p))
        if self.checkpoint.exists() and not self._is_ours(self.checkpoint):
            foreign.append(self.checkpoint.name)
        ours = self.format() is not None
        begun = self.recipe.exists() or self.summary.exists() or any(self._weights())
        if not foreign and not begun and (ours or not entries):
            return
        if begun and not overwrite:
            raise RunFolderError(
                f"{self.path} exists already. Continue it with --resume, replace it with "
                "--overwrite, or choose another folder with --out."
            )
        here = self.path.resolve()
        if Path.cwd().is_relative_to(here):
            raise RunFolderError(
                f"{self.path} is the working directory or holds it, and a run empties no such "
                "folder. Choose another with --out."
            )
        if foreign or not ours:
            held = f"{_listed(foreign)}, which no run made" if foreign else "no environment.json"
            raise RunFolderError(
                f"{self.path} holds {held}, so it is left alone. Choose another folder with --out."
            )
        for path in inputs:
            if path.resolve().is_relative_to(here):
                raise RunFolderError(
                    f"{self.path} holds {path}, which the new run reads, and --overwrite would "
                    "remove it. Copy it elsewhere, or choose another folder with --out."
                )

    @contextlib.contextmanager
    def new(self, overwrite: bool = False, inputs: Iterable[Path] = ()) -> Iterator[None]:
        """Make the folder, empty of any former run, and keep other processes out of it.

        Raises:
            RunFolderError: as `check_free`. SaveError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{self.path} could not be made: {error.strerror}.") from error
        with Lock(self.path / LOCK):
            self.check_free(overwrite, inputs)  # again: another run may have come first
            try:
                # The summary first: whatever else is gone, the run no longer counts as complete.
                files = [self.path / name for name in FILES]
                for path in [self.summary, *self._weights(), *files]:
                    path.unlink(missing_ok=True)
                if self.trackers.is_dir():
                    shutil.rmtree(self.trackers)
                self._remove_left_over()
                self.checkpoint.mkdir(exist_ok=True)
            except OSError as error:
                raise SaveError(f"{self.path} could not be emptied: {error.strerror}.") from error
            yield

    @contextlib.contextmanager
    def resumed(self) -> Iterator[None]:
        """Keep other processes out of the folder of a run that is continued.

        Raises:
            RunFolderError: another process writes there. SaveError: it cannot be written.
        """
        with Lock(self.path / LOCK):
            try:
                self._remove_left_over()
                self.checkpoint.mkdir(exist_ok=True)
            except OSError as error:
                raise SaveError(f"{self.path} cannot be written: {error.strerror}.") from error
            yield

    def _entries(self) -> list[Path]:
        found = list(self.path.iterdir())
        if self.checkpoint.is_dir() and not self.checkpoint.is_symlink():
            found += self.checkpoint.iterdir()
        return found

    def _is_ours(self, path: Path) -> bool:
        if path in (self.checkpoint, self.trackers):
            return path.is_dir() and not path.is_symlink()
        if path == self.card and not self.owns_card():
            return False
        names = FILES if path.parent == self.path else _WEIGHTS
        return path.name in names and (path.is_symlink() or not path.is_dir())

    def owns_card(self) -> bool:
        """Whether README.md is a run's model card, or missing."""
        if self.card.is_symlink() or not self.card.exists():
            return not self.card.is_symlink()
        try:
            return self.card.is_file() and CARD_MARK in self.card.read_text(encoding="utf-8")[:4096]
        except (OSError, UnicodeDecodeError):
            return False

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be read: {error.strerror}.") from error

    def _weights(self) -> Iterator[Path]:
        if not self.checkpoint.is_symlink():
            yield from filter(Path.exists, map(self.weights, CHECKPOINTS))

    def _remove_left_over(self) -> None:
        """Temporary files of a process that was killed while it wrote."""
        for path in self._entries():
            if _LEFT_OVER.fullmatch(path.name):
                path.unlink()

    # -- reading ----------------------------------------------------------------------------------

    def format(self) -> int | None:
        """The format of the folder: 1 if version 0.1 made it, None if no run did."""
        found = _read_object(self.environment)
        if found is None or "packages" not in found:
            return None
        return found.get("format", 1)

    def check_format(self) -> None:
        """Raise RunFolderError unless this version can continue the run."""
        with self._explained():
            if not self.recipe.is_file():
                raise RunFolderError(
                    f"{self.path} holds no run to resume. Leave --resume out to start one."
                )
            found = self.format()
        if found != FORMAT:
            made = {None: "was not made by a run", 1: "was made by version 0.1"}.get(
                found, f"is of format {found}, which this version does not know"
            )
            raise RunFolderError(
                f"{self.path} {made}, so it cannot be resumed. Start the run in another folder "
                "with --out."
            )

    def read_recipe(self) -> Recipe:
        """The resolved recipe. It stands in this one file, which extends no other.

        Raises:
            RecipeError: it is damaged, or names what is not registered here.
        """
        return check_layers([Layer(str(self.recipe), read_toml(self.recipe))])

    def check_same_recipe(self, resolved: dict[str, Any]) -> None:
        """Raise RunFolderError unless this folder's recipe is the given one."""
        self.check_format()
        # Read as a recipe, so that a setting which came with a newer version has its default there.
        theirs = flatten(self.read_recipe().as_dict())
        ours = flatten(resolved)
        differ = sorted(
            k for k in theirs.keys() | ours.keys() if k not in FREE and theirs.get(k) != ours.get(k)
        )
        if differ:
            listed = ", ".join(f"{k} ({theirs.get(k)!r}, now {ours.get(k)!r})" for k in differ)
            raise RunFolderError(
                f"{self.path} was started from another recipe; it differs in {listed}. "
                "Resume with the same settings, or choose another folder with --out."
            )

    def read_plugins(self) -> list[tuple[str, str]]:
        """(path, SHA-256) of the plug-in files that the run was started with."""
        found = (_read_object(self.environment) or {}).get("plugins")
        entries = [p for p in found if isinstance(p, dict)] if isinstance(found, list) else []
        return [(str(p.get("path")), str(p.get("sha256"))) for p in entries]

    def read_computation(self) -> dict[str, Any]:
        """What the run computes with, as it was chosen at its start; empty where unknown."""
        found = (_read_object(self.environment) or {}).get("computation")
        return found if isinstance(found, dict) else {}

    def read_summary(self) -> dict[str, Any]:
        """The result of a finished run.

        Raises:
            DataError: the file is damaged.
        """
        try:
            found = read_json(self.summary)
            _check_summary(found)
        except (ValueError, OSError) as error:
            raise DataError(
                f"{self.summary} cannot be read: {error}. Delete it and continue with --resume: "
                "the checkpoint holds the result."
            ) from error
        return found


# Settings that may change between a run and its resumption without changing its results.
FREE = {
    "description", "tracker", "dataset.download", "training.checkpoint_seconds",
    "training.image_disk_mb", "training.image_memory_mb", "training.workers",
}  # fmt: skip


def _check_summary(found: Any) -> None:
    """Raise ValueError unless it is what `summarize` makes."""
    if not isinstance(found, dict) or not found.keys() >= REQUIRED:
        raise ValueError(f"it is no object with {', '.join(sorted(REQUIRED))}")
    if not isinstance(found["epochs"], dict):
        raise ValueError("epochs is no object")
    for key, value in found.items():
        if key == "labels_may_change":
            if not isinstance(value, bool):
                raise ValueError(f"{key} is neither true nor false")
        elif key != "epochs" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{key} is no number")


def _passing(path: Path) -> bool:
    """A lock or a temporary file: no result of a run."""
    return path.name == LOCK or _LEFT_OVER.fullmatch(path.name) is not None


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None: no ordinary file, damaged, or something else."""
    if not path.is_file():
        return None
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one: {"solver": {"alpha": 0.9}} to {"solver.alpha": 0.9}."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
