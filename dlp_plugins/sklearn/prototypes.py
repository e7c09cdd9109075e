"""Classes that are only named, as a scikit-learn classifier."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from dlp_plugins.sklearn._common import UNLABELED, name_classes, share_right, warn_unconverged


class PrototypePropagation(ClassifierMixin, BaseEstimator):
    """Labels images from class prototypes, such as text embeddings; no image needs a label.

    Zero-shot label propagation (Stojnic, Kalantidis and Tolias, CVPR 2024): images are linked to
    their nearest images and prototypes, and each prototype is the source of its class.

    Parameters
    ----------
    prototypes : array-like of shape (n_classes, n_features), or dict
        A row per class from the model that X comes from. The classes are then 0, 1, ...; those of
        a dict, from class to row, are its keys in ascending order: names, or numbers other than -1.
    n_neighbors : int, default=5
        Neighbours of each image among images, and among prototypes.
    gamma : float, default=5.0
        Power of the similarity to a prototype.
    alpha : float, default=0.3
        How far labels spread, in [0, 1).
    solver : str or Solver, default='cg'
        Who solves (I - alpha Wn) Z = Y; a component keeps its own alpha.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Class probabilities of each image; zeros where no class reaches.
    transduction_ : ndarray of shape (n_samples,)
        Label of each image: its own where it has one, -1 where no class reaches.
    certainty_ : ndarray of shape (n_samples,)
        In 0..1; 1 for a labelled image, 0 where no class reaches.
    reached_ : ndarray of shape (n_samples,)
        Whether some label or prototype reaches an image over the graph.
    n_features_in_ : int
        Features seen in `fit`.

    Examples
    --------
    >>> X = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
    >>> model = PrototypePropagation({"across": [1, 0], "up": [0, 1]}, n_neighbors=1).fit(X)
    >>> model.transduction_.tolist()
    ['across', 'across', 'up', 'up']
    >>> model.predict([[0.3, 2.0]]).tolist()
    ['up']
    """

    def __init__(
        self,
        prototypes: Any,
        *,
        n_neighbors: int = 5,
        gamma: float = 5.0,
        alpha: float = 0.3,
        solver: Any = "cg",
    ) -> None:
        self.prototypes = prototypes
        self.n_neighbors = n_neighbors
        self.gamma = gamma
        self.alpha = alpha
        self.solver = solver

    def fit(self, X: Any, y: Any = None) -> PrototypePropagation:
        """Spread the prototypes' classes over the graph of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Descriptors of images.
        y : array-like of shape (n_samples,), default=None
            Classes of images that are labelled, -1 for the others. A class's labels and its
            prototype count alike.

        Raises
        ------
        ValueError
            X or a prototype holds NaN or infinity, y a class without a prototype, a key of
            `prototypes` is no class, or a parameter is out of range.
        """
        from dlp_plugins.embeddings.prototypes import fit_prototypes

        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        if isinstance(self.prototypes, dict):
            classes = _ordered(self.prototypes)
            rows = [self.prototypes[c] for c in classes]
            self.classes_ = np.asarray(classes)
        else:
            rows = self.prototypes
            self.classes_ = np.arange(len(rows))
        t = check_array(rows, dtype=(np.float64, np.float32), input_name="prototypes")
        if t.shape[1] != X.shape[1]:
            raise ValueError(
                f"Prototypes have {t.shape[1]} numbers each and X {X.shape[1]}; both must come "
                "from the same model."
            )
        self._fitted = fit_prototypes(
            X, t, self._labels(y, len(X)), k=operator.index(self.n_neighbors), gamma=self.gamma,
            alpha=self.alpha, solver=self.solver,
        )  # fmt: skip
        found = self._fitted.found
        self.label_distributions_ = found.probabilities.double().numpy()
        warn_unconverged(found.health.convergence, "max_iterations of the solver")
        self.transduction_ = name_classes(self.classes_, found.labels.numpy())
        self.certainty_, self.reached_ = found.certainty.numpy(), found.reached.numpy()
        return self

    def _labels(self, y: Any, n: int) -> np.ndarray | None:
        """[n] positions in classes_, -1 where there is none."""
        if y is None:
            return None
        y = column_or_1d(np.asarray(y, dtype=object))
        check_consistent_length(y, np.empty(n))
        position = {c: j for j, c in enumerate(self.classes_.tolist())} | {UNLABELED: UNLABELED}
        position.setdefault(str(UNLABELED), UNLABELED)  # as NumPy turns -1 among names into text
        labels = [position.get(c) for c in y.tolist()]
        if None in labels:
            raise ValueError(
                f"Class {y[labels.index(None)]!r} of y has no prototype; -1 means no label."
            )
        return np.array(labels, dtype=np.int64)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities of new images: their scores by the equation, over the rows' sums.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            A row is uniform where an image is similar to nothing at all.
        """
        scores = self._scores(X)
        total = scores.sum(axis=1, keepdims=True)
        even = np.full_like(scores, 1 / scores.shape[1])
        return np.divide(scores, total, out=even, where=total > 0)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of new images; -1 where an image is similar to nothing at all.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        scores = self._scores(X)
        best = np.where(scores.any(axis=1), scores.argmax(axis=1), UNLABELED)
        return name_classes(self.classes_, best)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy over the labelled images; those with y = -1 do not count.

        A class without a prototype counts as wrong.
        """
        y = column_or_1d(np.asarray(y, dtype=object))
        check_consistent_length(X, y)
        labeled = np.array([not _means_unlabeled(c) for c in y.tolist()], dtype=bool)
        return share_right(self.predict(X) == y, labeled, sample_weight, UNLABELED)

    def _scores(self, X: Any) -> np.ndarray:
        """[b, c] at least 0 of new images."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return self._fitted.predict(X).double().clamp(min=0).numpy()


def _means_unlabeled(c: Any) -> bool:
    """Whether c is -1, or the text that NumPy makes of it among names."""
    return c == str(UNLABELED) if isinstance(c, str) else bool(c == UNLABELED)


def _ordered(prototypes: dict[Any, Any]) -> list[Any]:
    """The classes of a dict of prototypes, in ascending order."""
    keys = list(prototypes)
    if not (all(isinstance(c, str) for c in keys) or all(isinstance(c, Real) for c in keys)):
        raise ValueError("The keys of prototypes must be all names or all numbers.")
    if any(_means_unlabeled(c) for c in keys):
        raise ValueError("prototypes has the key -1, which means no label in y; rename the class.")
    return sorted(keys)
