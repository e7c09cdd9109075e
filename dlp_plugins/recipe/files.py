"""Where recipes lie and how they are read, before anything is checked (see `recipe.py`).

Imports nothing heavy, so that recipes can be listed at once.
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_plugins._files.reading import read_text
from dlp_plugins.errors import UsageError, did_you_mean

SUFFIX = ".toml"
MOST_BYTES = 2**20  # of a recipe
MOST_PARTS = 64  # of a dotted key: reading one takes time that grows with their square
DOTTED = re.compile(rf"""(?<!["'\w-])(?:["'\w-]++[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}""")


class RecipeError(UsageError):
    """One or more problems in a recipe; the message lists them all."""


@dataclass(frozen=True)
class Layer:
    """Settings of one file or of the command line, before merging."""

    source: str
    data: dict[str, Any]


def read_layers(path: Path) -> list[Layer]:
    """The file and everything it extends, the most basic first."""
    chain: list[Layer] = []
    seen: list[Path] = []
    while True:
        if path.resolve() in seen:
            names = " -> ".join(p.name for p in [*seen, path])
            raise RecipeError(f"{path}: extends: a circle: {names}")
        seen.append(path.resolve())
        data = read_toml(path)
        if not data:
            raise RecipeError(
                f"{path}: the recipe is empty. Start from one that comes with the project: "
                f'`extends = "digits.toml"`. There are: {", ".join(recipe_names())}.'
            )
        base = data.pop("extends", None)
        if chain:  # a description is of the file it stands in, not of those that extend it
            data.pop("description", None)
        chain.insert(0, Layer(str(path), data))
        if base is None:
            return chain
        if not isinstance(base, str):
            raise RecipeError(f"{path}: extends: found {base!r}; allowed: the path of a recipe")
        path = base_of(path, base)


def base_of(path: Path, base: str) -> Path:
    """The file that `extends = base` means in the recipe at `path`.

    Raises:
        RecipeError: there is none, neither beside the recipe nor among those of the project.
    """
    beside = path.parent / base
    if beside.is_file():
        return beside
    try:
        return find_recipe(base)
    except UsageError:
        raise RecipeError(
            f"{path}: extends: found {base!r}; there is no {beside}, and no recipe of that name "
            f"comes with the project.{did_you_mean(Path(base).stem, recipe_names())}"
        ) from None


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """`solver.alpha=0.9` of the command line as {"solver.alpha": 0.9}; of equal keys the last.

    Raises:
        RecipeError: a text without `=` or without a key.
    """
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not all(parts := key.strip().split(".")) or len(parts) > MOST_PARTS:
            raise RecipeError(f"--set {text}: write key=value, for example --set solver.alpha=0.9")
        settings[key.strip()] = _parse_value(value.strip())
    return settings


def settings_layer(settings: Mapping[str, Any], source: str = "--set") -> Layer:
    """Settings by dotted key as a layer. A component's name alone selects it.

    Raises:
        RecipeError: a key below one that has a plain value.
    """
    data: dict[str, Any] = {}
    for key, value in settings.items():
        *tables, last = key.split(".")
        table = data
        for k in tables:
            if isinstance(table.get(k), str):
                table[k] = {"name": table[k]}  # solver=power, then solver.alpha=0.9
            table = table.setdefault(k, {})
            if not isinstance(table, dict):
                raise RecipeError(f"{source} {key}: '{k}' was given a plain value before")
        old = table.get(last)
        if isinstance(old, dict) and not isinstance(value, dict):
            old["name"] = value  # solver.alpha=0.9, then solver=power
        else:
            table[last] = copy.deepcopy(value)  # a later key may go into it
    return Layer(source, data)


def override_layer(texts: Iterable[str]) -> Layer:
    """`key=value` settings of the command line as a layer."""
    return settings_layer(parse_settings(texts))


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe given by path or by name; what has a folder before it is a path.

    Raises:
        UsageError: there is neither; the message names the nearest recipe.
    """
    name = str(recipe).removesuffix(SUFFIX)
    for path in [Path(recipe), *named(recipe, recipe_folders())]:
        with contextlib.suppress(OSError):  # a name too long for a file, a folder one may not enter
            if path.is_file():
                return path
    names = recipe_names()
    project = "" if has_folder(recipe) else ", and none of that name comes with the project"
    raise UsageError(
        f"There is no recipe '{recipe}': no such file{project}."
        f"{did_you_mean(Path(name).name, names)} Recipes: {', '.join(names)}."
    )


def has_folder(name: str | Path) -> bool:
    """Whether a name has a folder before it, and so is the path of a file alone."""
    return any(separator in str(name) for separator in {"/", os.sep})


def named(name: str | Path, folders: Iterable[Path]) -> list[Path]:
    """Where files of that name would lie in the project's folders; a path lies in none."""
    file = f"{str(name).removesuffix(SUFFIX)}{SUFFIX}"
    return [] if has_folder(name) else [folder / file for folder in folders]


def recipe_names() -> list[str]:
    """Names of the recipes that come with the project, without those meant only as a base."""
    files = (f for folder in recipe_folders() for f in folder.glob(f"*{SUFFIX}"))
    return sorted({f.stem for f in files if not f.stem.startswith("_")})


def recipe_folders() -> list[Path]:
    package = Path(__file__).parents[1]
    carried = package / "_recipes"  # in an installed wheel; else there is the checkout's folder
    return [carried if carried.is_dir() else package.parent / "recipes"]


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's tables; RecipeError names the file and what is wrong with it."""
    text = read_recipe_text(path)
    try:
        return parse_toml(text)
    except ValueError as error:  # TOML's own errors are ValueErrors
        raise RecipeError(f"{path}: not valid TOML: {error}") from None


def read_recipe_text(path: Path) -> str:
    """The text of a TOML file; RecipeError names the file and what is wrong with it."""
    try:
        return read_text(path, MOST_BYTES)
    except ValueError as error:  # as those of UTF-8 are
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text, which may be a stranger's.

    Raises:
        ValueError: not valid, a number of thousands of digits, or nested too deep.
    """
    if DOTTED.search(text):
        raise ValueError(f"a key has more than {MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("lists or tables are nested too deep") from None


def _parse_value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except ValueError as error:
        raise RecipeError(f"--set: {text[:40]}...: {error}") from None
