"""Pseudo-labels: the known failures of other systems, and the method's constants."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from dlp_plugins.errors import (
    ComponentError,
    ConvergenceError,
    ConvergenceWarning,
    DlpError,
    FeatureError,
    LabelError,
    ParameterError,
)
from dlp_plugins.graph import Graph, Neighbors
from dlp_plugins.graphs import GraphBuilder
from dlp_plugins.graphs._blockwise import search_blockwise
from dlp_plugins.propagation import (
    Convergence,
    Propagator,
    PseudoLabels,
    label_matrix,
    propagate,
)
from dlp_plugins.registry import solvers


def clusters(per_class: int = 20, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Descriptors around one axis each, and their true classes."""
    random = torch.Generator().manual_seed(seed)
    truth = torch.arange(classes).repeat_interleave(per_class)
    noise = 0.2 * torch.randn(len(truth), classes, generator=random)
    return torch.eye(classes)[truth] + noise, truth


def some(truth: Tensor, every: int = 10) -> Tensor:
    labels = torch.full_like(truth, -1)
    labels[::every] = truth[::every]
    return labels


def graph_of(edges: list[tuple[int, int]], n: int) -> Graph:
    w = np.zeros((n, n))
    for i, j in edges:
        w[i, j] = w[j, i] = 1
    return Graph.from_affinity(sp.csr_matrix(w))


# 0-1-2-3 with a label at each end, 4-5 without any, 6 isolated
DISCONNECTED = graph_of([(0, 1), (1, 2), (2, 3), (4, 5)], 7)
LABELS = torch.tensor([0, -1, -1, 1, -1, -1, -1])


def spread(classes: int = 2, **parameters: object) -> PseudoLabels:
    settings = {"max_iterations": 50, **parameters}
    return Propagator.default(**settings).spread(DISCONNECTED, LABELS, classes)


# -- known failures of others ---------------------------------------------------------------------


def test_a_component_without_labels_poisons_nobody() -> None:
    """An all-zero row has no entropy; elsewhere its NaN becomes every weight (authors' code)."""
    pseudo = spread()
    assert torch.isfinite(pseudo.weights).all()
    assert torch.isfinite(pseudo.certainty).all()
    assert pseudo.certainty[4:].tolist() == [0, 0, 0]
    assert pseudo.weights[4:].tolist() == [0, 0, 0]
    assert pseudo.certainty[1] == 1  # the largest certainty is that of a reached point


def test_an_unreachable_row_does_not_take_the_first_class() -> None:
    """scikit-learn gives it class 0 in silence; here it has no label, and the health counts it."""
    pseudo = spread()
    assert pseudo.labels.tolist() == [0, 0, 1, 1, -1, -1, -1]
    assert pseudo.health.unreached == 3
    assert pseudo.health.unlabeled_components == 2


def test_an_unreached_row_stays_so_after_a_warm_start() -> None:
    """Last epoch's scores reached it; this epoch's graph does not."""
    propagator = Propagator.default(max_iterations=50)
    warm = propagator.spread(DISCONNECTED, LABELS, 2, torch.rand(7, 2))
    assert warm.labels.tolist() == spread().labels.tolist()
    # The two ends are nearly balanced: certainty divides small differences by small ones.
    torch.testing.assert_close(warm.certainty, spread().certainty, rtol=0, atol=0.01)


def test_a_class_without_a_labelled_example_divides_by_nothing() -> None:
    pseudo = spread(classes=3)
    assert torch.isfinite(pseudo.weights).all()
    assert not pseudo.probabilities[:, 2].any()
    assert pseudo.class_weights[2] == 0
    assert pseudo.health.empty_classes == 1


def test_stopping_short_warns() -> None:
    descriptors, truth = clusters()
    with pytest.warns(
        ConvergenceWarning, match=r"2 iterations, relative residual .* raise max_iterations"
    ):
        pseudo = propagate(descriptors, some(truth), k=5, max_iterations=2)
    assert not pseudo.health.converged
    assert pseudo.health.iterations == 2
    assert pseudo.health.residual is not None
    assert pseudo.health.residual > 1e-3


