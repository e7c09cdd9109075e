"""What the estimators share."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dlp_plugins.registry import graph_for

if TYPE_CHECKING:
    from dlp_plugins.propagation import Convergence

UNLABELED = -1


def build_components(
    estimator: Any, kinds: Iterable[str], points: int, alpha: Any
) -> dict[str, Any]:
    """Components of these kinds for so many points, as the estimator's parameters name them.

    Raises:
        ValueError: a parameter is out of range.
    """
    from dlp_plugins.propagation.propagator import build_parts

    chosen = {kind: getattr(estimator, kind, "none") for kind in kinds}  # no balancer
    chosen["transform"] = estimator.transformation
    if isinstance(estimator.graph, str) and estimator.graph == "auto":
        chosen["graph"] = graph_for(points)
    parameters = {
        "k": operator.index(estimator.n_neighbors),
        "gamma": estimator.gamma,
        "alpha": alpha,
        "max_iterations": estimator.max_iter,
        "tolerance": estimator.tol,
    }
    return build_parts(chosen, parameters)[0]


def warn_unconverged(
    convergence: Convergence, limit: str = "max_iter", stacklevel: int = 3
) -> None:
    """Warn where the solver stopped so early that labels may still change.

    Args:
        limit: what the estimator calls the solver's limit of iterations.
        stacklevel: of the user's line; 3 where `fit` calls this.
    """
    if convergence.labels_may_change:
        text = f"Propagation: {convergence.describe(limit)}."
        warnings.warn(text, ConvergenceWarning, stacklevel=stacklevel)


def share_right(
    right: np.ndarray, labeled: np.ndarray, sample_weight: Any, mark: Any = None
) -> float:
    """Weighted share of the labelled points that are right; others do not count.

    Args:
        right, labeled: [n] bool.
        mark: what means unlabelled, for the error's text.

    Raises:
        ValueError: no point is labelled.
    """
    if not labeled.any():
        means = "" if mark is None else f" ({mark!r} means unlabelled)"
        raise ValueError(f"No point is labelled{means}: nothing to score.")
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight)[labeled]
    return float(np.average(right[labeled], weights=sample_weight))


def name_classes(classes: np.ndarray, index: np.ndarray, mark: Any = UNLABELED) -> np.ndarray:
    """Positions in `classes` to classes; -1 to `mark`, whatever the classes' type.

    Where `mark` is None that is the first class, as there is no other value to give.
    """
    named = classes[index.clip(0)]
    missing = index == UNLABELED
    if missing.any() and mark is not None:
        if not (named.dtype.kind in "if" and isinstance(mark, (int, np.integer))):
            named = named.astype(object)
        named[missing] = mark
    return named
