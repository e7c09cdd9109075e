"""Labels of all points that follow every answer: at once from the graph, refined a moment later.

Shapes: n points, m of them distinct (nodes of the graph), c classes.

G = (I - alpha Wn)^-1 is fixed and Z = G Y linear in Y, so a new label adds its column of G to its
class's sum: one solve of one column, whatever the number of labels. The refined probabilities need
all points at once and take longer; until they are there, those of before are corrected by what the
graph's own probabilities P say has changed: Q' ~ (Q + e) (P' + e) / (P + e), by rows.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings.clock import Clock
from dlp_plugins.graph import Graph
from dlp_plugins.inputs import UNLABELED
from dlp_plugins.propagation import Propagator, apply_given_labels, equal_shares
from dlp_plugins.propagation.class_shares import known_shares
from dlp_plugins.propagation.duplicates import Distinct, find_distinct
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.solvers._single_column import solve_column

TOLERANCE = 1e-6  # relative residual of a column: far points have small scores
FLOOR = 0.001  # e above: a class that was out of the question may come back


@dataclass(frozen=True)
class Space:
    """What stays the same however the labels change.

    descriptors: F [m, d], transformed.
    graph: Wn [m, m].
    """

    propagator: Propagator
    distinct: Distinct
    descriptors: Tensor
    graph: Graph

    @classmethod
    @full_precision()
    def of(cls, propagator: Propagator, descriptors: Tensor, clock: Clock) -> Self:
        """From unit rows [n, d]."""
        distinct = find_distinct(descriptors, propagator.graph.merges_duplicates)
        with clock.phase("transform"):
            f = propagator.apply_transform(distinct.select(descriptors))
        with clock.phase("neighbours"):
            neighbors = propagator.find_neighbors(f)
        with clock.phase("graph"):
            graph = propagator.assemble_graph(neighbors)
        propagator.solver.check_size(graph)
        return cls(propagator, distinct, f, graph)


@dataclass(frozen=True)
class View:
    """Labels and certainties of all points after some answer.

    version: how many changes of labels it includes.
    refined: how many of these the refined probabilities include.
    given: [n] int64, the labels people gave, -1 where there is none.
    labels: [n] int64, given or propagated; -1 where no label reaches.
    certainty: [n] float32; 1 for a labelled point.
    probabilities: [m, c] float32 of the nodes; 0 in the columns of classes without a label.
    sums: [m, c] float32, G times the indicators of the labelled nodes of each class.
    nodes: [m] int64, the nodes' labels.
    """

    version: int
    refined: int
    given: Tensor
    labels: Tensor
    certainty: Tensor
    probabilities: Tensor
    sums: Tensor
    nodes: Tensor

    @property
    def settled(self) -> bool:
        return self.version == self.refined


@dataclass(frozen=True)
class _Refined:
    """Q [m, c] of some version, and the graph's P [m, c] of the same."""

    version: int
    q: Tensor
    p: Tensor


