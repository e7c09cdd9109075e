"""A classifier to start from: its probabilities spread over the graph in place of labels alone.

Shapes: n points, d numbers each, c classes, m of the points labelled.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.errors import ComponentError, ParameterError
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.refiners import _logistic_regression


class LogisticRegression:
    """The refiner's logistic regression (C = 10, balanced classes) as an estimator."""

    classes_: np.ndarray

    def fit(self, X: np.ndarray, y: np.ndarray) -> LogisticRegression:
        self.classes_, own = np.unique(y, return_inverse=True)
        target = torch.nn.functional.one_hot(torch.from_numpy(own), len(self.classes_)).double()
        self._fitted = _logistic_regression.fit(torch.from_numpy(X), target, torch.ones(len(y)))
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return self._fitted.probabilities(torch.from_numpy(X)).numpy()


@dataclass(frozen=True)
class Start:
    """A label matrix from a classifier that is fitted on the labelled points.

    Y: its probabilities for unlabelled rows, one-hot for labelled ones; columns over their sums. A
    class without a label has a column of zeros.

    estimator: any with `fit(X, y)`, `predict_proba(X)` and then `classes_`, as scikit-learn's; it
        is copied, not changed.
    descriptors: F [n, d].
    divide: divide the columns by their sums.
    """

    estimator: Any
    descriptors: Tensor
    divide: bool = True
    # the last labels and their Y: classes may be solved a few at a time
    _last: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False, compare=False)

    def label_matrix(self, labels: Tensor, num_classes: int) -> Tensor:
        """Y [n, c] float32 on the device of labels [n] int64, -1 where there is none.

        Raises:
            ComponentError: the estimator fails, or its probabilities are none.
        """
        if self._last and torch.equal(self._last[0][0], labels):
            return self._last[0][1]
        y = self._probabilities(labels, num_classes)
        known = (labels != UNLABELED).nonzero().squeeze(1)
        y[known] = torch.nn.functional.one_hot(labels[known], num_classes).float()
        if self.divide:
            total = y.sum(dim=0, dtype=torch.float64)
            y *= torch.where(total > 0, 1 / total, 0.0).float()
        self._last[:] = [(labels.clone(), y)]
        return y

    def _probabilities(self, labels: Tensor, num_classes: int) -> Tensor:
        f, y = self.descriptors.cpu().numpy(), labels.cpu().numpy()
        name, known = type(self.estimator).__name__, y >= 0
        try:
            fitted = copy.deepcopy(self.estimator).fit(f[known], y[known])
            p = np.asarray(fitted.predict_proba(f), dtype=np.float32)
            classes = np.asarray(fitted.classes_)
        except Exception as error:
            raise ComponentError(
                f"The classifier {name} to start from fails on {known.sum()} labels of "
                f"{len(np.unique(y[known]))} classes: {error}"
            ) from error
        if p.shape != (len(f), len(classes)) or not np.isfinite(p).all() or (p < 0).any():
            raise ComponentError(
                f"The classifier {name}: predict_proba must give [{len(f)}, {len(classes)}] numbers"
                f" that are at least 0; found {list(p.shape)}."
            )
        found = torch.zeros(len(f), num_classes)
        found[:, torch.from_numpy(classes).long()] = torch.from_numpy(p)
        return found.to(labels.device)


def check_estimator(estimator: Any) -> None:
    """Raise ParameterError unless this is an estimator that gives probabilities."""
    missing = [m for m in ("fit", "predict_proba") if not callable(getattr(estimator, m, None))]
    if missing or isinstance(estimator, type):
        problem = "is a class, not an object" if not missing else f"has no {missing[0]}()"
        raise ParameterError(
            f"start must be an estimator with fit(X, y) and predict_proba(X); {estimator!r} "
            f"{problem}."
        )
