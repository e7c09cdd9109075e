"""`dlp export`: a trained classifier as a file for other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dlp_cli import output
from dlp_cli.options import OverwriteOption, PluginOption
from dlp_cli.photo_options import ModelArgument, Network, NetworkOption, Weights, WeightsOption


class Format(StrEnum):
    onnx = "onnx"
    torch_export = "torch-export"
    safetensors = "safetensors"


def export(
    model: ModelArgument,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The file: .onnx, .pt2 or .safetensors.")
    ],
    format: Annotated[
        Format | None,
        typer.Option("--format", help="What to write; by default what FILE ends in says."),
    ] = None,
    network: NetworkOption = Network.student,
    weights: WeightsOption = Weights.last,
    overwrite: OverwriteOption = False,
    plugins: PluginOption = None,
) -> None:
    """Write a classifier with its pre-processing and class names, checked against the network.

    Of an index: its backbone and its discriminant, without the graph.
    """
    with output.waiting("exporting"):
        from dlp_plugins.photos.export import export as write

        difference = write(
            model, out, format.value if format else None, network=network.value,
            weights=weights.value, overwrite=overwrite, plugins=plugins or (),
        )  # fmt: skip
    output.say(f"wrote {out}; its probabilities are the network's to {difference:.1e}")
