"""A run as it is asked for: recipe, settings, plug-in files and folder, checked together."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_plugins.datasets._arrays import split_key
from dlp_plugins.errors import PluginError, RunFolderError, UsageError
from dlp_plugins.processes.launch import is_first
from dlp_plugins.recipe.check import check_dependencies, check_layers
from dlp_plugins.recipe.files import Layer, find_recipe, read_layers, settings_layer
from dlp_plugins.recipe.model import PARTS, Recipe
from dlp_plugins.registry import load_plugin_file
from dlp_plugins.training.folder import RunFolder

RUNS = Path("runs")


@dataclass(frozen=True)
class Plugin:
    """A user's file that registers components. sha256: of its contents when it was loaded."""

    path: Path
    sha256: str

    def as_dict(self) -> dict[str, str]:
        return {"path": str(self.path.resolve()), "sha256": self.sha256}


@dataclass(frozen=True)
class Request:
    """inputs: files and folders that the run reads. name: of the recipe, for a title."""

    recipe: Recipe
    name: str
    folder: RunFolder
    plugins: tuple[Plugin, ...] = ()
    inputs: tuple[Path, ...] = ()
    resume: bool = False
    overwrite: bool = False


def prepare(
    recipe: str | Path | Recipe,
    out: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    plugins: Sequence[str | Path] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> Request:
    """Load plug-ins and recipe and look at the folder, before anything is trained or written.

    Raises:
        UsageError: resume and overwrite both; a recipe without a name and no folder for it.
        RunFolderError: the folder is taken, or holds no run of this recipe and these plug-ins.
        RecipeError, PluginError, MissingDependency: as `load_recipe` and `load_plugin_file`.
    """
    if resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite replaces it: choose one.")
    layers = _layers(recipe, settings or {})
    name = "" if isinstance(recipe, Recipe) else Path(recipe).stem
    first = is_first()  # the only one of several processes that looks at the folder
    folder = RunFolder(_folder(name, layers) if out is None else Path(out))
    loaded = tuple(_digest(Path(file)) for file in plugins)
    if resume and first:
        folder.check_format()
        _check_plugins(folder, loaded)
    for plugin in loaded:
        load_plugin_file(plugin.path)
    checked = check_layers(layers)
    check_dependencies(checked)
    inputs = (*_files(layers), *(p.path for p in loaded), *_named_paths(checked))
    if resume and first:
        folder.check_same_recipe(checked.as_dict())
    elif first:
        folder.check_free(overwrite, inputs)
    return Request(checked, name, folder, loaded, inputs, resume, overwrite)


def _layers(recipe: str | Path | Recipe, settings: Mapping[str, Any]) -> list[Layer]:
    if isinstance(recipe, Recipe):
        base = [Layer("recipe", recipe.as_dict())]
    else:
        base = read_layers(find_recipe(recipe))
    return [*base, settings_layer(settings)]


def _folder(name: str, layers: Sequence[Layer]) -> Path:
    """runs/NAME-seedN. The seed is read before the recipe is checked, which needs the plug-ins."""
    if not name:
        raise UsageError("A recipe that is not a file needs a folder for the run: give `out`.")
    seed = 0
    for layer in layers:
        seed = layer.data.get("seed", seed)
    return RUNS / f"{name}-seed{seed if isinstance(seed, int) else 0}"


def _digest(path: Path) -> Plugin:
    try:
        if not path.is_file():
            raise PluginError(f"--plugin {path}: there is no such file.")
        return Plugin(path, hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError as error:
        raise PluginError(f"--plugin {path}: cannot be read: {error.strerror}.") from error


def _check_plugins(folder: RunFolder, given: Sequence[Plugin]) -> None:
    """The plug-in files of the run's start must be given again, unchanged.

    They are not loaded by themselves: a folder that came from elsewhere could then run any code.
    """
    digests = {plugin.sha256 for plugin in given}
    names = {plugin.path.name for plugin in given}
    for path, sha256 in folder.read_plugins():
        if sha256 in digests:
            continue
        if Path(path).name in names:
            raise RunFolderError(
                f"{folder.path} was started with another version of the plug-in file {path}. "
                "Resume with the file as it was, or choose another folder with --out."
            )
        raise RunFolderError(
            f"{folder.path} was started with a plug-in file that is missing here. "
            f"Add --plugin {shlex.quote(path)}"
        )


def _files(layers: Sequence[Layer]) -> list[Path]:
    """The recipe's own files."""
    return [path for layer in layers if (path := Path(layer.source)).is_file()]


def _named_paths(recipe: Recipe) -> list[Path]:
    """Files and folders that the recipe names."""
    values: list[Any] = [recipe.dataset.labeled_indices]
    for key in PARTS:
        for value in getattr(recipe, key).params.values():
            values += value if isinstance(value, list) else [value]
    texts = [v for v in values if isinstance(v, str) and v]
    return [p for text in texts for p in (Path(text), split_key(text)[0]) if _exists(p)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no path at all: too long, or with a null byte
        return False