class LiveLabels:
    """The current `View`, and how an answer changes it. May be used from several threads.

    Args:
        given: [n] int64, the labels known at the start, -1 where there is none.
    """

    def __init__(self, space: Space, given: Tensor, num_classes: int) -> None:
        self.space = space
        self._lock = threading.Lock()
        self._wn = space.graph.to_scipy()
        m = space.graph.num_nodes
        empty = torch.zeros(m, 0)
        self._refined = _Refined(0, empty, empty)
        nothing = torch.full((len(given),), UNLABELED)
        unlabeled = torch.full((m,), UNLABELED)
        self.view = View(0, 0, nothing, nothing, torch.zeros(len(given)), empty, empty, unlabeled)
        self.update(given, num_classes)
        self.refine()

    @full_precision()
    def update(self, given: Tensor, num_classes: int) -> View:
        """The labels after an answer, from one solve of a column for each class it concerns."""
        with self._lock:
            old = self.view
            nodes = self.space.distinct.labels(given)
            sums = self._sums(old, nodes, num_classes)
            p = self._graph_probabilities(sums, nodes)
            q = _corrected(self._refined, p)
            version = old.version + 1
            self.view = self._view(version, old.refined, given, nodes, q, p, sums)
            return self.view

    @full_precision()
    def refine(self) -> View:
        """Refined labels for the labels of now; as `dlp propagate` gives them for these labels.

        Answers may come meanwhile: then the result includes what they change, as `update` does.
        """
        seen = self.view
        c = seen.sums.shape[1]
        present, labels = among_present(seen.nodes, c)
        p = self._graph_probabilities(seen.sums, seen.nodes)
        q = p  # of one class there is nothing to refine
        if len(present) > 1:
            q = torch.zeros_like(p)
            found = self.space.propagator.spread(
                self.space.graph, labels, len(present), descriptors=self.space.descriptors
            )
            q[:, present] = found.probabilities
        with self._lock:
            self._refined = _Refined(seen.version, q, p)
            now = self.view
            if now.version != seen.version:
                p = self._graph_probabilities(now.sums, now.nodes)
                q = _corrected(self._refined, p)
            self.view = self._view(now.version, seen.version, now.given, now.nodes, q, p, now.sums)
            return self.view

    def _sums(self, old: View, nodes: Tensor, num_classes: int) -> Tensor:
        """G times the indicators of each class [m, c], from those of before."""
        sums = _widened(old.sums, num_classes).clone()
        changed = (nodes != old.nodes).nonzero().squeeze(1)
        before, after = old.nodes[changed], nodes[changed]
        lost = before[before >= 0].unique()
        won = after[after >= 0].unique()
        # a class that lost a label is solved again: taking a column away would leave its rounding
        again = lost
        more = won[~torch.isin(won, lost)]
        classes = torch.cat([again, more])
        if not len(classes):
            return sums
        b = np.zeros((len(nodes), len(classes)), dtype=np.float32)
        for column, j in enumerate(classes.tolist()):
            members = nodes == j
            if column >= len(again):
                members &= old.nodes != j
            b[members.numpy(), column] = 1
        alpha = self.space.propagator.alpha
        x = torch.from_numpy(
            np.column_stack([solve_column(self._wn, alpha, v, TOLERANCE) for v in b.T.copy()])
        )
        sums[:, again] = x[:, : len(again)]
        sums[:, more] += x[:, len(again) :]
        return sums

    def _graph_probabilities(self, sums: Tensor, nodes: Tensor) -> Tensor:
        """P [m, c] of the normalizer for Z = sums / labels per class; 0 for an absent class."""
        p = torch.zeros_like(sums)
        present, labels = among_present(nodes, sums.shape[1])
        if len(present):
            counts = torch.bincount(nodes[nodes >= 0], minlength=sums.shape[1])[present]
            z = sums[:, present] / counts
            rule = self.space.propagator.class_shares
            shares = known_shares(rule, labels, len(present))
            shares = equal_shares(len(present)) if shares is None else shares
            p[:, present] = self.space.propagator.normalize(z, labels, shares)
        return p

    def _view(
        self,
        version: int,
        refined: int,
        given: Tensor,
        nodes: Tensor,
        q: Tensor,
        p: Tensor,
        sums: Tensor,
    ) -> View:
        present = _present(nodes, q.shape[1])
        best, certainty = torch.full((len(q),), UNLABELED), torch.zeros(len(q))
        if len(present):
            best, certainty = self.space.propagator.best_class(q[:, present])
            best = torch.where(best >= 0, present[best], UNLABELED)
            certainty = torch.where(p.any(dim=1), certainty, 0.0)
            if len(present) == 1:
                certainty = torch.zeros_like(certainty)  # there is no other class to prefer
        best, certainty = apply_given_labels(
            best, certainty, nodes, self.space.propagator.certainty_scale
        )
        labels, certainty = (self.space.distinct.expand(x) for x in (best, certainty))
        own = given != UNLABELED
        return View(
            version,
            refined,
            given,
            torch.where(own, given, labels),
            torch.where(own, 1.0, certainty),
            q,
            sums,
            nodes,
        )


def _present(nodes: Tensor, num_classes: int) -> Tensor:
    """Classes that some node has a label of, ascending."""
    return torch.bincount(nodes[nodes >= 0], minlength=num_classes).nonzero().squeeze(1)


def among_present(nodes: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The classes that some node has a label of, and the labels [m] by their place among these."""
    present = _present(nodes, num_classes)
    number = torch.full((num_classes + 1,), UNLABELED)
    number[present] = torch.arange(len(present))
    return present, number[nodes]  # -1 is the last


def _widened(x: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, columns - x.shape[1]))


def _corrected(base: _Refined, p: Tensor) -> Tensor:
    """Q' [m, c] for the graph's P' = p; equal to P' where nothing was refined yet."""
    q, before = (_widened(x, p.shape[1]) for x in (base.q, base.p))
    if not q.any():
        return p
    q = (q + FLOOR) * (p + FLOOR) / (before + FLOOR)
    q[:, ~p.any(dim=0)] = 0  # a class without a label
    reached = p.any(dim=1) | base.q.any(dim=1)
    return torch.where(reached[:, None], q / q.sum(dim=1, keepdim=True), 0.0)
