"""`dlp check`: is a recipe valid, and what does it come to?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dlp_cli import options, output
from dlp_cli.options import JsonOption, PluginOption, RecipeArgument, SetOption


def check(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    plugins: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe without training; print every setting, in the form that --set takes."""
    checked = options.load(recipe, overrides, plugins)

    from dlp_plugins.recipe.check import check_dependencies

    settings = dict(_flatten(checked.as_dict()))
    if as_json:
        check_dependencies(checked)
        output.print_json({"recipe": recipe, "settings": settings})
        return
    for key, value in settings.items():
        output.say(f"{key} = {_toml(value)}")
    check_dependencies(checked)
    output.say(f"OK: {recipe} is valid.", style="green")


def _flatten(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{k} = {_toml(v)}' for k, v in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)  # text, numbers, true and false as in TOML