def test_stopping_short_raises_where_asked() -> None:
    descriptors, truth = clusters()
    with pytest.raises(ConvergenceError, match="raise max_iterations"):
        propagate(descriptors, some(truth), k=5, max_iterations=2, on_unconverged="raise")


def test_convergence_is_silent() -> None:
    descriptors, truth = clusters()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pseudo = propagate(descriptors, some(truth), k=5, max_iterations=200, tolerance=1e-5)
        propagate(descriptors, some(truth), k=5, max_iterations=2, on_unconverged="ignore")
    assert pseudo.health.converged
    assert pseudo.health.residual is not None
    assert pseudo.health.residual <= 1e-5


def test_what_float32_cannot_reach_is_reported_apart_from_convergence() -> None:
    """Near alpha = 1 residuals of 1e-3 and more counted as converged."""
    chain = graph_of([(i, i + 1) for i in range(49)], 50)
    labels = torch.where(torch.arange(50) == 0, 0, -1)

    def convergence(alpha: float) -> Convergence:
        propagator = Propagator.default(alpha=alpha, max_iterations=1000)
        return propagator.spread(chain, labels, 1).health.convergence

    easy, rounded, hopeless = map(convergence, (0.9, 0.9999, 0.9999999))
    assert easy.converged
    assert not easy.limited_by_precision
    assert rounded.limited_by_precision
    assert not rounded.converged
    assert rounded.settled
    assert rounded.describe().endswith("(float32 allows no less)")
    assert hopeless.limited_by_precision
    assert not hopeless.settled
    assert "lower alpha" in hopeless.describe()
    assert Convergence.worst([easy, rounded]).limited_by_precision
    unsolved = Convergence(0.5, 3, False)
    assert not Convergence.worst([easy, rounded, unsolved]).limited_by_precision
    assert not Convergence.worst([easy, easy]).limited_by_precision


# -- the method -----------------------------------------------------------------------------------


def test_every_step_by_hand() -> None:
    """Graph, solve, probabilities, certainty and balance in dense float64, from the equations."""
    descriptors, truth = clusters(per_class=15)
    labels, n, c, k, alpha, gamma = some(truth, 9), 45, 3, 4, 0.9, 3
    labels[truth == 2] = -1
    labels[40] = 2
    v = descriptors.double().numpy()
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    s = v @ v.T
    np.fill_diagonal(s, -np.inf)
    a = np.zeros((n, n))
    for i in range(n):
        for j in np.argsort(-s[i])[:k]:
            a[i, j] = max(s[i, j], 0) ** gamma
    w = a + a.T
    wn = w / np.sqrt(np.outer(w.sum(1), w.sum(1)))
    y = np.zeros((n, c))
    for i in range(n):
        if labels[i] >= 0:
            y[i, labels[i]] = 1 / (labels == labels[i]).sum()
    z = np.maximum(np.linalg.solve(np.eye(n) - alpha * wn, y), 0)
    p = z / z.sum(1, keepdims=True)
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(1)
    certainty = 1 - entropy / math.log(c)
    own = labels.numpy() >= 0
    certainty /= certainty[~own].max()
    certainty[own] = 1
    best = np.where(own, labels, p.argmax(1))
    balance = (n / c) / np.bincount(best, minlength=c)

    pseudo = propagate(descriptors, labels, k=k, alpha=alpha, gamma=gamma, max_iterations=200)
    assert pseudo.labels.tolist() == best.tolist()
    np.testing.assert_allclose(pseudo.probabilities, p, atol=1e-4)
    np.testing.assert_allclose(pseudo.certainty, certainty, atol=1e-4)
    np.testing.assert_allclose(pseudo.class_weights, balance, rtol=1e-5)
    np.testing.assert_allclose(pseudo.weights, certainty * balance[best], atol=1e-3)


