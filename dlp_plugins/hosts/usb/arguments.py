"""What a USB config may say about label propagation, and the components it names."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from semilearn.algorithms.utils import SSL_Argument, str2bool

from dlp_plugins import registry
from dlp_plugins.errors import UsageError
from dlp_plugins.propagation import Propagator
from dlp_plugins.recipe import build
from dlp_plugins.recipe.check import check_layers
from dlp_plugins.recipe.files import Layer

WARM_UP = 0.5


def component(text: str) -> str | dict[str, Any]:
    """A component on the command line: its name, or a JSON table with its parameters."""
    return json.loads(text) if text.lstrip().startswith("{") else text


def ssl_arguments(normalize: bool = True) -> list[SSL_Argument]:
    """USB's declaration of the arguments; a config file gives the same names."""
    parts = [
        SSL_Argument(
            f"--dlp_{part}",
            component,
            default,
            f"{part} component of dlp-plugins: its name, or {{name: ..., parameter: ...}}",
        )
        for part, default in registry.PROPAGATION.items()
    ]
    return [
        *parts,
        SSL_Argument("--dlp_plugin", str, None, "Python file that registers your own components"),
        SSL_Argument("--dlp_warm_up", float, WARM_UP, "share of the epochs before labels spread"),
        SSL_Argument("--dlp_normalize", str2bool, normalize, "L2-normalise before the classifier"),
    ]


def build_propagator(args: Namespace) -> Propagator:
    """The components that a USB config names, checked as a recipe's are.

    Raises:
        RecipeError: an unknown component or parameter, or a value out of range; all at once.
        PluginError: `dlp_plugin` is not there or fails at import.
    """
    if plugin := getattr(args, "dlp_plugin", None):
        registry.load_plugin_file(Path(plugin))
    named = {
        part: getattr(args, f"dlp_{part}", default)
        for part, default in registry.PROPAGATION.items()
    }
    recipe = check_layers([Layer("USB config (keys start with dlp_)", named)])
    return build.build_propagator(recipe)


def first_propagation_epoch(args: Namespace) -> int:
    """The epoch before which labels spread for the first time.

    Raises:
        UsageError: no epoch would be left that uses them.
    """
    warm_up = float(getattr(args, "dlp_warm_up", WARM_UP))
    if not 0 <= warm_up < 1:
        raise UsageError(f"dlp_warm_up: found {warm_up}; allowed: 0 or more, and less than 1.")
    first = math.ceil(warm_up * args.epoch)
    if first >= args.epoch:
        raise UsageError(
            f"With epoch: {args.epoch} and dlp_warm_up: {warm_up} no epoch would use propagated "
            "labels: they are computed before an epoch. Raise epoch, or lower dlp_warm_up."
        )
    return first
