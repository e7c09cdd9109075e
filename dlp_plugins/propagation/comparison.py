"""Which method suits these labels: the default against three others, by cross-validation.

Shapes: n points, d numbers each, c classes, m labels that are hidden once per repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.normalizers.clamp import Clamp
from dlp_plugins.normalizers.class_mass import ClassMass
from dlp_plugins.notebook.html import table
from dlp_plugins.propagation.beliefs import PLAIN, Beliefs
from dlp_plugins.propagation.propagator import Propagator
from dlp_plugins.propagation.start import LogisticRegression, Start
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.registry import EMBEDDINGS_START_ALPHA
from dlp_plugins.solvers.cg import ConjugateGradient

FOLDS = 5  # at most; no more than labels of the rarest class that has two
RUNS = 10  # of every method at least: folds times repeats
# Standard errors by which another method must be better. Three are compared with the default, so
# that 2.5 each leave less than one chance in fifty of leaving it for nothing.
CLEAR = 2.5


@dataclass(frozen=True)
class Method:
    """One way to labels.

    estimator: classifier to start from, if any.
    divide: as of `Start`.
    """

    name: str
    propagator: Propagator
    estimator: Any = None
    divide: bool = True

    def beliefs(self, descriptors: Tensor, given: Beliefs = PLAIN) -> Beliefs:
        """What a propagation of descriptors F [n, d] by this method is given."""
        if self.estimator is None:
            return given
        return replace(given, start=Start(self.estimator, descriptors, self.divide))


@dataclass(frozen=True)
class Row:
    """What cross-validation found of one method.

    accuracy: share of hidden labels that it finds; error: the standard error of that.
    gain: accuracy above the default's; gain_error: the standard error of that, from each label's
        own difference.
    """

    name: str
    accuracy: float
    error: float
    gain: float
    gain_error: float

    @property
    def clearly_better(self) -> bool:
        return self.gain > CLEAR * self.gain_error


@dataclass(frozen=True)
class Comparison:
    """Methods compared, the default first, and the one to use.

    rows: empty where no label could be hidden.
    judged: labels that were hidden, each once per repeat.
    """

    rows: list[Row]
    chosen: Method
    judged: int
    repeats: int

    def _repr_html_(self) -> str:
        """For a notebook: the methods with their accuracies."""
        rows = [
            (row.name, f"{100 * row.accuracy:.1f} ± {100 * row.error:.1f}", f"{_points(row)}")
            for row in self.rows
        ]
        columns = ("method", "accuracy, %", "above the default")
        title = f"Methods by cross-validation on {self.judged:,} labels"
        return table(title, rows, columns, self.describe())

    def describe(self) -> str:
        """What was chosen and why, in a sentence."""
        if not self.rows:
            return (
                "Nothing to compare by: cross-validation needs a class with at least two labels. "
                "The default is kept."
            )
        best = max(self.rows[1:], key=lambda row: row.gain, default=self.rows[0])
        if self.chosen.name != self.rows[0].name:
            row = next(row for row in self.rows if row.name == self.chosen.name)
            return f"Taken: {row.name}, {_points(row)} points better than the default."
        if best.gain > 0:
            return f"The default is kept: {best.name} is not clearly better ({_points(best)})."
        return "The default is kept: no other method is better."


def _points(row: Row) -> str:
    return f"{100 * row.gain:.1f} ± {100 * row.gain_error:.1f}"


def methods(propagator: Propagator, estimator: Any = None) -> list[Method]:
    """The default, which may start from an estimator, and what it is compared with."""
    plain = replace(propagator, normalizer=ClassMass(), refiner=NoRefiner())
    started = replace(plain, solver=ConjugateGradient(alpha=EMBEDDINGS_START_ALPHA))
    alone = replace(plain, solver=ConjugateGradient(alpha=0.0), normalizer=Clamp())
    found = [
        Method("default", propagator, estimator),
        Method("class mass alone", plain),
        Method("started from logistic regression", started, LogisticRegression()),
        # without a graph: nothing spreads at alpha = 0
        Method("logistic regression", alone, LogisticRegression(), divide=False),
    ]
    same = plain == propagator and estimator is None
    return [method for method in found if method.name != "class mass alone" or not same]


def compare(
    candidates: list[Method],
    graph: Graph,
    descriptors: Tensor,
    labels: Tensor,
    num_classes: int,
    given: Beliefs = PLAIN,
    progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Repeated cross-validation on the labelled points, on a graph that is built once.

    Stratified by class; the only label of a class is never hidden. The first candidate is left only
    for one that is better by 2.5 standard errors of the difference, and then for the best.

    Args:
        descriptors: F [n, d] that the graph was built from.
        labels: [n] int64, -1 where there is none.
        given: prior scores, if any; labels must be plain.
        progress: called with the number of runs that are done, of `runs`.
    """
    counts = _counts(labels, num_classes)
    judged = int(counts[counts > 1].sum())
    if judged == 0:
        return Comparison([], candidates[0], 0, 0)
    right = np.zeros((len(candidates), len(labels)))
    for done, hidden in enumerate(_folds(labels.cpu().numpy(), counts), start=1):
        kept = labels.clone()
        kept[hidden] = UNLABELED
        for row, method in zip(right, candidates, strict=True):
            beliefs = method.beliefs(descriptors, given)
            found = method.propagator.spread(
                graph, kept, num_classes, descriptors=descriptors, beliefs=beliefs
            )
            row[hidden] += (found.labels[hidden] == labels[hidden]).cpu().numpy()
        progress(done)
    repeats = shape_of(counts)[1]
    labeled = (labels != UNLABELED).cpu().numpy()
    once = labeled & (counts[labels.clamp(min=0).cpu().numpy()] > 1)
    right = right[:, once] / repeats
    rows = [
        Row(method.name, *_mean_and_error(found), *_mean_and_error(found - right[0], least=1.0))
        for method, found in zip(candidates, right, strict=True)
    ]
    rows[0] = replace(rows[0], gain_error=0.0)  # it is not compared with itself
    better = [i for i, row in enumerate(rows) if row.clearly_better]
    best = max(better, key=lambda i: rows[i].gain, default=0)
    return Comparison(rows, candidates[best], judged, repeats)