def test_labelled_points_keep_their_label_and_weigh_1() -> None:
    descriptors, truth = clusters()
    labels = some(truth)
    labels[0] = 2  # against all its neighbours
    pseudo = propagate(descriptors, labels, k=5, max_iterations=200)
    given = labels >= 0
    assert torch.equal(pseudo.labels[given], labels[given])
    assert (pseudo.certainty[given] == 1).all()
    assert pseudo.certainty[~given].max() == 1
    assert pseudo.certainty.min() >= 0


def test_all_points_labelled() -> None:
    descriptors, truth = clusters()
    pseudo = propagate(descriptors, truth, k=5, max_iterations=200)
    assert torch.equal(pseudo.labels, truth)
    assert (pseudo.weights == 1).all()


def test_one_class_alone() -> None:
    descriptors, _ = clusters()
    labels = torch.full((60,), -1)
    labels[0] = 0
    pseudo = propagate(descriptors, labels, k=10, max_iterations=200)
    assert (pseudo.labels <= 0).all()
    assert torch.isfinite(pseudo.weights).all()


def test_label_matrix_divides_each_column_by_its_labels() -> None:
    y = label_matrix(torch.tensor([0, 1, -1, 0, 0]), 3)
    third = 1 / 3
    expected = [[third, 0, 0], [0, 1, 0], [0, 0, 0], [third, 0, 0], [third, 0, 0]]
    torch.testing.assert_close(y, torch.tensor(expected))


@pytest.mark.parametrize("name", ["cg", "power", "chebyshev", "closed_form", "poisson", "amg"])
@pytest.mark.filterwarnings("ignore::dlp_plugins.errors.ConvergenceWarning")
def test_clusters_are_found_whatever_the_solver(name: str) -> None:
    if missing := solvers.get(name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    descriptors, truth = clusters(per_class=40)
    default = Propagator.default(k=8)
    propagator = Propagator(**{**vars(default), "solver": solvers.build(name)})
    pseudo = propagate(descriptors, some(truth, 13), propagator=propagator)
    assert (pseudo.labels == truth).float().mean() > 0.95


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda v, y: (v.fill_(math.nan), y), FeatureError, "60 of 60 descriptors hold NaN"),
        (lambda v, y: (v[:, :0], y), FeatureError, r"must be \[n, d\]"),
        (lambda v, y: (v, y[:-1]), LabelError, "60 points but labels of shape"),
        (lambda v, y: (v, y - 5), LabelError, r"Label -\d of point 0 is outside 0\.\."),
        (lambda v, y: (v, y * 0 - 1), LabelError, "needs at least one"),
        (lambda v, y: (v, y.float()), LabelError, "must be integers"),
    ],
)
def test_bad_input(change: object, error: type[Exception], sentence: str) -> None:
    descriptors, truth = clusters()
    v, y = change(descriptors, some(truth))  # type: ignore[operator]
    with pytest.raises(error, match=sentence):
        propagate(v, y, num_classes=3)


# -- what a caller may give -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        lambda y: y.numpy(),
        lambda y: y.tolist(),
        lambda y: y.numpy().astype(np.int8),
        lambda y: y.numpy().astype(">i4")[::-1][::-1],
        *(lambda y, t=t: y.to(t) for t in (torch.int8, torch.int16, torch.int32)),
    ],
)
def test_labels_of_every_integer_type(convert: Callable[[Tensor], Any]) -> None:
    descriptors, truth = clusters()
    labels = some(truth)
    expected = propagate(descriptors, labels, k=5).labels
    assert torch.equal(propagate(descriptors, convert(labels), k=5).labels, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, bool])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_labels_of_types_without_a_sign(dtype: type, library: str) -> None:
    descriptors, truth = clusters(classes=2)
    given = truth.numpy().astype(dtype)
    pseudo = propagate(descriptors, torch.from_numpy(given) if library == "torch" else given, k=5)
    assert torch.equal(pseudo.labels, truth)


