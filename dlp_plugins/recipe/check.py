"""Reads, merges and checks a recipe: TOML in, checked recipe out.

Layers, each over the one before: what a file `extends`, the file, `--set` on the command line.
Every problem is reported at once, each with the file it stands in, the key, what was found and what
is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dlp_plugins import registry
from dlp_plugins.errors import DlpError, MissingDependency
from dlp_plugins.recipe.files import Layer, RecipeError, find_recipe, override_layer, read_layers
from dlp_plugins.recipe.model import PARTS, Part, Recipe, Table
from dlp_plugins.recipe.problems import Problem, Sources, explain, report, short


def load_recipe(recipe: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read, merge and check a recipe.

    Args:
        recipe: path, or the name of a recipe that comes with the project.
        overrides: `key=value` as on the command line, `solver.alpha=0.9`; the value is TOML, or
            else text. A component's name alone selects it: `solver=power`.

    Raises:
        RecipeError: with every problem found.
        UsageError: no such recipe.
        PluginError, MissingDependency: a named plug-in cannot be loaded.
    """
    return check_layers([*read_layers(find_recipe(recipe)), override_layer(overrides)])


def check_layers(layers: Sequence[Layer]) -> Recipe:
    """Merge layers, later ones over earlier, and check the result."""
    problems: list[Problem] = []
    merged, sources = _merge(layers, problems)
    data: dict[str, Any] = {}
    for key, value in merged.items():
        if key in PARTS and isinstance(value, dict):
            data[key] = _check_part(key, value, sources, problems)
        else:
            data[key] = value
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += explain(error, Recipe, (), sources)
    if problems:
        raise RecipeError(report(problems))
    return _fill_defaults(recipe)


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
            if key in PARTS and isinstance(value, str):
                value = {"name": value}
            if not isinstance(value, dict):
                merged[key] = value
                sources[(key,)] = layer.source
                continue
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
    return merged, sources


def _forget_other_component(key: str, table: dict[str, Any], name: Any) -> None:
    """Another component is chosen: parameters meant for the former one do not concern it.

    What neither knows stays, so that a misspelt key is still reported.
    """
    former = table.get("name", Recipe.model_fields[key].default.name)
    if former == name:
        return
    for k in _parameter_names(key, former) - _parameter_names(key, name):
        table.pop(k, None)


def _parameter_names(key: str, name: Any) -> set[str]:
    try:
        return {p.name for p in registry.of_kind(key).get(name).parameters}
    except (DlpError, AttributeError):
        return set()  # the bad name is reported where the part is checked


def _check_part(
    key: str, table: dict[str, Any], sources: Sources, problems: list[Problem]
) -> dict[str, Any]:
    """Move the component's own parameters to `params`, checked against its signature."""
    kind = registry.of_kind(key)
    common = {k: v for k, v in table.items() if k in PARTS[key].model_fields and k != "params"}
    own = {k: v for k, v in table.items() if k not in common}
    name = table.setdefault("name", Recipe.model_fields[key].default.name)
    common["name"] = name
    if not isinstance(name, str):
        return common  # the recipe's own model says so
    try:
        component = kind.get(name)
        model = component.model
    except DlpError as error:
        problems.append(Problem(sources.get((key, "name"), "recipe"), f"{key}.name", str(error)))
        return common
    if clash := {p.name for p in component.parameters} & set(PARTS[key].model_fields):
        message = f"'{name}' has a parameter of a name that the recipe itself uses: "
        problems.append(Problem(component.origin, key, message + ", ".join(sorted(clash))))
        return common
    try:
        checked = model.model_validate_json(json.dumps(own, default=str))
    except ValidationError as error:
        allowed = [p.name for p in component.parameters] + list(PARTS[key].model_fields)
        problems += explain(error, model, (key,), sources, allowed)
    else:
        common["params"] = {k: getattr(checked, k) for k in type(checked).model_fields}
    return common


def check_dependencies(recipe: Recipe) -> None:
    """Raise MissingDependency unless every package that the recipe's components need is there."""
    messages = []
    for key in PARTS:
        try:
            registry.of_kind(key).get(getattr(recipe, key).name).check_dependencies()
        except MissingDependency as error:
            messages.append(str(error))
    if messages:
        raise MissingDependency("\n".join(messages))


def _fill_defaults(recipe: Recipe) -> Recipe:
    """Write the defaults of components that the recipe does not mention into it."""
    filled = {}
    for key in PARTS:
        part: Part = getattr(recipe, key)
        component = registry.of_kind(key).get(part.name)
        params = {p.name: p.default for p in component.parameters if not p.required}
        filled[key] = part.model_copy(update={"params": {**params, **part.params}})
    return recipe.model_copy(update=filled)