def runs(labels: Tensor, num_classes: int) -> int:
    """Of every method, in `compare`: folds times repeats."""
    return math.prod(shape_of(_counts(labels, num_classes)))


def _counts(labels: Tensor, num_classes: int) -> np.ndarray:
    return np.bincount(labels[labels != UNLABELED].cpu().numpy(), minlength=num_classes)


def shape_of(counts: np.ndarray) -> tuple[int, int]:
    """Folds and repeats for so many labels of each class [c]."""
    folds = max(2, min(FOLDS, int(counts[counts > 1].min(initial=FOLDS))))
    return folds, math.ceil(RUNS / folds)


def _folds(labels: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """Points to hide in each run; in every repeat each label of a class with several is once."""
    folds, repeats = shape_of(counts)
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        fold_of = np.full(len(labels), -1)
        for j in np.flatnonzero(counts > 1):
            points = rng.permutation(np.flatnonzero(labels == j))
            fold_of[points] = (np.arange(len(points)) + rng.integers(folds)) % folds
        for fold in range(folds):
            if len(hidden := np.flatnonzero(fold_of == fold)):
                yield hidden


def _mean_and_error(x: np.ndarray, least: float = 0.0) -> tuple[float, float]:
    """Mean of x [m] and its standard error.

    Args:
        least: added to the sum of squares, so that a few equal values do not look certain.
    """
    mean = float(x.mean())
    squares = float(np.square(x - mean).sum()) + least
    return mean, math.sqrt(squares) / len(x)
