"""`dlp check`: is a recipe valid, and what does it come to?"""

from __future__ import annotations

import json

from dlp_cli import options, output
from dlp_cli.options import PluginOption, RecipeArgument, SetOption


def check(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    plugins: PluginOption = None,
) -> None:
    """Check a recipe without training, and print what it resolves to."""
    checked = options.load(recipe, overrides, plugins)

    from dlp_plugins.recipe.check import check_dependencies

    tables = {k: v for k, v in checked.as_dict().items() if isinstance(v, dict)}
    rows = [
        (
            key,
            str(table.pop("name", "")),
            ", ".join(f"{k} = {json.dumps(v)}" for k, v in table.items()),
        )
        for key, table in tables.items()
    ]
    output.print_table(("part", "component", "settings"), rows)
    check_dependencies(checked)
    output.say(f"OK: {recipe} is valid.", style="green")
