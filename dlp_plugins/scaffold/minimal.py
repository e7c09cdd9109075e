"""One component of every kind, each as short as its contract allows: what `dlp new` starts from.

Read as text, never imported by the package: it registers "outside" in each kind, as a third party's
file would, and tests load it as one. `component.py` cuts the components out, each with the imports
that it uses, so a component here stands by itself: no helper of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from dlp_plugins import registry
from dlp_plugins.affinities.contract import Affinity
from dlp_plugins.augmentations.contract import Augmentation
from dlp_plugins.balancers.contract import Balancer
from dlp_plugins.consistency.contract import Consistency, Step
from dlp_plugins.datasets.contract import Dataset, TensorImages
from dlp_plugins.graph import Graph, Neighbors
from dlp_plugins.graphs.contract import GraphBuilder, K, clip_k
from dlp_plugins.normalizers.contract import Normalizer
from dlp_plugins.propagation import PseudoLabels
from dlp_plugins.refiners.contract import Given, Refined, Refiner
from dlp_plugins.schedules.contract import Schedule
from dlp_plugins.selectors.contract import Pool, Selector
from dlp_plugins.solvers.contract import Alpha, Solution, Solver, relative_residual
from dlp_plugins.sources.contract import Refresh, Source
from dlp_plugins.trackers.contract import Tracker
from dlp_plugins.transforms.contract import Transform
from dlp_plugins.weighters.contract import Weighter


@registry.datasets.register("outside")
def blobs(size: int = 120) -> Dataset:
    """Two classes of noisy images, one bright on the left, one on the right."""
    g = torch.Generator().manual_seed(0)

    def split(n: int) -> TensorImages:
        labels = torch.arange(n) % 2
        images = torch.randint(0, 120, (n, 1, 8, 8), generator=g)
        images[labels == 0, :, :, :4] += 100
        images[labels == 1, :, :, 4:] += 100
        return TensorImages(images.to(torch.uint8), labels)

    return Dataset(split(size), split(size // 2), ("left", "right"), mean=(0.4,), std=(0.2,))


@registry.augmentations.register("outside")
class Noisy(Augmentation):
    """Pixels with noise."""

    def plain(self, examples: Tensor) -> Tensor:
        return examples.float() / 255 - 0.4

    def weak(self, examples: Tensor) -> Tensor:
        return self.plain(examples) + 0.01 * torch.randn(examples.shape)


@registry.backbones.register("outside")
class Flat(nn.Sequential):
    """One hidden layer."""

    num_features = 16

    def __init__(self, input_shape: tuple[int, ...]) -> None:
        inputs = int(torch.Size(input_shape).numel())
        super().__init__(nn.Flatten(), nn.Linear(inputs, 16), nn.ReLU())


@registry.transforms.register("outside")
class Unit(Transform):
    """Unit length."""

    def apply(self, rows: Tensor, total: Tensor | None) -> Tensor:
        return nn.functional.normalize(rows.float(), dim=1)


@registry.graphs.register("outside")
@dataclass(frozen=True)
class AllPairs(GraphBuilder):
    """All similarities at once, so for a few thousand points."""

    k: K = 5
    exact = True

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        similarities = (descriptors @ descriptors.T).fill_diagonal_(-2)  # never the point itself
        values, indices = similarities.topk(clip_k(self.k, descriptors), dim=1)
        return Neighbors(indices.int(), values)


@registry.affinities.register("outside")
class Linear(Affinity):
    """The similarity itself."""

    def weights(self, neighbors: Neighbors) -> Tensor:
        return neighbors.similarities.clamp(min=0)


@registry.solvers.register("outside")
@dataclass(frozen=True)
class Walk(Solver):
    """So many steps of Z <- alpha Wn Z + Y, which has the answer as its fixed point."""

    alpha: Alpha = 0.9
    steps: Annotated[int, Field(ge=1, description="products with the graph")] = 200

    def solve(self, state: Graph, labels: Tensor, initial: Tensor | None = None) -> Solution:
        z = labels
        for _ in range(self.steps):
            z = self.alpha * state.matmul(z) + labels
        residual = relative_residual(state, self.alpha, z, labels)
        return Solution.judged(z, self.steps, residual, 1e-4, labels)


@registry.normalizers.register("outside")
class Roots(Normalizer):
    """Square roots of positive scores, to sum 1; a row without any stays zero."""

    def apply(self, scores: Tensor, total: Tensor | None, shares: Tensor) -> Tensor:
        return nn.functional.normalize(scores.clamp(min=0).sqrt(), p=1, dim=1)


@registry.refiners.register("outside")
class Sharpen(Refiner):
    """Squares, to sum 1."""

    def refine(
        self, descriptors: Tensor, graph: Graph, probabilities: Tensor, given: Given, shares: Tensor
    ) -> Refined:
        squares = probabilities.square()
        return Refined(squares / squares.sum(dim=1, keepdim=True).clamp(min=1e-12))


@registry.weighters.register("outside")
class Best(Weighter):
    """The largest probability."""

    def certainty(self, probabilities: Tensor) -> Tensor:
        return probabilities.amax(dim=1)


@registry.balancers.register("outside")
class Even(Balancer):
    """No balance: 1 for every class that has an example."""

    def class_weights(self, counts: Tensor) -> Tensor:
        return (counts > 0).float()


@registry.sources.register("outside")
class Both(Source):
    """The mean of graph and network."""

    def pseudo_labels(self, refresh: Refresh) -> PseudoLabels:
        r = refresh
        graph = r.propagator(r.describe(r.student), r.labels, r.num_classes).probabilities
        return r.propagator.to_pseudo_labels((graph + r.predict(r.student)) / 2, r.labels)


@registry.consistency.register("outside")
class Halved(Consistency):
    """Half the labels' loss."""

    def losses(self, step: Step) -> dict[str, Tensor]:
        return {name: loss / 2 for name, loss in super().losses(step).items()}


@registry.optimizers.register("outside")
def momentum(params: list[dict[str, Any]], learning_rate: float = 0.1) -> torch.optim.Optimizer:
    """SGD with momentum one half."""
    return torch.optim.SGD(params, lr=learning_rate, momentum=0.5)


@registry.schedules.register("outside")
@dataclass(frozen=True)
class Down(Schedule):
    """A line to 0."""

    def factor(self, epoch: float, epochs: int) -> float:
        return 1 - epoch / epochs


@registry.trackers.register("outside")
class Errors(Tracker):
    """A line per epoch in trackers/errors.txt: its number and the test error."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trackers" / "errors.txt"

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{step} {metrics.get('test_error')}\n")


@registry.selectors.register("outside")
class Last(Selector):
    """The last points without a label."""

    needs_graph = False

    def select(self, pool: Pool, count: int) -> Tensor:
        return pool.unlabeled.flip(0)[:count]
