"""Labels of which a point may have several, as a scikit-learn classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from dlp_plugins.registry import EMBEDDINGS, EMBEDDINGS_ALPHA, EMBEDDINGS_K
from dlp_plugins.sklearn._common import (
    UNLABELED,
    build_components,
    share_right,
    warn_unconverged,
)


class MultiLabelPropagation(ClassifierMixin, BaseEstimator):
    """Spreads labels of which a point may have several, each class by itself.

    A class goes to the same share of the unlabelled points as it has of the labelled ones, those
    with the largest scores (PCut; Yang, SIGIR 2001): so labelled points should be a fair sample.
    Scores are no probabilities, so there is no `predict_proba`.

    Parameters
    ----------
    graph : str or GraphBuilder, default='auto'
    affinity : str or Affinity, default='inner_product'
    solver : str or Solver, default='cg'
    transformation : str or Transform, default='auto'
        These as of `GraphLabelPropagation`.
    n_neighbors : int, default=10
        Neighbours of each point in the graph, and of each new point.
    gamma : float, default=3.0
        Power of the inner product.
    alpha : float, default=0.9
        How far labels spread, in [0, 1).
    max_iter : int, default=100
        Iterations of the solver at most.
    tol : float, default=1e-4
        Relative residual at which the solver stops, in (0, 1).

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Numbers of the columns of y.
    transduction_ : ndarray of shape (n_samples, n_classes)
        1 where a training point has a class; a labelled one keeps its own.
    scores_ : ndarray of shape (n_samples, n_classes)
        From which these follow.
    thresholds_ : ndarray of shape (n_classes,)
        Score from which a point has a class; infinite for a class without a label.
    reached_ : ndarray of shape (n_samples,)
        Whether some label reaches a training point over the graph.
    n_features_in_ : int
        Features seen in `fit`.

    Examples
    --------
    >>> X = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0], [1.0, 1.0]])
    >>> y = np.array([[1, 0], [0, 0], [0, 1], [0, 0], [1, 1]])
    >>> MultiLabelPropagation(n_neighbors=1).fit(X, y).transduction_.shape
    (5, 2)
    """

    def __init__(
        self,
        graph: Any = "auto",
        affinity: Any = EMBEDDINGS["affinity"],
        solver: Any = EMBEDDINGS["solver"],
        *,
        transformation: Any = EMBEDDINGS["transform"],
        n_neighbors: int = EMBEDDINGS_K,
        gamma: float = 3.0,
        alpha: float = EMBEDDINGS_ALPHA,
        max_iter: int = 100,
        tol: float = 1e-4,
    ) -> None:
        self.graph = graph
        self.affinity = affinity
        self.solver = solver
        self.transformation = transformation
        self.n_neighbors = n_neighbors
        self.gamma = gamma
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any) -> MultiLabelPropagation:
        """Spread the labels of y over the graph of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Descriptors. Equal rows are one point of the graph.
        y : {array-like, sparse matrix} of shape (n_samples, n_classes)
            1 where a point has a class, else 0. A row of zeros, or of -1, is a point that is not
            labelled.

        Raises
        ------
        ValueError
            X holds NaN or infinity, y is no such matrix or has no label, or a parameter is out of
            range.
        """
        from dlp_plugins.embeddings.multi_label import fit_multi_label
        from dlp_plugins.propagation import Propagator

        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        own = _indicator(y)
        check_consistent_length(X, own)
        if not own.any():
            raise ValueError("No point is labelled: every row of y is of zeros, or of -1.")
        kinds = "transform", "graph", "affinity", "solver"
        parts = build_components(self, kinds, len(X), self.alpha)
        made = Propagator.default(refiner="none", **parts)
        found, self._index = fit_multi_label(made, X, own)
        warn_unconverged(found.convergence)
        self.classes_ = np.arange(own.shape[1])
        self.transduction_ = found.labels.numpy().astype(np.int64)
        self.scores_, self.thresholds_ = found.scores.numpy(), found.thresholds.numpy()
        self.reached_ = found.reached.numpy()
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores of new points: the mean of their neighbours', weighted by affinity.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            A point has the classes whose score is at least `thresholds_`.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return self._index.neighbor_means(X)

    def predict(self, X: Any) -> np.ndarray:
        """Classes of new points.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), 1 where a point has a class, else 0.
        """
        return (self.decision_function(X) >= self.thresholds_).astype(np.int64)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Share of the labelled points whose classes are all right.

        So a grid search on partly labelled data is judged by its labels alone.
        """
        check_is_fitted(self)
        own = _indicator(y)
        right = (self.predict(X) == own).all(axis=1)
        return share_right(right, own.max(axis=1) > 0, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags


def _indicator(y: Any) -> np.ndarray:
    """[n, c] int64 of 0 and 1; rows of -1 become rows of zeros."""
    own = check_array(y, accept_sparse="csr", dtype=None, input_name="y")
    own = own.toarray() if hasattr(own, "toarray") else own
    if own.shape[1] < 1 or not np.isin(own, (UNLABELED, 0, 1)).all():
        raise ValueError("y must be a matrix of 0 and 1, a column for each class.")
    unknown = own == UNLABELED
    if (mixed := unknown.any(axis=1) & ~unknown.all(axis=1)).any():
        raise ValueError(
            f"Row {int(mixed.argmax())} of y holds -1 beside other numbers; a point is labelled "
            "for all classes or, with a row of zeros or of -1, for none."
        )
    return np.where(unknown, 0, own).astype(np.int64)
