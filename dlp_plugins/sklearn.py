"""Label propagation as a scikit-learn classifier.

>>> import numpy as np
>>> from dlp_plugins.sklearn import GraphLabelPropagation
>>> X = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]])
>>> model = GraphLabelPropagation(n_neighbors=1).fit(X, [0, -1, 1, -1])
>>> model.transduction_.tolist()
[0, 0, 1, 1]
>>> model.predict([[3.0, 0.5]]).tolist()
[0]
"""

from __future__ import annotations

import operator
import warnings
from typing import Any

import faiss
import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from dlp_plugins._threads import row_slices
from dlp_plugins.graph import Neighbors
from dlp_plugins.inputs import UNLABELED, to_descriptors, unit_rows
from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.propagator import build_parts
from dlp_plugins.registry import PROPAGATION

# Gathered neighbours of a block of new points, held at once: 2^24 float64 = 128 MiB.
BLOCK_ENTRIES = 2**24


class GraphLabelPropagation(ClassifierMixin, BaseEstimator):
    """Spreads a few labels over a nearest-neighbour graph (Iscen et al., CVPR 2019).

    Differs from scikit-learn's `LabelSpreading` in the graph (cosine similarity, k neighbours,
    never n x n), the solver (conjugate gradient instead of power iteration), classes weighted
    evenly however few labels one has, and points that no label reaches: they get -1, not the first
    class.

    Only the direction of a row counts: rows are L2-normalised. That suits embeddings. Put a
    `StandardScaler` before it in a `Pipeline` for tabular features or embeddings that are not
    centred, as otherwise all rows may point the same way.

    Parameters
    ----------
    graph : str or GraphBuilder, default='exact'
        Who finds the neighbours: a name from `dlp_plugins.registry.graphs`, or a component.
    affinity : str or Affinity, default='inner_product'
        How a similarity becomes the weight of an edge.
    solver : str or Solver, default='cg'
        Who solves (I - alpha Wn) Z = Y.
    normalizer : str or Normalizer, default='clamp'
        How scores become class probabilities.
    weighter : str or Weighter, default='entropy'
        How `certainty_` follows from the label distributions.
    n_neighbors : int, default=50
        Neighbours of each point in the graph, and of each new point; at most n_samples - 1.
    gamma : float, default=3.0
        Power of the inner product.
    alpha : float, default=0.99
        How far labels spread, in [0, 1).
    max_iter : int, default=100
        Iterations of the solver at most. The paper stops after 20.
    tol : float, default=1e-4
        Relative residual at which the solver stops, in (0, 1).
    unlabeled : 'auto', int, str or None, default='auto'
        What means no label in y, besides blank text, None and NaN. 'auto': -1, as in scikit-learn;
        but numbers that are -1 and one other alone are taken for two classes, with a warning, as
        one class leaves nothing to classify. -1: -1 whatever y holds. Another value lets -1 be a
        class; with None every point is labelled, and the classifier is an ordinary one.

    `n_neighbors`, `gamma`, `alpha`, `max_iter` and `tol` go to the components given by name that
    know them; a component given as an object keeps its own.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, without `unlabeled_`.
    unlabeled_ : int, str or None
        What stood for no label in `fit`.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Class probabilities of each training point; zeros where no label reaches.
    transduction_ : ndarray of shape (n_samples,)
        Label of each training point: its own where it has one, `unlabeled_` where none reaches.
    certainty_ : ndarray of shape (n_samples,)
        In 0..1; 1 for a labelled point, 0 where no label reaches.
    n_iter_ : int
        Iterations of the solver; 0 for a direct one.
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, when X has string column names.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> few = np.where(np.arange(len(y)) % 20 == 0, y, -1)
    >>> model = GraphLabelPropagation(n_neighbors=10).fit(X, few)
    >>> bool((model.transduction_ == y).mean() > 0.95)
    True
    """

    def __init__(
        self,
        graph: Any = PROPAGATION["graph"],
        affinity: Any = PROPAGATION["affinity"],
        solver: Any = PROPAGATION["solver"],
        normalizer: Any = PROPAGATION["normalizer"],
        weighter: Any = PROPAGATION["weighter"],
        *,
        n_neighbors: int = 50,
        gamma: float = 3.0,
        alpha: float = 0.99,
        max_iter: int = 100,
        tol: float = 1e-4,
        unlabeled: Any = "auto",
    ) -> None:
        self.graph = graph
        self.affinity = affinity
        self.solver = solver
        self.normalizer = normalizer
        self.weighter = weighter
        self.n_neighbors = n_neighbors
        self.gamma = gamma
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.unlabeled = unlabeled

    def fit(self, X: Any, y: Any) -> GraphLabelPropagation:
        """Spread the labels of y over the graph of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Descriptors. A zero row becomes a point without edges.
        y : array-like of shape (n_samples,)
            Labels; -1 (see `unlabeled`) or blank where there is none. Strings go into an object
            array, or a list, together with -1; as numpy turns ['cat', -1] into strings, '-1' means
            the same.

        Raises
        ------
        ValueError
            X holds NaN or infinity, y infinity, no point is labelled, or a parameter is out of
            range.
        """
        auto = isinstance(self.unlabeled, str) and self.unlabeled == "auto"
        mark = UNLABELED if auto else self.unlabeled
        y, blank = _fill_blanks(y, mark)
        # y goes through as it is: scikit-learn cannot sort an array of strings and -1.
        X, y = validate_data(
            self, X, y, dtype=(np.float64, np.float32), ensure_min_samples=2, multi_output=False
        )
        self.unlabeled_ = None if auto and not blank and _is_two_classes(y) else mark
        labeled = self._labeled(y)
        if not labeled.any():
            raise ValueError(
                f"No point is labelled ({self.unlabeled_!r} means unlabelled); one class is the "
                "least."
            )
        if y.dtype.kind == "O" and not all(isinstance(label, str) for label in y[labeled]):
            raise ValueError(
                "Unknown label type: in an object array every label must be a string, or "
                f"{self.unlabeled_!r} or blank where there is none. Convert numbers with "
                "y.astype(int)."
            )
        check_classification_targets(y[labeled])
        self.classes_, own = np.unique(y[labeled], return_inverse=True)
        labels = torch.full((len(X),), UNLABELED)
        labels[torch.from_numpy(labeled)] = torch.from_numpy(own)

        propagator = self._components()
        points = _unit(X)
        neighbors = propagator.find_neighbors(torch.from_numpy(points))
        graph = propagator.assemble_graph(neighbors)
        pseudo = propagator.spread(graph, labels, len(self.classes_))
        if (convergence := pseudo.health.convergence).labels_may_change:
            text = f"Propagation: {convergence.describe('max_iter')}."
            warnings.warn(text, ConvergenceWarning, stacklevel=2)
        self._affinity, self._points, self._neighbors = propagator.affinity, points, neighbors
        self.label_distributions_ = pseudo.probabilities.double().numpy()
        self.transduction_ = self._name(pseudo.labels.numpy())
        self.certainty_ = pseudo.certainty.numpy()
        self.n_iter_ = pseudo.health.iterations
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities of new points: the mean of their neighbours', weighted by affinity.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Rows sum to 1, or are 0 where no neighbour with a label is alike at all.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        queries = _unit(X)
        indices, similarities = self._nearest(queries)
        weights = self._weights(indices, similarities)
        scores = np.empty((len(queries), len(self.classes_)))
        for rows in row_slices(len(queries), indices.shape[1] * len(self.classes_), BLOCK_ENTRIES):
            near = self.label_distributions_[indices[rows]]
            scores[rows] = np.einsum("mk,mkc->mc", weights[rows], near)
        total = scores.sum(axis=1, keepdims=True)
        return np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of new points; `unlabeled_` where no label reaches.

        Where that is None those get the first class, as there is no other value to give.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        probabilities = self.predict_proba(X)
        reached = probabilities.any(axis=1)
        return self._name(np.where(reached, probabilities.argmax(axis=1), UNLABELED))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy over the labelled points; those with y = `unlabeled_` do not count.

        So a grid search on partly labelled data is judged by its labels alone.
        """
        check_is_fitted(self)
        y = column_or_1d(_fill_blanks(y, self.unlabeled_)[0])
        labeled = self._labeled(y)
        if not labeled.any():
            raise ValueError(
                f"No point is labelled ({self.unlabeled_!r} means unlabelled): nothing to score."
            )
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight)[labeled]
        # compared as positions in classes_: predictions may mix names with -1
        predicted = self.predict(X)[labeled]
        return float(
            accuracy_score(predicted == y[labeled], np.ones(labeled.sum(), bool),
                           sample_weight=sample_weight)
        )  # fmt: skip

    def _components(self) -> Propagator:
        parameters = {
            "k": operator.index(self.n_neighbors),
            "gamma": self.gamma,
            "alpha": self.alpha,
            "max_iterations": self.max_iter,
            "tolerance": self.tol,
        }
        chosen = {part: getattr(self, part, "none") for part in PROPAGATION}  # no balancer
        return Propagator(**build_parts(chosen, parameters)[0])

    def _nearest(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices and similarities (float64) [m, k] of the nearest training points."""
        k = self._neighbors.indices.shape[1]
        _, indices = faiss.knn(queries, self._points, k, metric=faiss.METRIC_INNER_PRODUCT)
        similarities = np.empty(indices.shape)
        for rows in row_slices(len(queries), k * queries.shape[1], BLOCK_ENTRIES):
            # Again in float64: FAISS rounds differently with the number of queries in a call.
            near = self._points[indices[rows]].astype(np.float64)
            similarities[rows] = np.einsum("mkd,md->mk", near, queries[rows].astype(np.float64))
        return indices, similarities

    def _weights(self, indices: np.ndarray, similarities: np.ndarray) -> np.ndarray:
        """[m, k] affinities of new points to training points.

        An affinity may look at the neighbour's own neighbours (a local scale): so the new points
        are put after the training points' lists, none of which they change.
        """
        known = self._neighbors
        together = Neighbors(
            torch.cat([known.indices.long(), torch.from_numpy(indices)]),
            torch.cat([known.similarities.double(), torch.from_numpy(similarities)]),
        )
        return self._affinity.weights(together)[len(self._points) :].numpy()

    def _labeled(self, y: np.ndarray) -> np.ndarray:
        """[n] bool: which points have a label."""
        if self.unlabeled_ is None:
            return np.ones(len(y), bool)
        as_text = str(self.unlabeled_)
        if y.dtype.kind == "O":
            return (y != self.unlabeled_) & (y != as_text)
        return np.asarray(y != (as_text if y.dtype.kind in "US" else self.unlabeled_))

    def _name(self, index: np.ndarray) -> np.ndarray:
        """Positions in classes_ to classes; -1 to `unlabeled_`, whatever the classes' type."""
        named = self.classes_[index.clip(0)]
        missing = index == UNLABELED
        if missing.any() and self.unlabeled_ is not None:
            if not (named.dtype.kind in "if" and isinstance(self.unlabeled_, (int, np.integer))):
                named = named.astype(object)
            named[missing] = self.unlabeled_
        return named


