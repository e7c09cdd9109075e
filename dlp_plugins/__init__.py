"""Deep label propagation as plug-ins.

    import dlp_plugins

    dlp_plugins.run("digits", out="runs/digits")         train by a recipe
    dlp_plugins.load("runs/digits")                      the classifier of a finished run
    dlp_plugins.propagate(descriptors, labels)           labels over a graph, without training
    dlp_plugins.load_recipe("digits", ["seed=1"])        a checked recipe
    dlp_plugins.list_components("solvers")               names of components

Components of your own register themselves with `dlp_plugins.registry`; the scikit-learn estimator
is `dlp_plugins.sklearn.GraphLabelPropagation`. Importing this module imports nothing else: each
name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlp_plugins.propagation import propagate
    from dlp_plugins.recipe.check import load_recipe
    from dlp_plugins.registry import list_components
    from dlp_plugins.training.load import load
    from dlp_plugins.training.run import run

    __version__: str

__all__ = ["__version__", "list_components", "load", "load_recipe", "propagate", "run"]

_HOMES = {
    "run": "dlp_plugins.training.run",
    "load": "dlp_plugins.training.load",
    "propagate": "dlp_plugins.propagation",
    "load_recipe": "dlp_plugins.recipe.check",
    "list_components": "dlp_plugins.registry",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dlp-plugins")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