def test_descriptors_of_every_kind() -> None:
    descriptors, truth = clusters()
    labels = some(truth)
    expected = propagate(descriptors, labels, k=5).labels
    frozen = descriptors.numpy().copy()
    frozen.flags.writeable = False
    for x in (
        descriptors.numpy(), descriptors.tolist(), frozen, descriptors.numpy()[::-1][::-1],
        descriptors.clone().requires_grad_(), descriptors.double(),
        descriptors.numpy().astype(">f8"),
    ):  # fmt: skip
        pseudo = propagate(x, labels, k=5)
        assert torch.equal(pseudo.labels, expected)
        assert not pseudo.probabilities.requires_grad
    whole = (100 * descriptors).round()
    for dtype in (torch.int16, torch.int64):
        assert torch.equal(
            propagate(whole.to(dtype), labels, k=5).labels, propagate(whole, labels, k=5).labels
        )


@pytest.mark.parametrize(
    ("parameter", "sentence"),
    [
        ({"gamma": math.nan}, "gamma: found nan; allowed: a finite number"),
        ({"tolerance": 2}, "tolerance: found 2; allowed: less than 1"),
        ({"alpha": 1.5}, "alpha: found 1.5; allowed: less than 1"),
        ({"k": -1}, "k: found -1; allowed: greater than or equal to 1"),
        ({"k": 2.5}, "k: found 2.5; allowed: a valid integer"),
        ({"num_classes": 2.0}, "num_classes must be a whole number"),
    ],
)
def test_parameters_out_of_range(parameter: dict[str, Any], sentence: str) -> None:
    descriptors, truth = clusters()
    with pytest.raises(DlpError, match=sentence):
        propagate(descriptors, some(truth), **parameter)


def test_numpy_numbers_are_parameters() -> None:
    descriptors, truth = clusters()
    pseudo = propagate(descriptors, some(truth), np.int64(3), k=np.int64(5), alpha=np.float32(0.5))
    assert pseudo.probabilities.shape == (60, 3)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (
            [10**9, 0, -1, -1],
            r"Label 1000000000 of point 0 makes 1,000,000,001 classes, of which 2",
        ),
        (np.array([2**63 + 1, 0, 1, 1], np.uint64), "of point 0 is too large"),
        ([[0, 1, -1, -1]], "Soft labels must be finite and at least 0; found -1"),
        ([[[0, 1]]], r"must be \[n\]"),
        ([[0, 1], [1]], "must be an array of numbers"),
        (["a", "b", "a", "b"], "must be numbers"),
        ([0.0, 1.0, -1.0, -1.0], "must be integers"),
        ([], "4 points but labels"),
    ],
)
def test_labels_that_are_refused(labels: Any, sentence: str) -> None:
    with pytest.raises(LabelError, match=sentence):
        propagate(torch.eye(4), labels)


def test_a_large_label_is_a_class_where_the_number_of_classes_says_so() -> None:
    pseudo = propagate(torch.eye(4) + 0.1, [5000, -1, 2, 2], num_classes=5001, k=2)
    assert pseudo.labels.tolist()[0] == 5000
    with pytest.raises(LabelError, match="give num_classes"):
        propagate(torch.eye(4) + 0.1, [5000, -1, 2, 2], k=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e30, 1e-30, 3e-43])
def test_the_length_of_a_row_does_not_matter(scale: float, dtype: torch.dtype) -> None:
    """Squares of such rows leave float32: they were taken for zero vectors."""
    descriptors, truth = clusters()
    if scale == 3e-43:  # subnormal: few digits are left
        descriptors = (10 * descriptors).round()
    scaled = descriptors.to(dtype).clone()
    scaled[::2] *= scale
    expected = propagate(descriptors, some(truth), k=5)
    pseudo = propagate(scaled, some(truth), k=5)
    assert torch.equal(pseudo.labels, expected.labels)
    assert pseudo.health.unreached == 0
    if scale > 1e-40:
        torch.testing.assert_close(pseudo.certainty, expected.certainty, atol=1e-3, rtol=0)


def test_parameters_beside_a_propagator_are_refused() -> None:
    with pytest.raises(TypeError, match="or a propagator"):
        propagate(torch.eye(3), [0, 1, -1], propagator=Propagator.default(), k=2)


