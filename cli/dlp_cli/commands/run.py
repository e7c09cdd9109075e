"""`dlp run`: train by a recipe."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlp_cli import output
from dlp_cli.options import Device, DeviceOption, PluginOption, RecipeArgument, SetOption
from dlp_plugins.processes.launch import is_first, launched

if TYPE_CHECKING:
    from dlp_plugins.training.folder import RunFolder


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
    from dlp_plugins.recipe.files import parse_settings

    texts = [*(overrides or ()), *([f"seed={seed}"] if seed is not None else ())]
    with output.waiting("loading PyTorch"):
        from dlp_cli.display.live import open_display
        from dlp_cli.display.results import print_results
        from dlp_plugins.training.run import prepare, train

        request = prepare(
            recipe,
            out,
            settings=parse_settings(texts),
            plugins=plugins or (),
            resume=resume,
            overwrite=overwrite,
        )
    folder = request.folder.path
    try:
        with open_display(request.name) if is_first() else nullcontext() as listener:
            listeners = [] if listener is None else [listener]
            summary = train(request, device=device.value, listeners=listeners)
    except KeyboardInterrupt:
        again = _command(recipe, texts, device, plugins)
        place = ["--out", str(out)] if out is not None else []
        _explain_interruption(request.folder, shlex.join([*again, *place]))
        raise
    method = request.recipe.consistency.name
    others = [text for text in texts if not text.startswith("seed=")]
    with output.after_the_work(f"they are in {folder}/summary.json"):
        print_results(
            summary,
            folder,
            shlex.join(_command(recipe, others, device, plugins)),
            "supervised" if method == "none" else method,
        )


def _command(
    recipe: str, settings: list[str], device: Device, plugins: list[Path] | None
) -> list[str]:
    """The command that this run was started with, less folder, --resume and --overwrite."""
    words = [*launcher(), "run", recipe]
    for setting in settings:
        words += ["--set", setting]
    if device is not Device.auto:
        words += ["--device", device.value]
    for file in plugins or ():
        words += ["--plugin", str(file)]
    return words


def launcher() -> list[str]:
    """The words before `dlp`'s arguments: torchrun's where it started several processes here."""
    here = launched()
    if here.size == here.local_size > 1:
        return ["torchrun", "--nproc-per-node", str(here.size), "-m", "dlp_cli"]
    return ["dlp"]


def _explain_interruption(folder: RunFolder, command: str) -> None:
    with output.after_the_work():
        if folder.training.is_file():
            output.say(f"Interrupted. {folder.path} is saved. Continue with:\n  {command} --resume")
        else:
            output.say(f"Interrupted before anything was saved. Start again with:\n  {command}")
