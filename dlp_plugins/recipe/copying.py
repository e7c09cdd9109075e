"""A recipe copied to a file of the user's own, with the same settings as where it came from."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from dlp_plugins._files.writing import check_place, write_text
from dlp_plugins.recipe.files import (
    SUFFIX,
    RecipeError,
    base_of,
    find_recipe,
    read_layers,
    recipe_folders,
)

EXTENDS = re.compile(r"""^(\s*extends\s*=\s*)("[^"\n]*"|'[^'\n]*')""", re.M)


def copy_recipe(recipe: str | Path, file: str | Path, overwrite: bool = False) -> Path:
    """Copy a recipe, comments and all, and return the copy's path.

    The copy extends the same recipe as the original. Only where the name that stands there would
    mean another file from the copy's folder is `extends` rewritten.

    Args:
        recipe: its name or path.
        file: where the copy goes; into a folder under the recipe's own name, and without a suffix
            as .toml.
        overwrite: replace a file that exists.

    Raises:
        UsageError: there is no such recipe or folder, the recipe is not valid TOML, or the file
            exists.
        SaveError: the file cannot be written.
    """
    source, target = find_recipe(recipe), Path(file)
    if target.is_dir():
        target = target / source.name
    elif str(file).endswith(("/", os.sep)):  # which a path does not keep
        raise RecipeError(f"{file}: there is no such folder.")
    elif not target.suffix:
        target = target.with_suffix(SUFFIX)
    check_place(target, (SUFFIX,), "a recipe", overwrite)
    if target.exists() and target.samefile(source):
        raise RecipeError(f"{target}: is the recipe itself. Give the copy another name.")
    read_layers(source)  # a recipe that cannot be read is not worth a copy
    write_text(target, _text_for(source, target))
    return target


def _text_for(source: Path, target: Path) -> str:
    """The recipe's text, whose `extends` means the same file from the target's place."""
    text = source.read_text(encoding="utf-8")
    settings = tomllib.loads(text)
    if (base := settings.get("extends")) is None:
        return text
    wanted = base_of(source, base)
    if _means(target, base, wanted):
        return text
    for name in _names_of(wanted, target):
        if _means(target, name, wanted):
            changed = _extending(text, name)
            if tomllib.loads(changed) == settings | {"extends": name}:
                return changed
    raise RecipeError(
        f"{target}: from there `extends = {base!r}` would not mean {wanted}, as it does in "
        f"{source}. Choose another name or folder for the copy."
    )


def _extending(text: str, name: str) -> str:
    return EXTENDS.sub(lambda found: found[1] + json.dumps(name), text, count=1)


def _names_of(base: Path, target: Path) -> Iterator[str]:
    """What to call a recipe from the target's place: its name, or the path to it."""
    if base.parent.resolve() in (folder.resolve() for folder in recipe_folders()):
        yield base.stem  # without the suffix no file beside the copy is meant
    else:
        with contextlib.suppress(ValueError):  # another drive
            yield Path(os.path.relpath(base, target.parent)).as_posix()
        yield base.resolve().as_posix()


def _means(target: Path, name: str, base: Path) -> bool:
    """Whether `extends = name` in a recipe at `target` means `base`."""
    if (target.parent / name).resolve() == target.resolve():
        return False  # it would extend itself, once it is there
    try:
        return base_of(target, name).samefile(base)
    except (RecipeError, OSError):
        return False
