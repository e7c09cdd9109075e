"""Label propagation as a scikit-learn classifier."""

from __future__ import annotations

import operator
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Bunch
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from dlp_plugins.registry import (
    EMBEDDINGS,
    EMBEDDINGS_ALPHA,
    EMBEDDINGS_K,
    EMBEDDINGS_START_ALPHA,
    SELECTOR,
)
from dlp_plugins.sklearn._common import (
    UNLABELED,
    build_components,
    name_classes,
    share_right,
    warn_unconverged,
)

if TYPE_CHECKING:  # importing these takes longer than scikit-learn; `fit` does
    from dlp_plugins.embeddings.fitted import FittedPropagation
    from dlp_plugins.propagation import Propagator


class Doubts(Bunch):
    """What `GraphLabelPropagation.audit` returns."""

    def _repr_html_(self) -> str:
        from dlp_plugins.embeddings.audit import MORE_LIKELY, audit_html

        return audit_html(
            self.points, self.labels, self.suggested, self.doubt, self.error_rate,
            int((self.doubt >= MORE_LIKELY).sum()),
        )  # fmt: skip


class GraphLabelPropagation(ClassifierMixin, BaseEstimator):
    """Spreads a few labels over a nearest-neighbour graph (Iscen et al., CVPR 2019).

    Differs from scikit-learn's `LabelSpreading` in the graph (cosine similarity, k neighbours,
    never n x n), the solver (conjugate gradient instead of power iteration), classes weighted
    evenly however few labels one has, and points that no label reaches: they get what the refiner
    makes of their descriptors, or -1 without one, not the first class.

    The defaults are for embeddings of pretrained networks, of which few have a label; the paper's
    are transformation='none', normalizer='clamp', refiner='none', n_neighbors=50, alpha=0.99. Only
    the direction of a row counts: rows are L2-normalised. For tabular features or pixels put a
    `StandardScaler` before it in a `Pipeline`, and compare with refiner='none': a class that is not
    one cluster loses by the refiner.

    Parameters
    ----------
    graph : str or GraphBuilder, default='auto'
        Who finds the neighbours: a name from `dlp_plugins.registry.graphs`, or a component.
        'auto': 'exact' up to 100,000 points, 'cells' above.
    affinity : str or Affinity, default='inner_product'
        How a similarity becomes the weight of an edge.
    solver : str or Solver, default='cg'
        Who solves (I - alpha Wn) Z = Y.
    normalizer : str or Normalizer, default='class_mass'
        How scores become class probabilities.
    weighter : str or Weighter, default='entropy'
        How `certainty_` follows from the label distributions.
    transformation : str or Transform, default='auto'
        What happens to the rows before neighbours are searched. 'auto': 'rescale', but 'none' where
        the columns are uncorrelated, as principal components are.
    refiner : str or Refiner, default='discriminant'
        How probabilities are improved after the solve; 'none' keeps the graph's own.
    class_shares : str, array-like of shape (n_classes,) or dict, default='equal'
        Sizes of the classes among unlabelled points: 'equal'; 'labels', as frequent as among the
        labels; 'estimate'; or numbers above 0, in the order of `classes_` or by class.
    robust : bool, default=False
        Whether labels that all others contradict count less: where some labels are wrong.
    n_neighbors : int, default=10
        Neighbours of each point in the graph, and of each new point; at most n_samples - 1.
    gamma : float, default=3.0
        Power of the inner product.
    alpha : float or 'auto', default='auto'
        How far labels spread, in [0, 1). 'auto': 0.9, or 0.8 with `start`.
    max_iter : int, default=100
        Iterations of the solver at most. The paper stops after 20.
    tol : float, default=1e-4
        Relative residual at which the solver stops, in (0, 1).
    unlabeled : 'auto', int, str or None, default='auto'
        What means no label in y, besides blank text, None and NaN. 'auto': -1, as in scikit-learn;
        but numbers that are -1 and one other alone are taken for two classes, with a warning, as
        one class leaves nothing to classify. -1: -1 whatever y holds. Another value lets -1 be a
        class; with None every point is labelled, and the classifier is an ordinary one.

    start : estimator or None, default=None
        A classifier, fitted on a copy, whose probabilities for the unlabelled points spread
        together with the labels: the label matrix is its predictions, one-hot in labelled rows,
        columns over their sums.
    auto : bool, default=False
        Compare these settings with class mass alone, with a start from logistic regression and with
        logistic regression by cross-validation on the labelled points, and take another only if it
        is clearly better.
    calibrate : bool, default=False
        Find `probability_`, by up to three more propagations on the same graph.
    unknown : bool, default=False
        Find `unknown_`, by one more solve.
    prior_weight : float, default=1.0
        What the prior scores of a class given to `fit` count in all beside its labels.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, without `unlabeled_`.
    unlabeled_ : int, str or None
        What stood for no label in `fit`.
    label_distributions_ : ndarray of shape (n_samples, n_classes)
        Class probabilities of each training point; without a refiner zeros where no label reaches.
    transduction_ : ndarray of shape (n_samples,)
        Label of each training point: its own where it has one; without a refiner `unlabeled_` where
        none reaches.
    certainty_ : ndarray of shape (n_samples,)
        In 0..1; 1 for a labelled point (the share of its label if that is soft), 0 where no label
        reaches.
    probability_ : ndarray of shape (n_samples,) or None
        With `calibrate`, how likely the label of each training point is right.
    temperature_ : float or None
        With `calibrate`, what `probability_` was found with.
    unknown_ : ndarray of shape (n_samples,) or None
        With `unknown`, in 0..1, larger for a point that belongs to none of `classes_`.
    reached_ : ndarray of shape (n_samples,)
        Whether some label reaches a training point over the graph.
    class_shares_ : ndarray of shape (n_classes,)
        Shares of the classes among unlabelled points that were wanted or estimated.
    n_iter_ : int
        Iterations of the solver; 0 for a direct one.
    comparison_ : Comparison or None
        What `auto` found: `rows`, a method's accuracy and gain with standard errors, `chosen`, and
        `describe()`.
    n_features_in_ : int
        Features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, when X has string column names.

    Notes
    -----
    `n_neighbors`, `gamma`, `alpha`, `max_iter` and `tol` go to the components given by name that
    know them; a component given as an object keeps its own.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> few = np.where(np.arange(len(y)) % 20 == 0, y, -1)
    >>> model = GraphLabelPropagation(n_neighbors=10).fit(X, few)
    >>> bool((model.transduction_ == y).mean() > 0.9)
    True
    """

    def __init__(
        self,
        graph: Any = "auto",
        affinity: Any = EMBEDDINGS["affinity"],
        solver: Any = EMBEDDINGS["solver"],
        normalizer: Any = EMBEDDINGS["normalizer"],
        weighter: Any = EMBEDDINGS["weighter"],
        *,
        transformation: Any = EMBEDDINGS["transform"],
        refiner: Any = EMBEDDINGS["refiner"],
        class_shares: Any = "equal",
        robust: bool = False,
        n_neighbors: int = EMBEDDINGS_K,
        gamma: float = 3.0,
        alpha: float | str = "auto",
        max_iter: int = 100,
        tol: float = 1e-4,
        unlabeled: Any = "auto",
        start: Any = None,
        auto: bool = False,
        calibrate: bool = False,
        unknown: bool = False,
        prior_weight: float = 1.0,
    ) -> None:
        self.graph = graph
        self.affinity = affinity
        self.solver = solver
        self.normalizer = normalizer
        self.weighter = weighter
        self.transformation = transformation  # named `transform` it would make a transformer of it
        self.refiner = refiner
        self.class_shares = class_shares
        self.robust = robust
        self.n_neighbors = n_neighbors
        self.gamma = gamma
        self.alpha = alpha
        self.max_iter = max_iter
        self.tol = tol
        self.unlabeled = unlabeled
        self.start = start
        self.auto = auto
        self.calibrate = calibrate
        self.unknown = unknown
        self.prior_weight = prior_weight

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, prior: Any = None
    ) -> GraphLabelPropagation:
        """Spread the labels of y over the graph of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Descriptors. A zero row becomes a point without edges.
        y : array-like of shape (n_samples,)
            Labels; -1 (see `unlabeled`) or blank where there is none. Strings go into an object
            array, or a list, together with -1; as numpy turns ['cat', -1] into strings, '-1' means
            the same. Or of shape (n_samples, n_classes), dense or sparse: the share of each class
            in each point's label, a row of zeros where there is none; `classes_` are then the
            numbers of the columns.
        sample_weight : array-like of shape (n_samples,), default=None
            What each label counts; 0 leaves it out. By default 1. Points without a label have none.
        prior : {array-like, sparse matrix} of shape (n_samples, n_classes), default=None
            Scores at least 0 of the classes in the order of `classes_`, from elsewhere.

        Raises
        ------
        ValueError
            X holds NaN or infinity, y infinity, no point is labelled, or a parameter is out of
            range.
        """
        if _is_soft(y):
            return self._fit_soft(X, y, sample_weight, prior)
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
        labels = np.full(len(X), UNLABELED)
        labels[labeled] = own

        return self._spread(X, labels, len(self.classes_), sample_weight, prior)

    def _fit_soft(self, X: Any, y: Any, sample_weight: Any, prior: Any) -> GraphLabelPropagation:
        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        check_consistent_length(X, y)
        self.unlabeled_ = UNLABELED
        self.classes_ = np.arange(y.shape[1] if hasattr(y, "shape") else len(y[0]))
        return self._spread(X, y, len(self.classes_), sample_weight, prior)

    def _spread(
        self, X: np.ndarray, y: Any, classes: int, sample_weight: Any, prior: Any
    ) -> GraphLabelPropagation:
        from dlp_plugins.embeddings.fitted import FittedPropagation
        from dlp_plugins.errors import LabelError
        from dlp_plugins.propagation.beliefs import to_beliefs
        from dlp_plugins.propagation.start import check_estimator

        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        try:
            labels, _, beliefs = to_beliefs(y, classes, sample_weight, prior, self.prior_weight)
        except LabelError as error:
            raise ValueError(str(error)) from None
        if not (labels != UNLABELED).any():
            raise ValueError("No point is labelled: every share or weight is 0.")
        if self.robust and (self.auto or self.start is not None):
            raise ValueError("robust=True goes with neither start nor auto.")
        if self.start is not None or self.auto:
            if self.start is not None:
                check_estimator(self.start)
            if beliefs.given is not None:
                raise ValueError(
                    "start and auto need plain labels, one class for each point and no weights."
                )
        fitted = FittedPropagation.of(
            self._components(len(X)), X, labels.numpy(), classes, self.start, self.auto,
            self.robust, beliefs, self.calibrate, self.unknown,
        )  # fmt: skip
        self._parameters = repr(self.get_params(deep=False))
        return self._keep(fitted)

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None) -> GraphLabelPropagation:
        """Add points, or labels, to those of `fit` and of earlier calls, in less time than a fit.

        Attributes then hold all points so far, in the order in which they came. The neighbours of
        all points are exact if they were, the solver starts from the last scores, the refiner from
        the last probabilities. What `transformation` learned stays that of the first call: fit
        again where new points differ from the first ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or None
            None adds no points: y then labels those that are there.
        y : array-like of shape (n_samples,), default=None
            As in `fit`, and it may hold new classes. None: no point is labelled. Where X is None, a
            label for each point so far, new or corrected, and -1 (see `unlabeled`) for all whose
            label stays as it is.
        classes : ignored
            Here because scikit-learn's `partial_fit` has it.

        Raises
        ------
        ValueError
            As `fit`; or y is None where `unlabeled=None` says that every point has a label, or a
            parameter has changed since.
        """
        if not hasattr(self, "_fitted"):
            return self.fit(X, y)
        if X is None and y is None:
            raise ValueError("Neither X nor y was given: there is nothing to add.")
        if (now := repr(self.get_params(deep=False))) != self._parameters:
            raise ValueError(
                f"Parameters have changed since fit, so fit again; now they are {now}."
            )
        if self.robust or self.auto or self.start is not None:
            raise ValueError("partial_fit goes with neither robust, auto nor start: fit again.")
        if not self._fitted.plain or self.calibrate or self.unknown:
            raise ValueError(
                "partial_fit needs plain labels without weights or a prior, and neither calibrate "
                "nor unknown: fit again."
            )
        if X is not None:
            X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        before = classes = self.classes_
        labels = np.full(len(self.transduction_ if X is None else X), UNLABELED)
        if y is None and self.unlabeled_ is None:
            raise ValueError("unlabeled=None means that every point has a label: give y.")
        if y is not None:
            y = column_or_1d(_fill_blanks(y, self.unlabeled_)[0])
            check_consistent_length(labels, y)
            labeled = self._labeled(y)
            if (of := np.unique(y[labeled])).size:
                check_classification_targets(of)
                if (of.dtype.kind in "OUS") != (before.dtype.kind in "OUS"):
                    raise ValueError(f"Labels like {of[0]!r} and {before[0]!r} do not mix.")
                added = of[~np.isin(of, before)]
                # new classes come last, so that the columns of the old ones stay
                classes = np.concatenate([before, added]) if added.size else before
                position = {c: j for j, c in enumerate(classes.tolist())}
                labels[labeled] = [position[c] for c in y[labeled].tolist()]
        if X is None:
            found = self._fitted.extended(None, labels[:0], len(classes), labels)
        else:
            found = self._fitted.extended(X, labels, len(classes))
        self.classes_ = classes
        return self._keep(found)

    def _keep(self, fitted: FittedPropagation) -> GraphLabelPropagation:
        warn_unconverged(fitted.health.convergence, stacklevel=4)
        self._fitted = fitted
        self.label_distributions_ = fitted.probabilities
        self.transduction_ = self._name(fitted.labels)
        self.certainty_, self.reached_ = fitted.certainty, fitted.reached
        self.class_shares_ = fitted.class_shares
        self.probability_, self.unknown_ = fitted.probability, fitted.unknown
        how = fitted.calibration
        self.temperature_ = None if how is None else how.temperature
        self.n_iter_ = fitted.health.iterations
        self.comparison_ = fitted.comparison
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities of new points: the mean of their neighbours', weighted by affinity.

        With a refiner, what its classifier makes of that mean and of the new points themselves.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Rows sum to 1, or without a refiner are 0 where no neighbour with a label is similar at
            all.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return self._fitted.index.predict(X)[0]

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
        return share_right(self.predict(X) == y, labeled, sample_weight, self.unlabeled_)

    def suggest(self, count: int, X: Any = None, *, selector: Any = SELECTOR) -> np.ndarray:
        """Points whose labels should help most: their rows, the best first.

        Parameters
        ----------
        count : int
            How many. All are chosen at once, as different from each other as they can be.
        X : array-like of shape (n_samples, n_features), optional
            Points of which none has a label. Without it, those of `fit`, whose labels count.
        selector : str or Selector, default='coverage'
            Who chooses: a name from `dlp_plugins.registry.selectors`, or a component. 'margin'
            needs labels, and so a fitted estimator.

        Returns
        -------
        ndarray of shape (count,)
            Of rows that are the same at most the first.

        Raises
        ------
        ValueError
            There are not so many points without a label.
        """
        import torch

        from dlp_plugins.embeddings.selection import select_points
        from dlp_plugins.errors import LabelError
        from dlp_plugins.inputs import to_descriptors
        from dlp_plugins.propagation import Propagator
        from dlp_plugins.propagation.propagator import build_parts

        if (count := operator.index(count)) < 1:
            raise ValueError(f"count must be at least 1; found {count}.")
        chosen = build_parts({"selector": selector}, {})[0]["selector"]
        try:
            if X is None:
                check_is_fitted(self)
                return self._fitted.suggest(chosen, count)
            X = check_array(X, dtype=(np.float64, np.float32), ensure_min_samples=2)
            parts = build_components(self, EMBEDDINGS, len(X), self._alpha())
            labels, made = torch.full((len(X),), UNLABELED), Propagator(**parts)
            return select_points(made, chosen, to_descriptors(X), labels, 0, count).numpy()
        except LabelError as error:
            raise ValueError(str(error)) from None

    def audit(self) -> Bunch:
        """Which labels given to `fit` are likely wrong, the most doubtful first.

        Returns
        -------
        Bunch of
            points : ndarray of shape (n_labels,), rows of the labelled points.
            labels : ndarray of shape (n_labels,), as given.
            suggested : ndarray of shape (n_labels,), the class that all other labels make most
            likely; the given one where a label is the only one of its class.
            doubt : ndarray of shape (n_labels,), estimated probability that a label is wrong; NaN
            where it is the only one of its class.
            against : ndarray of shape (n_labels, 3), rows of labelled points of the suggested class
            that add most to this point's score; -1 where there are fewer.
            error_rate : float, estimated share of wrong labels.
        """
        check_is_fitted(self)
        found = self._fitted.audit()
        order = found.order
        suggested = np.where(found.suggested == UNLABELED, found.labels, found.suggested)
        return Doubts(
            points=found.points[order],
            labels=self.classes_[found.labels[order]],
            suggested=self.classes_[suggested[order]],
            doubt=found.doubt[order],
            against=found.against[order],
            error_rate=found.error_rate,
        )

    def _components(self, points: int) -> Propagator:
        from dlp_plugins.propagation import Propagator
        from dlp_plugins.propagation.class_shares import to_class_shares

        parts = build_components(self, EMBEDDINGS, points, self._alpha())
        return Propagator(**parts, class_shares=to_class_shares(self._shares_by_class()))

    def _shares_by_class(self) -> Any:
        """`class_shares`, numbers by class put into the order of `classes_`."""
        given = self.class_shares
        if not isinstance(given, dict):
            return given
        classes = self.classes_.tolist()
        if given.keys() != set(classes):
            wrong = sorted(map(str, given.keys() ^ set(classes)))
            raise ValueError(
                f"class_shares must hold a number for each of the classes of y, and no other; look "
                f"at {', '.join(wrong[:5])}."
            )
        return [given[c] for c in classes]

    def _alpha(self) -> Any:
        if isinstance(self.alpha, str) and self.alpha == "auto":
            return EMBEDDINGS_ALPHA if self.start is None else EMBEDDINGS_START_ALPHA
        return self.alpha

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
        return name_classes(self.classes_, index, self.unlabeled_)


def _is_soft(y: Any) -> bool:
    """Whether y is a matrix of several columns, the share of each class in each label."""
    shape = getattr(y, "shape", None)
    if shape is None:
        try:
            shape = np.asarray(y).shape
        except ValueError:  # rows of different lengths
            return False
    return len(shape) == 2 and shape[1] > 1


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
