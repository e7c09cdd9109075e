"""Poisson learning, for very few labels per class."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dlp_plugins.graph import Graph, read_host
from dlp_plugins.registry import solvers
from dlp_plugins.solvers._conjugate_gradient import iterate
from dlp_plugins.solvers._local_order import in_local_order
from dlp_plugins.solvers.contract import (
    MaxIterations,
    Solution,
    Solver,
    Tolerance,
    column_norms,
    components_on,
    relative_residual,
    usable_guess,
)

CPU = torch.device("cpu")
SAME = 1e-6  # share of a label by which equal ones may differ from their mean


@solvers.register("poisson")
@dataclass(frozen=True)
class Poisson(Solver):
    """L u = sum_j (y_j - ybar) delta_j with L = D - W (Calder et al., ICML 2020, eq. 2.2).

    Labels are sources and sinks of a flow, where other solvers keep them as values; so scores stay
    informative at one label per class. There is no alpha. In each connected component, ybar is the
    mean of the labelled rows, and u has mean 0 weighted by degree, as in the paper. Columns of Y
    are divided by their number of labels: the paper's rescaling for classes of equal size.

    Departures, so that clamping at 0 and dividing by the row's sum gives probabilities: the mean of
    |u| over a component is added to the scores of the classes that are labelled in it; this one
    number changes no argmax and makes a node without preference uniform. A component whose labelled
    rows are all the same, as with one class only, where u is 0, takes ybar. A component without
    labels keeps rows of zeros, and a class without a label in a component keeps a 0 there.

    Solved as (I - Wn) x = D^(-1/2) F, u = D^(-1/2) x, by conjugate gradient; `residual` is that
    system's. It is singular along D^(1/2) 1, which the centring removes.
    """

    max_iterations: MaxIterations = 100
    tolerance: Tolerance = 1e-4
    columnwise = False
    vectors = 9

    @in_local_order
    def solve(self, state: Graph, labels: Tensor, initial: Tensor | None = None) -> Solution:
        component, count = components_on(state, labels.device)
        root, inverse = _roots(state.degree)
        sources, means = centered_sources(labels, component, count)
        b = inverse * sources
        guess = None if initial is None else root * usable_guess(state, labels, initial)
        goal = self.tolerance * column_norms(b)
        x, counts = iterate(state, 1.0, b, guess, goal, self.max_iterations)
        scores = _anchor(inverse * x, state.degree, component, sources, means)
        flow = root * scores
        residual = relative_residual(state, 1.0, flow, b)
        solution = Solution.judged(flow, int(read_host(counts).max()), residual, self.tolerance, b)
        return replace(solution, scores=scores)

    def system(self, graph: Graph, labels: Tensor) -> tuple[Tensor, Tensor]:
        root, inverse = _roots(graph.degree.double().cpu())
        wn = torch.from_numpy(graph.to_scipy().toarray()).double()
        sources, _ = centered_sources(labels.double().cpu(), *components_on(graph, CPU))
        return (torch.eye(graph.num_nodes, dtype=torch.float64) - wn) * root.T, inverse * sources

    def oracle(self, graph: Graph, labels: Tensor) -> Tensor:
        sources, means = centered_sources(labels.double().cpu(), *components_on(graph, CPU))
        degree = graph.degree.double().cpu()
        root, _ = _roots(degree)
        laplacian = root * self.system(graph, labels)[0]
        u = torch.linalg.pinv(laplacian, rtol=1e-6, hermitian=True) @ sources
        return _anchor(u, degree, graph.components, sources, means)


QUICK = Poisson(max_iterations=100, tolerance=1e-3)  # where other solvers start


def _roots(degree: Tensor) -> tuple[Tensor, Tensor]:
    """D^(1/2) and D^(-1/2) as columns [n, 1]; 0 for a node without edges."""
    root = degree.sqrt()[:, None]
    return root, torch.where(root > 0, 1 / root, 0.0)


def centered_sources(labels: Tensor, component: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """F [n, c], which sums to 0 over every component, and ybar of each component [m, c].

    Where all labelled rows of a component are the same but for rounding, F is 0.
    """
    labeled = labels.any(dim=1, keepdim=True)
    means = labels.new_zeros(count, labels.shape[1]).index_add_(0, component, labels)
    counts = labels.new_zeros(count, 1).index_add_(0, component, labeled.to(labels))
    means /= counts.clamp(min=1)
    sources = torch.where(labeled, labels - means[component], 0.0)
    other = (sources.abs() > SAME * means[component]).any(dim=1, keepdim=True)
    others = labels.new_zeros(count, 1).index_add_(0, component, other.to(labels))
    return torch.where(others[component] > 0, sources, 0.0), means


def _anchor(u: Tensor, degree: Tensor, component: Tensor, sources: Tensor, means: Tensor) -> Tensor:
    """Choose the constant for each component and class, which L leaves open."""
    volume = degree.new_zeros(len(means)).index_add_(0, component, degree)
    volume = torch.where(volume > 0, volume, 1.0)[:, None]  # a component of one node has u = 0
    present = means > 0
    classes = present.sum(dim=1, keepdim=True)
    center = torch.zeros_like(means).index_add_(0, component, degree[:, None] * u) / volume
    u = u - center[component]
    size = torch.zeros_like(means).index_add_(0, component, degree[:, None] * u.abs()) / volume
    offset = present * size.sum(dim=1, keepdim=True) / classes.clamp(min=1)
    u += offset[component]
    flow = means.new_zeros(len(means), 1).index_add_(0, component, sources.abs().sum(1, True))
    u = torch.where((flow > 0)[component], u, means[component])
    # Rounding leaves traces of the centring where the answer is 0.
    return u.mul_(present[component])
