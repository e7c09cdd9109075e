"""What the shell offers at the tab key: names of recipes, kinds and components, keys of --set.

A shell waits for it, so nothing heavy is imported, but for parameters of components, which only
the components know: after `--set solver.` the solvers are imported. What goes wrong offers nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

Completer = Callable[..., list[str]]


def _quietly(complete: Completer) -> Completer:
    @functools.wraps(complete)
    def quiet(*arguments: Any, **named: Any) -> list[str]:
        try:
            return complete(*arguments, **named)
        except Exception:  # an error here would be printed into the line that is being typed
            return []

    return quiet


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


@_quietly
def recipes(incomplete: str) -> list[str]:
    """Names of recipes, and TOML files of the folder."""
    from dlp_plugins.recipe.files import recipe_names

    return _starting(incomplete, [*recipe_names(), *_toml_files(incomplete)])


@_quietly
def suites(incomplete: str) -> list[str]:
    """Names of suites and recipes, and TOML files of the folder."""
    from dlp_plugins.recipe.files import recipe_folders

    names = (p.stem for folder in recipe_folders() for p in folder.glob("suites/*.toml"))
    return sorted({*_starting(incomplete, names), *recipes(incomplete)})


def _toml_files(incomplete: str) -> list[str]:
    folder = incomplete[: incomplete.rfind("/") + 1]  # as it was typed: ./ too
    return [folder + path.name for path in Path(folder or ".").glob("*.toml")]


@_quietly
def kinds(incomplete: str) -> list[str]:
    """Kinds of components, plural as `dlp list` prints them."""
    from dlp_plugins.registry import KINDS

    return _starting(incomplete, (kind.kind for kind in KINDS))


@_quietly
def kinds_and_recipes(incomplete: str) -> list[str]:
    """For `dlp list`."""
    return sorted({*kinds(incomplete), *_starting(incomplete, ["recipes", "suites"])})


@_quietly
def kinds_and_more(incomplete: str) -> list[str]:
    """For `dlp show`."""
    return sorted({*kinds(incomplete), *_starting(incomplete, ["recipes", "settings"])})


@_quietly
def names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For `dlp show KIND NAME`: names of that kind."""
    from dlp_plugins.registry import of_kind

    kind = ctx.params["kind"]
    if kind in ("recipe", "recipes"):
        return recipes(incomplete)
    if kind in ("setting", "settings"):
        return _starting(incomplete, filter(None, _tables()))
    return _starting(incomplete, of_kind(kind).names())


@_quietly
def selectors(incomplete: str) -> list[str]:
    from dlp_plugins.registry import selectors as registry

    return _starting(incomplete, registry.names())


@_quietly
def settings(incomplete: str) -> list[str]:
    """Keys with `=`; after it names of components, or the values that a key may have."""
    key, equals, _ = incomplete.partition("=")
    if equals:
        return _starting(incomplete, (f"{key}={value}" for value in _values(key)))
    if "." not in key:
        # `extends` is for files alone
        own = [s.key for s in _tables()[""].settings() if s.key != "extends"]
        keys = [*(f"{key}=" for key in own), *_components()]
        return _starting(incomplete, [*keys, *(f"{name}." for name in _tables() if name)])
    table = _tables().get(key.rpartition(".")[0])
    if table is None:
        return []
    from dlp_cli.settings import parameters

    found = [*table.settings(), *(p for c in table.components() for p in parameters(c))]
    deeper = [f"{name}." for name in _tables() if name.startswith(f"{table.key}.")]
    return _starting(incomplete, [*(f"{table.key}.{s.key}=" for s in found), *deeper])


def _components() -> list[str]:
    """`solver=` and so on: a component by its name alone."""
    return [f"{table.key}=" for table in _tables().values() if table.kind and not table.repeated]


def _values(key: str) -> list[str]:
    table_key, _, last = key.rpartition(".")
    table = _tables().get(key) or (_tables().get(table_key) if last == "name" else None)
    if table is not None and table.kind:
        from dlp_plugins.registry import of_kind

        return of_kind(table.kind).names()
    return _choices(table_key, last)


def _choices(table_key: str, key: str) -> list[str]:
    """Of a key of a table: its literals, or true and false."""
    info = _tables()[table_key].model.model_fields.get(key)
    annotations = [] if info is None else [info.annotation, *get_args(info.annotation)]
    found: list[str] = []
    for annotation in annotations:
        if annotation is bool:
            found += ["true", "false"]
        elif get_origin(annotation) is Literal:
            found += map(str, get_args(annotation))
    return found


@functools.cache
def _tables() -> dict[str, Any]:
    from dlp_cli.settings import tables

    return {table.key: table for table in tables()}
