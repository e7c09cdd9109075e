"""A multi-layer perceptron, for vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import nn

from dlp_plugins.registry import backbones

Width = Annotated[int, Field(ge=1)]


@backbones.register("mlp")
def mlp(
    input_shape: tuple[int, ...],
    hidden: Annotated[
        list[Width], Field(description="width of each layer; with none the input is the descriptor")
    ] = [256, 256],  # noqa: B006 - read only
    dropout: Annotated[float, Field(ge=0, lt=1, description="after each layer")] = 0.0,
    batch_norm: Annotated[bool, Field(description="before each ReLU")] = True,
) -> nn.Module:
    """Linear layers with ReLU, on vectors or flattened images; the last one gives the features.

    Shapes: [b, *input_shape] -> [b, hidden[0]] -> ... -> [b, hidden[-1]].
    """
    widths: Sequence[int] = [math.prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        norm = [nn.BatchNorm1d(after)] if batch_norm else []
        layers += [nn.Linear(before, after, bias=not batch_norm), *norm, nn.ReLU(inplace=True)]
        if dropout:
            layers.append(nn.Dropout(dropout))
    network = nn.Sequential(*layers)
    network.num_features = widths[-1]  # type: ignore[assignment]
    return network
