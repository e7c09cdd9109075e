"""Reads, merges and checks a recipe: TOML in, checked recipe out.

Layers, each over the one before: what a file `extends`, the file, `--set` on the command line.
Every problem is reported at once, each with the file it stands in, the key, what was found and what
is allowed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dlp_plugins import registry
from dlp_plugins.errors import DlpError, MissingDependency
from dlp_plugins.recipe.files import (
    Layer,
    RecipeError,
    find_recipe,
    parse_settings,
    read_layers,
    settings_layer,
)
from dlp_plugins.recipe.model import LISTS, PARTS, Part, Recipe, Table
from dlp_plugins.recipe.problems import Problem, Sources, explain, report, short

UNSET = "unset"
"""As a value in a recipe: the key has its default again, whatever an extended recipe says."""
LARGEST = 3e38  # of a component's numbers; torch refuses larger ones in the middle of a step


def load_recipe(
    recipe: str | Path,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    source: str = "--set",
) -> Recipe:
    """Read, merge and check a recipe.

    Args:
        recipe: path, or the name of a recipe that comes with the project.
        overrides: `key=value` as on the command line, `solver.alpha=0.9`; the value is TOML, or
            else text. Or the same as a mapping, {"solver.alpha": 0.9}. A component's name alone
            selects it: `solver=power`.
        source: where the overrides stand, for errors.

    Raises:
        RecipeError: with every problem found.
        UsageError: no such recipe.
        PluginError, MissingDependency: a named plug-in cannot be loaded.
    """
    if not isinstance(overrides, Mapping):
        overrides = parse_settings(overrides)
    return check_layers([*read_layers(find_recipe(recipe)), settings_layer(overrides, source)])


def check_layers(layers: Sequence[Layer], keys: Collection[str] | None = None) -> Recipe:
    """Merge layers, later ones over earlier, and check the result.

    Args:
        keys: of the components that are needed; the others are not imported.
    """
    problems: list[Problem] = []
    merged, sources = _merge(layers, problems)
    data: dict[str, Any] = {}
    for key, value in merged.items():
        if key in PARTS and isinstance(value, dict):
            data[key] = _check_part(key, value, sources, problems)
        elif key in LISTS and isinstance(value, list):
            data[key] = [
                _check_part(key, table, sources, problems) if isinstance(table, dict) else table
                for table in value
            ]
        else:
            data[key] = value
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += explain(error, Recipe, (), sources)
    if problems:
        raise RecipeError(report(problems))
    return _fill_defaults(recipe, keys)


def check_table(model: type[Table], data: dict[str, Any], source: str) -> Any:
    """Check another TOML file of the project (a benchmark suite) with the same kind of message.

    Raises:
        RecipeError: with every problem found.
    """
    try:
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        sources: Sources = {(key,): source for key in data}
        raise RecipeError(report(list(explain(error, model, (), sources)))) from None


def _merge(layers: Sequence[Layer], problems: list[Problem]) -> tuple[dict[str, Any], Sources]:
    merged: dict[str, Any] = {}
    sources: Sources = {}
    for layer in layers:
        for key, value in layer.data.items():
            if key in PARTS and isinstance(value, str) and value != UNSET:
                value = {"name": value}
            if key in LISTS:
                value = _as_tables(value)
            if not isinstance(value, dict):
                merged[key] = value
                sources[(key,)] = layer.source
                continue
            if merged.get(key) == UNSET and key in PARTS:
                del merged[key]  # the default component, whose keys are set here
            table = merged.setdefault(key, {})
            if not isinstance(table, dict):
                message = f"a key of it is set, but {sources[key,]} says {short(table)}"
                problems.append(Problem(layer.source, key, message))
                continue
            if key in PARTS and "name" in value:
                _forget_other_component(key, table, value["name"])
            sources[(key,)] = layer.source
            for k, v in value.items():
                table[k] = v
                sources[key, k] = layer.source
    return _without_unset(merged), sources


def _as_tables(value: Any) -> Any:
    """`tracker = "jsonl"`, or a list of names, as `[[tracker]]` would give it."""
    if isinstance(value, list):
        return [{"name": item} if isinstance(item, str) else item for item in value]
    return [{"name": value}] if isinstance(value, str) else value


def _without_unset(table: dict[str, Any]) -> dict[str, Any]:
    """Without the keys whose value is the word "unset": they have their defaults again."""
    return {
        k: _without_unset(v) if isinstance(v, dict) else v for k, v in table.items() if v != UNSET
    }


def _forget_other_component(key: str, table: dict[str, Any], name: Any) -> None:
    """Another component is chosen: parameters meant for the former one do not concern it.

    What neither knows stays, so that a misspelt key is still reported.
    """
    former = table.get("name", _default(key))
    if former == name:
        return
    for k in _parameter_names(key, former) - _parameter_names(key, name):
        table.pop(k, None)


def _default(key: str) -> str | None:
    """The component under a key that a recipe does not mention; None where it must name one."""
    return None if key in LISTS else Recipe.model_fields[key].default.name


def _parameter_names(key: str, name: Any) -> set[str]:
    try:
        return {p.name for p in registry.of_kind(key).get(name).parameters}
    except (DlpError, AttributeError):
        return set()  # the bad name is reported where the part is checked


def _check_part(
    key: str, table: dict[str, Any], sources: Sources, problems: list[Problem]
) -> dict[str, Any]:
    """Move the component's own parameters to `params`, checked against its signature."""
    kind, model_of_part = registry.of_kind(key), {**PARTS, **LISTS}[key]
    common = {k: v for k, v in table.items() if k in model_of_part.model_fields and k != "params"}
    own = {k: v for k, v in table.items() if k not in common}
    name = table.setdefault("name", _default(key))
    common["name"] = name
    if not isinstance(name, str):
        return common  # the recipe's own model says so
    try:
        component = kind.get(name)
        model = component.model
    except DlpError as error:
        source = sources.get((key, "name")) or sources.get((key,), "recipe")
        problems.append(Problem(source, f"{key}.name", str(error)))
        return common
    if clash := {p.name for p in component.parameters} & set(model_of_part.model_fields):
        message = f"'{name}' has a parameter of a name that the recipe itself uses: "
        problems.append(Problem(component.origin, key, message + ", ".join(sorted(clash))))
        return common
    try:
        checked = model.model_validate_json(json.dumps(own, default=str))
    except ValidationError as error:
        allowed = [p.name for p in component.parameters] + list(model_of_part.model_fields)
        problems += explain(error, model, (key,), sources, allowed)
    else:
        common["params"] = {k: getattr(checked, k) for k in type(checked).model_fields}
    for k, value in {**own, **common}.items():
        if isinstance(value, float) and LARGEST < abs(value) < math.inf:
            source = sources.get((key, k), "recipe")
            message = f"found {value}; allowed: numbers that float32 holds, up to {LARGEST:.0e}"
            problems.append(Problem(source, f"{key}.{k}", message))
    return common