def _is_two_classes(y: np.ndarray) -> bool:
    """Whether y holds -1 and one other number alone; warns, as that is taken for two classes."""
    values = np.unique(y) if y.dtype.kind in "if" else y[:0]
    if len(values) != 2 or UNLABELED not in values:
        return False
    warnings.warn(
        f"y holds {values[0]} and {values[1]} alone: taken for two classes. If -1 means "
        "unlabelled, pass unlabeled=-1.",
        UserWarning,
        stacklevel=3,
    )
    return True


def _fill_blanks(y: Any, mark: Any) -> tuple[Any, bool]:
    """y with `mark` in place of blank text, None and NaN, and whether there were any.

    Objects that are whole numbers besides become integers, as pandas holds integers with gaps.
    """
    array = np.asarray(y)
    if array.dtype.kind == "U" and not isinstance(y, np.ndarray):
        array = np.asarray(y, dtype=object)  # NumPy turned None and NaN into text
    if array.ndim != 1 or array.dtype.kind not in "fUO":
        return y, False
    if array.dtype.kind == "f":
        blank = np.isnan(array)
    else:
        blank = np.array([_is_blank(value) for value in array], dtype=bool)
    if not blank.any():
        return y, False
    if mark is None:
        raise ValueError(
            f"The label of point {int(blank.argmax())} is blank, but unlabeled=None means that "
            "every point has one."
        )
    if array.dtype.kind == "U":
        return np.where(blank, str(mark), array), True
    array = array.copy()
    array[blank] = mark
    whole = array.dtype.kind == "O" and all(type(v) is int for v in array)
    return array.astype(np.int64) if whole else array, True


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if type(value).__name__ in ("NoneType", "NAType"):  # pandas.NA is not even unequal to itself
        return True
    return isinstance(value, float) and value != value


def _unit(X: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32; a zero row stays zero."""
    return unit_rows(to_descriptors(X)).numpy()
