"""A propagation that also labels points that were not part of it.

Shapes: n points, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_plugins.embeddings._more_points import extend_neighbors
from dlp_plugins.embeddings.audit import Audit, audit_labels
from dlp_plugins.embeddings.index import Index
from dlp_plugins.embeddings.robust import trusted_beliefs
from dlp_plugins.embeddings.selection import check_request, chosen_from
from dlp_plugins.graph import Neighbors
from dlp_plugins.inputs import UNLABELED, to_descriptors, to_labels, unit_rows
from dlp_plugins.propagation import Health, Propagator, equal_shares, label_matrix
from dlp_plugins.propagation.beliefs import PLAIN, Beliefs
from dlp_plugins.propagation.calibration import Calibration
from dlp_plugins.propagation.class_shares import known_shares
from dlp_plugins.propagation.comparison import Comparison, Method, compare, methods
from dlp_plugins.propagation.duplicates import Distinct, find_distinct
from dlp_plugins.propagation.propagator import full_precision
from dlp_plugins.refiners.none import NoRefiner
from dlp_plugins.selectors.contract import Pool, Selector


@dataclass(frozen=True)
class FittedPropagation:
    """What was found for the points of a propagation, and what new points need of it.

    Points with the same descriptor are one point of the graph and share what it gets.

    labels: [n] int64, -1 where there is none. certainty: [n] float32. reached: [n] bool.
    probabilities: [n, c] float64. class_shares: [c] float64.
    health: of the distinct points.
    comparison: of the default with other methods, where that was asked for.
    index: labels new points.
    plain: no label has a weight or is soft, and there is no prior; `extended` needs that.
    probability, calibration, unknown: as of `PseudoLabels`, [n]; None where not asked for.
    """

    labels: np.ndarray
    certainty: np.ndarray
    reached: np.ndarray
    probabilities: np.ndarray
    class_shares: np.ndarray
    health: Health
    index: Index
    _distinct: Distinct
    _known: Tensor
    comparison: Comparison | None
    _given: Tensor
    _scores: Tensor
    plain: bool = True
    probability: np.ndarray | None = None
    calibration: Calibration | None = None
    unknown: np.ndarray | None = None
    _beliefs: Beliefs = PLAIN

    @classmethod
    @full_precision()
    def of(
        cls,
        propagator: Propagator,
        x: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        start: Any = None,
        auto: bool = False,
        robust: bool = False,
        beliefs: Beliefs = PLAIN,
        calibrated: bool = False,
        unknown: bool = False,
    ) -> FittedPropagation:
        """Of descriptors x [n, d] and labels [n] int64, -1 where there is none.

        The rest is as `propagate_chunked` takes it; `robust` goes with neither `start` nor `auto`.
        """
        rows, given = to_descriptors(x), to_labels(labels)
        distinct = find_distinct(unit_rows(rows), propagator.graph.merges_duplicates)
        if len(distinct.points) < 2:  # a new point needs neighbours
            distinct = Distinct(torch.arange(len(rows)), None)
        rows, known = distinct.select(rows), distinct.labels(given)
        nodes = beliefs.grouped(distinct.group)
        known = nodes.labels(known)
        f, total = propagator.fit_transform(rows)
        neighbors = propagator.find_neighbors(f)
        graph = propagator.assemble_graph(neighbors)
        method, comparison = Method("default", propagator, start), None
        if auto:
            comparison = compare(methods(propagator, start), graph, f, known, num_classes, nodes)
            method = comparison.chosen
        made, nodes = method.propagator, method.beliefs(f, nodes)
        told = beliefs
        if robust:
            alpha = propagator.alpha
            beliefs = trusted_beliefs(graph, given, num_classes, distinct, beliefs, alpha)
            nodes = beliefs.grouped(distinct.group)
            known = nodes.labels(known)
        found = made.spread(graph, known, num_classes, descriptors=f, beliefs=nodes)
        found = made.assess(found, graph, known, f, nodes, calibrated, unknown)
        own = given != UNLABELED
        assert found.class_shares is not None  # as labels were spread
        q = found.probabilities
        assert found.scores is not None
        certainty = beliefs.given_shares(given, distinct.expand(found.certainty))
        probability, score = found.probability, found.unknown
        if probability is not None:
            probability = beliefs.given_shares(given, distinct.expand(probability))
        index = Index.of(method.propagator, total, f, neighbors, q, found, known, found.classifier)
        return cls(
            torch.where(own, given, distinct.expand(found.labels)).numpy(),
            certainty.numpy(),
            distinct.expand(found.reached).numpy(),
            distinct.expand(q.double()).numpy(),
            found.class_shares.double().numpy(),
            found.health,
            index,
            distinct,
            known,
            comparison,
            given,
            found.scores,
            beliefs.given is None and beliefs.prior is None,
            None if probability is None else probability.numpy(),
            found.calibration,
            None if score is None else distinct.expand(score).numpy(),
            told,
        )

    @full_precision()
    def extended(
        self,
        x: np.ndarray | None,
        labels: np.ndarray,
        num_classes: int,
        relabeled: np.ndarray | None = None,
    ) -> FittedPropagation:
        """With more points: descriptors x [b, d], labels [b], classes after the old ones.

        Neighbour lists are repaired, the solver starts from the last scores and the refiner from
        the last probabilities; the transform's statistics stay those of the first points.

        Args:
            x: None without more points; `labels` is then empty.
            relabeled: [n] labels of the old points, -1 where they stay what they are. The refiner
                then starts from the new scores, as in a fit.
        """
        index = self.index
        propagator, old = index.propagator, len(index.points)
        every = torch.from_numpy(index.points)
        if x is not None:
            every = torch.cat([every, propagator.transform_rows(to_descriptors(x), index.total)])
        same = find_distinct(every)
        # equal old points stay two: they were given as two where there are fewer than two others
        group = torch.arange(len(every)) if same.group is None else same.points[same.group]
        group[:old] = torch.arange(old)
        kept, number = torch.unique(group, return_inverse=True)
        f = every[kept]
        before = self._given
        if relabeled is not None:
            changed = to_labels(relabeled)
            before = torch.where(changed == UNLABELED, before, changed)
        given = torch.cat([before, to_labels(labels)])
        of_old = self._distinct.expand(torch.arange(old))
        row = torch.cat([self._distinct.points, torch.arange(len(before), len(given))])
        distinct = Distinct(row[kept], torch.cat([number[of_old], number[old:]]))
        known = distinct.labels(given)
        k = min(propagator.graph.k, len(f) - 1)
        neighbors = extend_neighbors(index.neighbors, f, old, k)
        graph = propagator.assemble_graph(neighbors)
        y = label_matrix(known, num_classes)
        initial = _padded(self._scores, len(f), num_classes)
        shares = known_shares(propagator.class_shares, known, num_classes)
        made = replace(propagator, solver=propagator.solver.with_shares(shares))
        solution = made.solve(made.solver.prepare(graph), y, initial)
        if shares is None:
            shares = torch.from_numpy(self.class_shares).float()
        if len(shares) < num_classes:
            shares = equal_shares(num_classes)
        p = propagator.normalize(solution.scores, known, shares)
        reached = p.any(dim=1)
        classifier = None
        if relabeled is not None:
            # from the last probabilities it would stay near them: labels move the classes' means
            refined = propagator.refine(f, graph, p, known, shares)
            p, classifier = refined.probabilities, refined.classifier
        elif not isinstance(propagator.refiner, NoRefiner):
            start = _padded(torch.from_numpy(index.distributions), len(f), num_classes)
            lists = Neighbors(neighbors.indices[old:], neighbors.similarities[old:])
            classes = index.distributions.shape[1]
            among = replace(
                index,
                points=f.numpy(),
                neighbors=neighbors,
                distributions=start[:, :classes].numpy(),  # 0 for new points: these do not count
            )
            guess = among.predict_from(f[old:].numpy(), lists)
            start[old:, :classes] = torch.from_numpy(guess)
            refiner = propagator.refiner.continued(index.classifier)
            few_steps = replace(propagator, refiner=refiner)
            refined = few_steps.refine(f, graph, start, known, shares)
            p, classifier = refined.probabilities, refined.classifier
        found = propagator.to_pseudo_labels(p, known, solution, graph, reached)
        found = replace(found, classifier=classifier)
        q, own = found.probabilities, given != UNLABELED
        assert found.scores is not None
        return FittedPropagation(
            torch.where(own, given, distinct.expand(found.labels)).numpy(),
            torch.where(own, 1.0, distinct.expand(found.certainty)).numpy(),
            distinct.expand(found.reached).numpy(),
            distinct.expand(q.double()).numpy(),
            shares.double().numpy(),
            found.health,
            Index.of(propagator, index.total, f, neighbors, q, found, known, classifier),
            distinct,
            known,
            None,
            given,
            found.scores,
        )

    def audit(self) -> Audit:
        """Doubts about the given labels; see `audit_labels`."""
        f = torch.from_numpy(self.index.points)
        graph = self.index.propagator.assemble_graph(self.index.neighbors)
        classes = self.probabilities.shape[1]
        return audit_labels(
            self.index.propagator, f, graph, self._given, classes, self._distinct, self._beliefs
        )

    def suggest(self, selector: Selector, count: int) -> np.ndarray:
        """Points to label next, the best first: [count] int64; see `select_points`."""
        check_request(selector, self._distinct, self._known, count)
        f = torch.from_numpy(self.index.points)
        p = torch.from_numpy(self.index.distributions)
        graph = self.index.propagator.assemble_graph(self.index.neighbors)
        found = chosen_from(selector, Pool(f, self._known, graph, p), count)
        return self._distinct.points[found].numpy()


def _padded(x: Tensor, rows: int, columns: int) -> Tensor:
    """x with rows and columns of zeros after its own."""
    padded = torch.zeros(rows, columns)
    padded[: x.shape[0], : x.shape[1]] = x
    return padded