def parts_of(recipe: Recipe, keys: Collection[str] | None = None) -> Iterable[tuple[str, Part]]:
    """Every component that a recipe names, with its key; or those under some keys."""
    for key in PARTS:
        if keys is None or key in keys:
            yield key, getattr(recipe, key)
    for key in LISTS:
        if keys is None or key in keys:
            yield from ((key, part) for part in getattr(recipe, key))


def check_dependencies(recipe: Recipe, keys: Collection[str] | None = None) -> None:
    """Raise MissingDependency unless every package that the recipe's components need is there."""
    messages = []
    for key, part in parts_of(recipe, keys):
        try:
            registry.of_kind(key).get(part.name).check_dependencies()
        except MissingDependency as error:
            messages.append(str(error))
    if messages:
        raise MissingDependency("\n".join(messages))


def _fill_defaults(recipe: Recipe, keys: Collection[str] | None) -> Recipe:
    """Write the components' defaults that the recipe does not mention into it."""

    def filled(key: str, part: Part) -> Part:
        component = registry.of_kind(key).get(part.name)
        params = {p.name: p.default for p in component.parameters if not p.required}
        return part.model_copy(update={"params": {**params, **part.params}})

    update: dict[str, Any] = {key: [] for key in LISTS}
    for key, part in parts_of(recipe, keys):
        if key in LISTS:
            update[key].append(filled(key, part))
        else:
            update[key] = filled(key, part)
    return recipe.model_copy(update=update)
