"""`dlp run`: train by a recipe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dlp_cli import options, output
from dlp_cli.options import Device, DeviceOption, PluginOption, RecipeArgument, SetOption


def run(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole run.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run folder; by default runs/RECIPE-seedN."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in that folder.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in that folder.")
    ] = False,
    device: DeviceOption = Device.auto,
    plugins: PluginOption = None,
) -> None:
    """Train by a recipe: the labels alone first, then with label propagation."""
    from dlp_plugins.errors import UsageError

    if resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite replaces it: choose one.")
    settings = [*(overrides or ()), *([f"seed={seed}"] if seed is not None else ())]
    with output.waiting("loading PyTorch"):
        chosen = options.load(recipe, settings, plugins)

        from dlp_cli.display.live import open_display
        from dlp_cli.display.results import print_results
        from dlp_plugins.recipe.check import check_dependencies
        from dlp_plugins.training.run import run as train

    check_dependencies(chosen)
    name = Path(recipe).stem
    folder = out or Path("runs") / f"{name}-seed{chosen.seed}"
    try:
        with open_display(name) as listener:
            summary = train(
                chosen,
                folder,
                device=device.value,
                resume=resume,
                overwrite=overwrite,
                listeners=[listener],
            )
    except KeyboardInterrupt:
        again = _command(recipe, settings, out, device, plugins)
        _explain_interruption(folder, again)
        raise
    method = chosen.consistency.name
    print_results(summary, folder, recipe, "supervised" if method == "none" else method)


def _command(
    recipe: str,
    settings: list[str],
    out: Path | None,
    device: Device,
    plugins: list[Path] | None,
) -> str:
    """The command that this run was started with, less --resume and --overwrite."""
    words = ["dlp", "run", recipe]
    for setting in settings:
        words += ["--set", setting]
    if out is not None:
        words += ["--out", str(out)]
    if device is not Device.auto:
        words += ["--device", device.value]
    for file in plugins or ():
        words += ["--plugin", str(file)]
    return shlex.join(words)


def _explain_interruption(folder: Path, command: str) -> None:
    from dlp_plugins.training.folder import RunFolder

    if RunFolder(folder).training.is_file():
        output.say(f"Interrupted. {folder} is saved. Continue with:\n  {command} --resume")
    else:
        output.say(f"Interrupted before anything was saved. Start again with:\n  {command}")
