"""`dlp run`: train by a recipe."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from dlp_cli import output
from dlp_cli.options import (
    Device,
    DeviceOption,
    PluginOption,
    RecipeArgument,
    SetOption,
    run_words,
    without_key,
)
from dlp_plugins.processes.launch import is_first, launched

MOST_SEED = 2**31 - 1


def run(
    recipe: RecipeArgument,
    overrides: SetOption = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MOST_SEED, help="Seed of the whole run.")
    ] = None,
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
    from dlp_plugins.recipe.files import parse_settings

    given = overrides or []
    if seed is not None and without_key("seed", given) != given:
        raise UsageError("--seed and --set seed both give the seed: leave one out.")
    texts = [*given, *([f"seed={seed}"] if seed is not None else ())]
    with output.waiting("loading PyTorch"):
        from dlp_cli.display.live import open_display
        from dlp_cli.display.results import print_results
        from dlp_plugins.training.events import CheckpointSaved
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
    saved = False

    def watch(event: Any) -> None:
        nonlocal saved
        saved = saved or isinstance(event, CheckpointSaved)

    try:
        with open_display(request.name) if is_first() else nullcontext() as listener:
            listeners = [watch] if listener is None else [watch, listener]
            summary = train(request, device=device.value, listeners=listeners)
    except KeyboardInterrupt:
        again = _command(recipe, texts, device, plugins)
        place = ["--out", str(out)] if out is not None else []
        begun = request.folder.recipe.is_file()
        # What is there may be the former run still, or the beginning of this one.
        replace = overwrite and not saved
        go_on = ["--overwrite"] if replace else ["--resume"] if saved or begun else []
        _explain_interruption(folder, saved, resume, shlex.join([*again, *place, *go_on]))
        raise
    method = request.recipe.consistency.name
    others = without_key("seed", texts)
    rest = without_key("solver", others)
    with output.after_the_work(f"they are in {folder}/summary.json"):
        print_results(
            summary,
            folder,
            shlex.join(_command(recipe, others, device, plugins)),
            "supervised" if method == "none" else method,
            shlex.join(_command(recipe, rest, device, plugins)),
        )


def _command(
    recipe: str, settings: Sequence[str], device: Device, plugins: list[Path] | None
) -> list[str]:
    """The command that this run was started with, less folder, --resume and --overwrite."""
    return [*launcher(), *run_words(recipe, settings, device, plugins)]


def launcher() -> list[str]:
    """The words before `dlp`'s arguments: torchrun's where it started several processes here."""
    here = launched()
    if here.size == here.local_size > 1:
        return ["torchrun", "--nproc-per-node", str(here.size), "-m", "dlp_cli"]
    return ["dlp"]


def _explain_interruption(folder: Path, saved: bool, resume: bool, command: str) -> None:
    with output.after_the_work():
        if saved:
            output.say(f"Interrupted. {folder} is saved. Continue with:\n  {command}")
        elif resume:
            output.say(f"Interrupted before more was saved. Continue with:\n  {command}")
        else:
            output.say(f"Interrupted before anything was saved. Start again with:\n  {command}")
