"""`dlp bench`: many combinations, many seeds, one table."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dlp_cli import complete, options, output
from dlp_cli.options import Device, DeviceOption, PluginOption, SetOption


def bench(
    target: Annotated[
        str,
        typer.Argument(
            metavar="SUITE|RECIPE",
            help="A suite, or a recipe to vary.",
            autocompletion=complete.suites,
        ),
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE",
            help="Try each of these values: solver=cg,power. Several make every combination.",
            autocompletion=complete.settings,
        ),
    ] = None,
    overrides: SetOption = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds 0 to N-1 for every combination.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="By default runs/bench-NAME.")
    ] = None,
    device: DeviceOption = Device.auto,
    plugins: PluginOption = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Run by workers of Ray: one per GPU, or per core.")
    ] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Of a Ray cluster that shares the folder; implies --ray."
        ),
    ] = None,
) -> None:
    """Run every combination and print a table; what is finished is kept, the rest is resumed."""
    from dlp_cli.display.bench import BenchDisplay
    from dlp_plugins.bench import table
    from dlp_plugins.bench.runner import run_suite
    from dlp_plugins.bench.suite import find_suite, load_suite, suite_of_recipe
    from dlp_plugins.environment import describe_environment
    from dlp_plugins.errors import UsageError
    from dlp_plugins.training.run import build_accelerator

    options.load_plugins(plugins)
    path = find_suite(target)
    if path is None:
        _check_known(target)
    elif vary:
        raise UsageError(
            f"{target} is a suite, and --vary belongs to a recipe. A suite has a table [vary] of "
            f"its own: copy {path} and change that."
        )
    if path:
        suite = load_suite(path, overrides or (), seeds)
    else:
        suite = suite_of_recipe(target, vary or (), overrides or (), seeds or 1)
    folder = out or Path("runs") / f"bench-{suite.name}"
    table.check_covers(folder, suite)
    where = build_accelerator(device.value, "float32").device
    try:
        with BenchDisplay() as display:
            run = run_suite
            if ray or ray_address is not None:
                from dlp_plugins.bench.on_ray import run_suite_on_ray

                run = partial(run_suite_on_ray, address=ray_address)
            results = run(
                suite, folder, device=device.value, plugins=plugins or (), listeners=[display]
            )
    except KeyboardInterrupt:
        output.say(f"Interrupted. The same command goes on from what is in {folder}.")
        raise
    rows = table.collect(results)
    receipt = {
        "command": shlex.join(["dlp", *sys.argv[1:]]),
        "description": suite.description,
        "environment": describe_environment(where),
    }
    failures = [f"{row.row}, {failure}" for row in rows for failure in row.failures]
    with output.after_the_work(f"the table is in {folder}"):
        output.print_table(table.header(rows), [table.row_texts(row, rows) for row in rows])
        for failure in failures:
            output.say(f"failed: {failure}")
    written = table.write(folder, rows, receipt)
    with output.after_the_work():
        for path in written:
            output.say(f"wrote {path}")
    if failures:
        raise typer.Exit(1)


def _check_known(target: str) -> None:
    """Raise UsageError where the target is neither a suite nor a recipe, and name both."""
    from dlp_plugins.bench.suite import suite_names
    from dlp_plugins.errors import UsageError, did_you_mean
    from dlp_plugins.recipe.files import find_recipe, recipe_names

    try:
        find_recipe(target)
    except UsageError:
        suites, recipes = suite_names(), recipe_names()
        raise UsageError(
            f"There is no suite or recipe '{target}'.{did_you_mean(target, [*suites, *recipes])} "
            f"Suites: {', '.join(suites)}. Recipes: {', '.join(recipes)}."
        ) from None
