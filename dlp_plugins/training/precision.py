"""Precision and memory format on the device at hand, where the recipe leaves them open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from dlp_plugins.environment import has_bfloat16
from dlp_plugins.errors import RunFolderError, UsageError
from dlp_plugins.recipe.model import Recipe, Training

CHOSEN = ("precision", "channels_last")


def resolve(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with a precision and a memory format that fit the device.

    On two cores with bfloat16 instructions the small network takes twice as many images a second in
    bfloat16 and channels-last as in float32 (docs/performance.md).

    Raises:
        UsageError: the precision does not fit the device.
    """
    precision, channels_last = recipe.training.precision, recipe.training.channels_last
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    if device.type == "cpu" and precision in ("float16", "tf32"):
        raise UsageError(f"training.precision: {precision} needs a GPU; use bfloat16 or float32.")
    if channels_last is None:
        channels_last = device.type == "cpu" or precision != "float32"
    return _with(recipe, precision=precision, channels_last=channels_last)


def as_record(recipe: Recipe) -> dict[str, Any]:
    """What environment.json keeps, so that a resume computes as the start did."""
    return {key: getattr(recipe.training, key) for key in CHOSEN}


def resumed(
    recipe: Recipe, record: Mapping[str, Any], device: torch.device, folder: Path
) -> Recipe:
    """The recipe as it was resolved when the run in `folder` began.

    Args:
        record: what `as_record` gave then.

    Raises:
        RunFolderError: it began in bfloat16, which this device would emulate a hundred times
            slower, or the record is damaged.
        UsageError: as `resolve`.
    """
    automatic = recipe.training.precision == "auto"
    try:
        Training.model_validate(dict(record))
    except ValidationError as error:
        raise RunFolderError(
            f"{folder}/environment.json does not tell what the run computes with: "
            f"{error.errors()[0]['msg']}. Put an intact copy in its place."
        ) from error
    recipe = _with(recipe, **{key: record[key] for key in CHOSEN if key in record})
    if automatic and recipe.training.precision == "bfloat16" and not has_bfloat16(device):
        raise RunFolderError(
            f"{folder} was started on a machine with bfloat16 instructions, which this one lacks. "
            "Resume it on such a machine, or start it again in another folder with --out."
        )
    return resolve(recipe, device)


def _with(recipe: Recipe, **chosen: Any) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=chosen)})
