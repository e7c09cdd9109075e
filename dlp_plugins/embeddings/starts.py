"""Classifiers that `dlp propagate --start` may start from, and what they take of memory."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

from dlp_plugins.embeddings.memory import Memory
from dlp_plugins.errors import UsageError, did_you_mean

# A fixed list: an import path from the command line would run any code.
STARTS: dict[str, dict[str, Any]] = {
    "sklearn.discriminant_analysis.LinearDiscriminantAnalysis": {
        "solver": "lsqr",
        "shrinkage": "auto",
    },
    "sklearn.ensemble.RandomForestClassifier": {"random_state": 0},
    "sklearn.linear_model.LogisticRegression": {
        "C": 10.0,
        "class_weight": "balanced",
        "max_iter": 1000,
    },
    "sklearn.naive_bayes.GaussianNB": {},
    "sklearn.neighbors.KNeighborsClassifier": {"n_neighbors": 1},
}
# Numbers of 4 bytes for each point and class: the label matrix, and the classifier's
# probabilities in float64, twice while they are made.
ARRAYS = 5


def build_start(path: str) -> Any:
    """The classifier of that import path, with parameters that suit few labels.

    Raises:
        UsageError: none of those in the list.
    """
    if path not in STARTS:
        raise UsageError(
            f"--start {path}: not among those that can be named here.{did_you_mean(path, STARTS)} "
            f"Known: {', '.join(STARTS)}. In Python any estimator can be given."
        )
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**STARTS[path])


def with_start(need: Memory, points: int, dim: int) -> Memory:
    """The memory of a propagation that starts from a classifier: descriptors stay, all classes."""
    return replace(
        need,
        held=max(need.held, points * dim * 4),
        refine=max(need.refine, points * dim * 4 + need.graph),
        refine_column=need.refine_column + 4 * ARRAYS * points,
    )
