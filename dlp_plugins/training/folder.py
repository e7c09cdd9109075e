"""The folder a run leaves, and writing into it so that a crash or a full disk destroys nothing.

recipe.toml            the resolved recipe
environment.json       versions, device, threads
labeled_indices.json   positions in the training split: labelled, validation
metrics.jsonl          one line per epoch (tracker jsonl)
pseudo_labels.npz      labels, weights, certainty of the last refresh
checkpoint/            training.safetensors (all that a resume needs), stage_one, student, ...
summary.json           written last: its presence means that the run is complete
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dlp_plugins.errors import DataError, RunFolderError, SaveError
from dlp_plugins.recipe.check import load_recipe


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place only once it is wholly written.

    Raises:
        SaveError: it could not be written; `path` is as it was and the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            reason = getattr(error, "strerror", None) or str(error)
            raise SaveError(
                f"{path} could not be written: {reason}. What was saved before is intact; "
                "make room, then continue with --resume."
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, then put it in place."""
    with replacing(path) as temporary:
        write(temporary)


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.toml"
        self.environment = path / "environment.json"
        self.labeled_indices = path / "labeled_indices.json"
        self.pseudo_labels = path / "pseudo_labels.npz"
        self.summary = path / "summary.json"
        self.checkpoint = path / "checkpoint"
        self.training = self.checkpoint / "training.safetensors"
        self.stage_one = self.checkpoint / "stage_one.safetensors"

    def best_weights(self, network: str) -> Path:
        """The weights of a network ('student' or 'teacher') at its best epoch by validation."""
        return self.checkpoint / f"best_{network}_weights.safetensors"

    def create(self, overwrite: bool = False) -> None:
        """Make the folder.

        Raises:
            RunFolderError: it holds something and `overwrite` was not asked for, or it holds
                something that no run wrote.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            if not overwrite:
                raise RunFolderError(
                    f"{self.path} exists already. Continue it with --resume, replace it with "
                    "--overwrite, or choose another folder with --out."
                )
            if not self.recipe.is_file():
                raise RunFolderError(
                    f"{self.path} holds no recipe.toml, so no run made it, and --overwrite leaves "
                    "it alone. Choose another folder with --out."
                )
            shutil.rmtree(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"{self.path} could not be made: {error.strerror}.") from error

    def check_same_recipe(self, resolved: dict[str, Any]) -> None:
        """Raise RunFolderError unless this folder's recipe is the given one."""
        if not self.recipe.is_file():
            raise RunFolderError(
                f"{self.path} holds no run to resume. Leave --resume out to start one."
            )
        # Read as a recipe, so that a setting which came with a newer version has its default there.
        theirs = flatten(load_recipe(self.recipe).as_dict())
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

    def read_summary(self) -> dict[str, Any]:
        """The result of a finished run.

        Raises:
            DataError: the file is damaged.
        """
        try:
            return json.loads(self.summary.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise DataError(
                f"{self.summary} cannot be read: {error}. Delete it and continue with --resume: "
                "the checkpoint holds the result."
            ) from error


# Settings that may change between a run and its resumption without changing its results.
FREE = {"description", "tracker", "training.checkpoint_seconds", "training.image_memory_mb"}


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one: {"solver": {"alpha": 0.9}} to {"solver.alpha": 0.9}."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
