"""What is known beside plain labels: soft labels, weights of labels, scores from elsewhere.

Shapes: n points, c classes, m of the points labelled.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.errors import LabelError
from dlp_plugins.inputs import BLOCK_ENTRIES, UNLABELED, check_labels, count_classes, to_labels
from dlp_plugins.propagation.pseudo_labels import Assignment, label_matrix
from dlp_plugins.propagation.start import Start
from dlp_plugins.refiners.contract import Given

AnyAssignment = TypeVar("AnyAssignment", bound=Assignment)
TINY = torch.finfo(torch.float32).tiny
LARGE = 1e30  # scores above this, or below its inverse, lose digits or more in float32


def is_sparse(x: Any) -> bool:
    """Whether x is one of SciPy's sparse matrices; SciPy is not imported for the answer.

    Whoever made such a matrix has imported SciPy, which takes a tenth of a second.
    """
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(x))


@dataclass(frozen=True)
class Prior:
    """Scores of points and classes from elsewhere: a classifier, or similarity to class names.

    scores: [n, c] at least 0, as given (a mapped file stays on disk, a sparse matrix sparse); a row
        of zeros knows nothing of its point.
    weight: beta, total of the scores of a class over that of its labels.
    group: [n] int64, which node of the graph each point is, where several share one.
    """

    scores: Any
    weight: float
    group: Tensor | None = None

    def columns(self, start: int, stop: int) -> Tensor:
        """beta P / (column sums of P) [n, stop - start] float32; a column of zeros stays zero."""
        part = self.scores[:, start:stop]
        part = part.toarray() if is_sparse(part) else part
        p = torch.from_numpy(_single(np.asarray(part)))
        if self.group is not None:  # a node's scores are the mean of its points'
            counts = torch.bincount(self.group)
            p = p.new_zeros(len(counts), p.shape[1]).index_add_(0, self.group, p)
            p /= counts[:, None]
        total = p.sum(dim=0, dtype=torch.float64)
        p *= torch.where(total > 0, self.weight / total, 0.0).float()
        return p


def _single(scores: np.ndarray) -> np.ndarray:
    """A copy in float32; columns that it would not hold are divided by their largest number."""
    largest = np.asarray(scores.max(axis=0, initial=0), dtype=np.float64)
    odd = (largest > LARGE) | ((largest > 0) & (largest < 1 / LARGE))
    if not odd.any():
        return np.array(scores, dtype=np.float32)
    return (scores / np.where(odd, largest, 1.0)).astype(np.float32)


@dataclass(frozen=True)
class Beliefs:
    """What a propagation is given beside plain labels.

    given: distributions and weights of the labelled points; None where labels are plain.
    prior: None where there are no scores from elsewhere.
    start: classifier whose probabilities take the place of the label matrix; for plain labels.
    """

    given: Given | None = None
    prior: Prior | None = None
    start: Start | None = None

    def label_matrix(
        self, labels: Tensor, num_classes: int, start: int = 0, stop: int | None = None
    ) -> Tensor:
        """Columns start..stop of Y [n, c] float32 on the device of labels [n].

        Y_ij = w_i d_ij / sum_i w_i d_ij + beta p_ij / sum_i p_ij, with distributions d and weights
        w of the labelled points (one-hot and 1 for plain labels) and prior scores p.
        """
        stop = num_classes if stop is None else stop
        if self.start is not None:
            y = self.start.label_matrix(labels, num_classes)[:, start:stop].clone()
        elif self.given is None:
            inside = (labels >= start) & (labels < stop)
            y = label_matrix(torch.where(inside, labels - start, UNLABELED), stop - start)
        else:
            mass = self.given.distributions[:, start:stop] * self.given.weights[:, None]
            total = mass.sum(dim=0, dtype=torch.float64).to(mass)
            y = torch.zeros(len(labels), stop - start, device=labels.device)
            y[self.given.points] = torch.where(total > 0, mass / total.clamp(min=TINY), 0.0)
        if self.prior is not None:
            y += self.prior.columns(start, stop).to(y.device)
        return y

    def total(self, labels: Tensor, num_classes: int) -> float:
        """Sum of Y: classes with a label, and beta for each that has prior scores."""
        columns = row_slices(num_classes, len(labels), BLOCK_ENTRIES)
        parts = (self.label_matrix(labels, num_classes, c.start, c.stop) for c in columns)
        return float(sum(part.sum(dtype=torch.float64) for part in parts))

    def labels(self, plain: Tensor) -> Tensor:
        """[n] on the CPU: the class of the largest share of each point; `plain` without shares."""
        return plain if self.given is None else best_labels(self.given, len(plain)).cpu()

    def certain(self, found: AnyAssignment) -> AnyAssignment:
        """The certainty of a labelled point is the share of its label: less than 1 if soft."""
        if self.given is None:
            return found
        certainty = found.certainty.clone()
        largest = self.given.distributions.amax(dim=1).to(certainty)
        certainty[self.given.points.to(certainty.device)] = largest
        return replace(found, certainty=certainty)

    def given_shares(self, labels: Tensor, probability: Tensor) -> Tensor:
        """Probability [n], of labelled points 1 or the share of a soft label."""
        found = torch.where(labels != UNLABELED, 1.0, probability)
        if self.given is not None:
            largest = self.given.distributions.amax(dim=1)
            found[self.given.points.to(found.device)] = largest.to(found)
        return found

    def to(self, device: torch.device | str) -> Beliefs:
        """On a device; the prior stays where it is."""
        if self.given is None:
            return self
        g = self.given
        moved = Given(*(x.to(device) for x in (g.points, g.distributions, g.weights)))
        return replace(self, given=moved)

    def without(self, hidden: Tensor) -> Beliefs:
        """Without the labels of the points [n] bool; the prior stays."""
        if self.given is None:
            return self
        g, keep = self.given, ~hidden[self.given.points]
        kept = Given(g.points[keep], g.distributions[keep], g.weights[keep])
        return replace(self, given=kept)

    def grouped_whole(self, group: Tensor | None) -> Beliefs:
        """As `grouped` for labels that are each whole: a node has the largest weight of each."""
        plain = replace(self, given=None).grouped(group)
        if group is None or self.given is None:
            return self
        points, place = group[self.given.points].unique(return_inverse=True)
        own = self.given.distributions
        mass = own.new_zeros(len(points), own.shape[1])
        mass.scatter_reduce_(0, place[:, None].expand_as(own), own, "amax")
        return replace(plain, given=Given(points, mass, torch.ones(len(points))))

    def grouped(self, group: Tensor | None) -> Beliefs:
        """For nodes of which each stands for several points: means over a node's labelled points.

        Args:
            group: [n] int64, the node of each point; None where each is its own.
        """
        if group is None:
            return self
        prior = None if self.prior is None else replace(self.prior, group=group)
        if self.given is None:
            return replace(self, prior=prior)
        g = self.given
        points, place, counts = group[g.points].unique(return_inverse=True, return_counts=True)
        mass = g.weights.double()[:, None] * g.distributions.double()
        summed = mass.new_zeros(len(points), mass.shape[1]).index_add_(0, place, mass)
        weights = g.weights.new_zeros(len(points)).index_add_(0, place, g.weights) / counts
        shares = (summed / summed.sum(dim=1, keepdim=True)).float()
        return Beliefs(Given(points, shares, weights), prior)


PLAIN = Beliefs()


def best_labels(given: Given, n: int) -> Tensor:
    """[n] int64: the class of the largest share of each labelled point, -1 for the others."""
    labels = torch.full((n,), UNLABELED, device=given.points.device)
    labels[given.points] = given.distributions.argmax(dim=1)
    return labels


def is_soft(labels: Any) -> bool:
    """Whether labels are [n, c], a distribution for each point, and not one class for each."""
    if is_sparse(labels) or hasattr(labels, "ndim"):
        return labels.ndim == 2 and labels.shape[1] != 1
    try:
        return np.ndim(labels) == 2 and np.shape(labels)[1] != 1
    except ValueError:  # rows of different lengths
        return False


def to_beliefs(
    labels: Any,
    num_classes: int | None = None,
    weights: Any = None,
    prior: Any = None,
    prior_weight: float = 1.0,
) -> tuple[Tensor, int, Beliefs]:
    """Labels [n] (the largest share of a soft one, -1 where there is none), c, and the rest.

    Args:
        labels: [n] integers, -1 where there is none; or [n, c] shares of the classes at least 0 (a
            tensor, NumPy array or SciPy sparse matrix), a row of zeros where there is none.
        num_classes: by default as many as soft labels or the prior have columns, else the largest
            label plus one.
        weights: [n], what each label counts beside another; 0 leaves a label out. By default 1.
        prior: [n, c] scores at least 0.
        prior_weight: beta, at least 0.

    Raises:
        LabelError: a wrong shape, a negative share or weight, NaN or infinity, or no label left.
    """
    given = None
    if is_soft(labels):
        given = soft_given(labels)
        n, c = tuple(labels.shape) if hasattr(labels, "shape") else np.shape(labels)
        if num_classes not in (None, c):
            raise LabelError(f"Soft labels have {c} columns; found {num_classes} classes.")
        plain = best_labels(given, n)
    else:
        plain = to_labels(labels)
        n, c = len(plain), num_classes
        if c is None and prior is not None:
            c = _matrix(prior, "Prior scores").shape[-1]
            if (least := count_classes(plain)) > c:
                raise LabelError(f"Prior scores must be [{n}, {least}]; found [{n}, {c}].")
        c = count_classes(plain) if c is None else c
    if weights is not None:
        check_labels(plain, c, n)
        given = Given.from_labels(plain, c) if given is None else given
        given = _weighted(given, _numbers(weights, "Weights of labels", (n,)))
        plain = best_labels(given, n)
    held = None if prior is None else to_prior(prior, prior_weight, n, c)
    return plain, c, Beliefs(given, held)


def soft_given(labels: Any, normalize: bool = True) -> Given:
    """From [n, c] shares of the classes at least 0 (dense or sparse); a row of zeros has no label.

    Args:
        normalize: divide rows by their sums.

    Raises:
        LabelError: not a matrix, a negative share, NaN or infinity.
    """
    held = _matrix(labels, "Soft labels")
    _check_matrix(held, "Soft labels", held.shape)
    dense = held.toarray() if is_sparse(held) else held
    shares = torch.from_numpy(np.array(dense, dtype=np.float64))
    total = shares.sum(dim=1, keepdim=True)
    points = (total[:, 0] > 0).nonzero().squeeze(1)
    shares = shares[points] / total[points] if normalize else shares[points]
    return Given(points, shares.float(), torch.ones(len(points)))


def to_prior(scores: Any, weight: float, n: int, num_classes: int) -> Prior:
    """Prior scores, checked.

    Args:
        scores: [n, c] at least 0 (a tensor, NumPy array or SciPy sparse matrix).
        weight: beta, at least 0.

    Raises:
        LabelError: a wrong shape, a negative score or weight, NaN or infinity.
    """
    if not 0 <= weight < np.inf:
        raise LabelError(f"The weight of prior scores must be at least 0; found {weight}.")
    held = _matrix(scores, "Prior scores")
    _check_matrix(held, "Prior scores", (n, num_classes))
    if is_sparse(held):
        held = held.tocsc()  # read by columns
    return Prior(held, float(weight))


def _weighted(given: Given, weights: Tensor) -> Given:
    """With weights [n] times its own; labels with 0 are left out."""
    own = given.weights * weights.to(given.weights)[given.points]
    keep = own > 0
    return Given(given.points[keep], given.distributions[keep], own[keep])


def _matrix(x: Any, what: str) -> Any:
    """As a NumPy array or a SciPy sparse matrix, without a copy where it is one."""
    if is_sparse(x):
        return x
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        if x.layout != torch.strided:
            x = x.to_sparse_coo().coalesce()
            import scipy.sparse as sp

            return sp.coo_array((x.values().numpy(), tuple(x.indices().numpy())), shape=x.shape)
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    try:
        array = np.asarray(x)
    except ValueError as reason:  # rows of different lengths
        raise LabelError(f"{what} must be an array of numbers: {reason}") from None
    if array.dtype.kind not in "biuf":
        raise LabelError(f"{what} must be numbers; found {array.dtype}.")
    return array


def _check_matrix(x: Any, what: str, shape: tuple[int, ...]) -> None:
    if len(x.shape) != 2 or tuple(x.shape) != tuple(shape):
        raise LabelError(f"{what} must be {list(shape)}; found {list(x.shape)}.")
    if is_sparse(x):
        _check_numbers(x.tocoo().data, what)
        return
    for rows in row_slices(len(x), max(1, x.shape[1]), BLOCK_ENTRIES):
        _check_numbers(x[rows], what)


def _numbers(x: Any, what: str, shape: tuple[int, ...]) -> Tensor:
    array = _matrix(x, what)
    if array.shape != shape:
        raise LabelError(f"{what} must be {list(shape)}; found {list(array.shape)}.")
    _check_numbers(array, what)
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _check_numbers(x: np.ndarray, what: str) -> None:
    if x.size == 0 or x.dtype.kind == "b":
        return
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high < np.inf):  # NaN is neither
        found = f"{low:g}" if np.isfinite(low + high) else "NaN or infinity"
        raise LabelError(f"{what} must be finite and at least 0; found {found}.")