# -- whatever mode the caller is in ---------------------------------------------------------------


def test_autocast_and_gradients_stay_outside() -> None:
    """In bfloat16 the search finds other neighbours, and the residual stalls at 1e-2."""
    random = torch.Generator().manual_seed(0)
    descriptors = torch.rand(400, 64, generator=random)
    labels = torch.where(torch.arange(400) < 40, torch.arange(400) % 4, -1)
    plain = propagate(descriptors, labels, k=10, max_iterations=100)
    weight = torch.ones(64, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (descriptors @ descriptors.T).dtype == torch.bfloat16  # autocast is on
        pseudo = propagate(descriptors * weight, labels, k=10, max_iterations=100)
        again = Propagator.default(max_iterations=100, graph=Blocks(k=10))(
            descriptors * weight, labels, 4
        )
    for found in (pseudo, again):
        torch.testing.assert_close(found.scores, plain.scores, rtol=1e-4, atol=1e-6)
        assert not found.probabilities.requires_grad
        assert found.health.convergence.settled


class Blocks(GraphBuilder):
    """Exact search by torch's product, which autocast would compute in bfloat16."""

    def __init__(self, k: int) -> None:
        self.k = k

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        return search_blockwise(descriptors, self.k)


# -- what iterations did not reach yet ------------------------------------------------------------


def test_points_not_reached_yet_are_counted_apart() -> None:
    """A chain of 100 with a label at one end, 4 iterations; and 5 points without any label."""
    chain = graph_of([(i, i + 1) for i in range(99)] + [(i, i + 1) for i in range(100, 104)], 105)
    labels = torch.full((105,), -1)
    labels[0] = 0
    health = Propagator.default(max_iterations=4).spread(chain, labels, 1).health
    assert health.unreached == 5
    assert health.unlabeled_components == 1
    assert health.not_yet_reached == 99 - 3  # the first iteration only scales the labels
    full = Propagator.default(solver="closed_form").spread(chain, labels, 1).health
    assert (full.unreached, full.not_yet_reached) == (5, 0)


# -- certainty is divided by the largest ----------------------------------------------------------


def test_certainty_over_all_points_as_the_authors_divide_it() -> None:
    """Labelled points are the most certain: over the unlabelled alone certainties are larger."""
    descriptors = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    labels = some(clusters()[1])
    options = {"k": 5, "max_iterations": 200}
    own = Propagator.default(**options)
    theirs = replace(own, certainty_scale="all")
    p = own(descriptors, labels, 3).probabilities
    raw = own.weighter.certainty(p)
    unlabeled = labels < 0
    certainty = theirs(descriptors, labels, 3).certainty
    torch.testing.assert_close(certainty[unlabeled], (raw / raw.max())[unlabeled])
    assert (certainty[~unlabeled] == 1).all()
    assert own(descriptors, labels, 3).certainty[unlabeled].max() == 1
    assert certainty[unlabeled].max() < 1


# -- what components return -----------------------------------------------------------------------


class Changed:
    """A component whose one method returns something else than it should."""

    def __init__(self, component: Any, method: str, change: Callable[[Any], Any]) -> None:
        original = getattr(component, method)
        self.__class__ = type("Faulty", (Changed, type(component)), {})
        self.__dict__.update(vars(component))
        self.__dict__[method] = lambda *arguments: change(original(*arguments))


FAULTS: dict[str, tuple[str, str, Callable[[Any], Any], str]] = {
    "neighbours out of range": (
        "graph", "neighbors", lambda r: replace(r, indices=r.indices + 60), "indices must be -1..59"
    ),
    "neighbours of another type": ("graph", "neighbors", lambda r: r.indices, "must return Neigh"),
    "an order without all points": (
        "graph", "neighbors", lambda r: replace(r, order=torch.zeros(60).long()), "order must list"
    ),
    "affinity of another shape": (
        "affinity", "weights", lambda r: r[:, 1:], r"affinities must be \[60, 5\]; found \[60, 4\]"
    ),
    "negative affinity": ("affinity", "weights", lambda r: -r, "affinities must be at least 0"),
    "scores of another shape": (
        "solver", "solve", lambda r: replace(r, scores=r.scores[1:]), r"scores must be \[60, 3\]"
    ),
    "scores with NaN": (
        "solver", "solve", lambda r: replace(r, scores=r.scores * math.nan), "must be finite"
    ),
    "probabilities": ("normalizer", "apply", lambda r: r[:, :1], "probabilities must be"),
    "certainty of another shape": ("weighter", "certainty", lambda r: r[:, None], "certainties"),
    "certainty above 1": ("weighter", "certainty", lambda r: 2 + r, "must be within 0..1"),
    "an array": ("weighter", "certainty", lambda r: r.numpy(), "must be a tensor; found ndarray"),
    "class weights": ("balancer", "class_weights", lambda r: r[:2], "class weights must be"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_output_names_its_component(fault: str) -> None:
    key, method, change, sentence = FAULTS[fault]
    descriptors, truth = clusters()
    default = Propagator.default(k=5)
    faulty = Changed(getattr(default, key), method, change)
    with pytest.raises(ComponentError, match=f"Faulty: .*{sentence}"):
        replace(default, **{key: faulty})(descriptors, some(truth), 3)


def test_a_missing_neighbour_may_have_any_similarity() -> None:
    descriptors, truth = clusters()
    default, fewer = Propagator.default(k=5), {"indices": -1, "similarities": -math.inf}
    graph = Changed(
        default.graph, "neighbors",
        lambda r: replace(r, **{name: getattr(r, name).index_fill(1, torch.tensor([0]), value)
                                for name, value in fewer.items()}),
    )  # fmt: skip
    pseudo = replace(default, graph=graph)(descriptors, some(truth), 3)
    assert torch.isfinite(pseudo.weights).all()


@pytest.mark.parametrize(
    ("key", "method", "change"),
    [
        ("affinity", "weights", lambda r: r.double()),
        ("solver", "solve", lambda r: replace(r, scores=r.scores.double())),
        ("normalizer", "apply", lambda r: r.double()),
        ("weighter", "certainty", lambda r: r.double()),
        ("balancer", "class_weights", lambda r: r.double()),
    ],
)
def test_other_precisions_become_float32_at_the_boundary(
    key: str, method: str, change: Any
) -> None:
    descriptors, truth = clusters()
    default = Propagator.default(k=5)
    other = replace(default, **{key: Changed(getattr(default, key), method, change)})
    pseudo, expected = (p(descriptors, some(truth), 3) for p in (other, default))
    assert torch.equal(pseudo.labels, expected.labels)
    for name in ("certainty", "class_weights", "probabilities", "scores", "weights"):
        assert getattr(pseudo, name).dtype == torch.float32


def test_class_shares_that_no_component_takes_are_refused():
    x, labels = np.random.default_rng(0).normal(size=(30, 4)), np.full(30, -1)
    labels[:2] = [0, 1]
    with pytest.raises(ParameterError, match="class_shares has no effect"):
        propagate(x, labels, k=5, class_shares="labels")
    propagate(x, labels, k=5, class_shares="labels", normalizer="class_mass")


def test_embeddings_that_do_not_differ_get_labels():
    labels = np.full(40, -1)
    labels[:3] = [0, 1, 1]
    for x in (
        np.ones((40, 3)),
        np.c_[np.ones(40), 1e-9 * np.random.default_rng(0).normal(size=40)],
    ):
        found = propagate(x, labels, k=5, refiner="discriminant", transform="rescale")
        assert found.probabilities.isfinite().all()


def test_a_prior_with_too_few_columns_is_named():
    labels = np.arange(10)
    with pytest.raises(LabelError, match=r"Prior scores must be \[10, 10\]; found \[10, 9\]"):
        propagate(np.eye(10), labels, prior=np.ones((10, 9)))
