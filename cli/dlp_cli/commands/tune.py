"""`dlp tune`: settings of a recipe, searched for the lowest validation error."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dlp_cli import complete, options, output
from dlp_cli.options import Device, DeviceOption, PluginOption, RecipeArgument, SetOption

SHOWN = 10  # trials in the table


def tune(
    recipe: RecipeArgument,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="What to search: solver.alpha=0.5..0.999, optimizer.learning_rate=0.001..1:log "
            "(evenly in the logarithm), graph.k=10,20,50. Repeatable.",
            autocompletion=complete.settings,
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, metavar="N", help="Runs in all, those of earlier calls included.")
    ] = 20,
    overrides: SetOption = None,
    prune: Annotated[
        bool,
        typer.Option("--prune/--no-prune", help="Stop runs that are worse than the median."),
    ] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="By default runs/tune-RECIPE.")
    ] = None,
    device: DeviceOption = Device.auto,
    plugins: PluginOption = None,
) -> None:
    """Search settings for the lowest validation error; the same command goes on after a break."""
    options.load_plugins(plugins)
    with output.waiting("loading PyTorch"):
        from dlp_cli.display.tune import TuneDisplay
        from dlp_plugins.tuning.results import TABLE
        from dlp_plugins.tuning.study import prepare

        job = prepare(
            recipe, search or (), out, settings=overrides or (), plugins=plugins or (),
            trials=trials,
        )  # fmt: skip
    try:
        with TuneDisplay() as display:
            found = job.run(device.value, prune, [display])
    except KeyboardInterrupt:
        output.say(f"Interrupted. The same command goes on from what is in {job.folder}.")
        raise
    with output.after_the_work(f"the table is in {job.folder / TABLE}"):
        output.print_table(found.columns, found.rows()[:SHOWN])
        if (more := len(found.trials) - SHOWN) > 0:
            output.say(f"and {more} more, in the table")
        if (best := found.best) is not None:
            given = options.without_key("seed", overrides or ())
            chosen = [f"{key}={value}" for key, value in best.settings.items()]
            words = options.run_words(recipe, [*given, *chosen], device, plugins)
            output.say(f"The best: {shlex.join(best.set_options)}")
            output.say("Its test error, with another seed:")
            output.say(f"  dlp {shlex.join([*words, '--seed', str(job.recipe.seed + 1)])}")
        output.say(f"wrote {job.folder / TABLE}")
    if found.best is None:
        raise typer.Exit(1)
