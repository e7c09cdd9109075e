"""Whether a propagation can be trusted: how well it was solved, and what labels did not reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from dlp_plugins.inputs import UNLABELED
from dlp_plugins.solvers.contract import Solution

# A residual above which labels may still change. On digits and three sets of embeddings, k = 10 and
# 50, alpha = 0.9 to 0.999, the labels that differed from the exact solution's were at most 0.4 % at
# residuals up to 0.001, and at most 4.8 % (one label per class) or 0.8 % (ten) at residuals up to
# 0.01; above that up to 70 %.
LARGE_RESIDUAL = 1e-2


@dataclass(frozen=True)
class Convergence:
    """How well a system was solved.

    residual: largest relative residual over the classes (None where nothing was solved).
    iterations: products with the graph.
    converged: every class within the solver's tolerance.
    limited_by_precision: not converged, but only by the rounding of float32 scores.
    """

    residual: float | None = None
    iterations: int = 0
    converged: bool = True
    limited_by_precision: bool = False

    @classmethod
    def of(cls, solution: Solution) -> Convergence:
        return cls(
            float(solution.residual.max()),
            solution.iterations,
            solution.converged,
            solution.limited_by_precision,
        )

    @classmethod
    def worst(cls, parts: Iterable[Convergence]) -> Convergence:
        """Of all classes, from the records of groups of them."""
        parts = list(parts)
        residuals = [p.residual for p in parts if p.residual is not None]
        return cls(
            max(residuals, default=None),
            max((p.iterations for p in parts), default=0),
            all(p.converged for p in parts),
            any(p.limited_by_precision for p in parts)
            and all(p.converged or p.limited_by_precision for p in parts),
        )

    @property
    def labels_may_change(self) -> bool:
        """Whether the exact solution may have other labels, and not only slightly other scores."""
        return not self.converged and (self.residual or 0.0) > LARGE_RESIDUAL

    @property
    def settled(self) -> bool:
        """Converged, or kept from it by rounding alone, at a residual that changes no labels."""
        return self.converged or (self.limited_by_precision and not self.labels_may_change)

    def figures(self) -> str:
        """Iterations and residual alone; empty where nothing was solved."""
        if self.residual is None:
            return ""
        return f"{self.iterations:,} iterations, relative residual {self.residual:.1e}"

    def describe(self, limit: str = "max_iterations") -> str:
        """In words, with a warning only where labels may still change.

        Args:
            limit: what the caller calls the solver's limit of iterations.
        """
        if self.residual is None:
            return "nothing was solved"
        text = self.figures()
        if self.limited_by_precision:
            text += " (float32 allows no less)"
        if self.labels_may_change:
            text += "; labels may still differ from the exact solution's"
            if self.limited_by_precision:
                text += ", lower alpha"
            elif self.iterations:
                text += f", raise {limit}"
        return text


@dataclass(frozen=True)
class Health:
    """Whether a propagation can be trusted; written to the metrics at every refresh.

    residual, iterations, converged, limited_by_precision: as `Convergence`.
    unreached: unlabelled points without a labelled point in their component of the graph; their
        certainty is 0, their label -1.
    unlabeled_components: connected components of the graph without a labelled point.
    empty_classes: classes that no point carries, labelled or pseudo-labelled.
    not_yet_reached: unlabelled points of a component with a labelled point, to which the solver's
        iterations did not carry any score; certainty and label as of unreached points.
    """

    residual: float | None
    iterations: int
    converged: bool
    unreached: int
    unlabeled_components: int
    empty_classes: int
    not_yet_reached: int = 0
    limited_by_precision: bool = False

    @classmethod
    def of(
        cls,
        reached: Tensor,
        counts: Tensor,
        labels: Tensor,
        convergence: Convergence,
        components: Callable[[], Tensor] | None = None,
        approximate: bool = False,
    ) -> Self:
        """From the points [n] that some label reached and the labels [n] that were given.

        Args:
            counts: [c] points of each class.
            components: gives each point's component of the graph [n] (on the CPU), which takes time
                and is not always needed. None where labels came from a network.
            approximate: the solver may assign a label in a component without a labelled point.
        """
        without = ~reached & (labels == UNLABELED)
        unreached, not_yet, unlabeled = int(without.sum()), 0, 0
        # if every point was reached, no component lacks a label, unless the solver is approximate
        if components is not None and (unreached or approximate):
            component = components()
            labeled = torch.zeros(int(component.max()) + 1, dtype=torch.bool)
            labeled[component[(labels != UNLABELED).cpu()]] = True
            unlabeled = int((~labeled).sum())
            not_yet = int((without.cpu() & labeled[component]).sum())
        return cls(
            convergence.residual,
            convergence.iterations,
            convergence.converged,
            unreached=unreached - not_yet,
            unlabeled_components=unlabeled,
            empty_classes=int((counts == 0).sum()),
            not_yet_reached=not_yet,
            limited_by_precision=convergence.limited_by_precision,
        )

    @property
    def convergence(self) -> Convergence:
        """The record of the solve; `describe` puts it into words."""
        return Convergence(
            self.residual, self.iterations, self.converged, self.limited_by_precision
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
