"""Every registered component against its contract; the checks against components that break it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlp_plugins import registry, testing
from dlp_plugins.affinities import Affinity
from dlp_plugins.balancers import Balancer
from dlp_plugins.consistency import Consistency
from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs import GraphBuilder
from dlp_plugins.graphs.exact import Exact
from dlp_plugins.registry import solvers
from dlp_plugins.solvers import Alpha, Solution, Solver, relative_residual
from dlp_plugins.solvers.cg import ConjugateGradient
from dlp_plugins.weighters import Weighter

CHECKS: dict[str, Callable[..., None]] = {
    "solvers": testing.check_solver,
    "graphs": testing.check_graph,
    "affinities": testing.check_affinity,
    "transforms": testing.check_transform,
    "normalizers": testing.check_normalizer,
    "refiners": testing.check_refiner,
    "weighters": testing.check_weighter,
    "balancers": testing.check_balancer,
    "backbones": testing.check_backbone,
    "consistency": testing.check_consistency,
    "augmentations": testing.check_augmentation,
    "optimizers": testing.check_optimizer,
    "schedules": testing.check_schedule,
    "sources": testing.check_source,
    "selectors": testing.check_selector,
    "trackers": testing.check_tracker,
}
# Members of a family, trackers that need a store or a service, and components that need a file have
# tests of their own.
ELSEWHERE = {"timm", "usb", "torch", "mlflow", "wandb", "ensemble", "file"}
NAMES = [
    (kind, name)
    for kind in CHECKS
    for name in registry.of_kind(kind).names()
    if name not in ELSEWHERE
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", CHECKS)
def test_the_registry_is_not_empty(kind: str) -> None:
    assert registry.of_kind(kind).names()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch_sparse at import
@pytest.mark.parametrize(("kind", "name"), NAMES, ids=[f"{k}-{n}" for k, n in NAMES])
def test_contract(kind: str, name: str) -> None:
    if missing := registry.of_kind(kind).get(name).missing():
        pytest.skip(f"needs {', '.join(missing)}")
    CHECKS[kind](name)


def test_digits() -> None:
    testing.check_dataset("digits")


# -- a third party's solver ----------------------------------------------------------------------


@dataclass(frozen=True)
class Neumann(Solver):
    """Z = Y + alpha Wn Y + (alpha Wn)^2 Y + ..., cut off."""

    alpha: Alpha = 0.9
    terms: int = 200

    def solve(self, state: Any, labels: Tensor, initial: Tensor | None = None) -> Solution:
        term, z = labels, labels.clone()
        for _ in range(self.terms):
            term = self.alpha * state.matmul(term)
            z += term
        residual = relative_residual(state, self.alpha, z, labels)
        return Solution(z, self.terms, residual, bool((residual < 1e-3).all()))


@pytest.fixture
def neumann() -> Iterator[str]:
    solvers.register("neumann")(Neumann)
    yield "neumann"
    solvers.unregister("neumann")


def test_a_third_party_solver_passes_by_name_and_built(neumann: str) -> None:
    testing.check_solver(neumann)
    testing.check_solver(neumann, alpha=0.7)
    testing.check_solver(Neumann(alpha=0.8))


# -- components that break their contract --------------------------------------------------------


class Broken(ConjugateGradient):
    """Conjugate gradient with a fault."""

    def __init__(self, fault: Callable[[Solution, Tensor, Any], Solution]) -> None:
        super().__init__(alpha=0.5, max_iterations=100)
        object.__setattr__(self, "fault", fault)

    def solve(self, state: Any, labels: Tensor, initial: Tensor | None = None) -> Solution:
        return self.fault(super().solve(state, labels, initial), labels, state)  # type: ignore


def noise(s: Solution, y: Tensor, g: Any) -> Solution:
    z = s.scores * (1 + 1e-4 * torch.rand_like(s.scores))
    residual = relative_residual(g, 0.5, z, y)
    return replace(s, scores=z, residual=residual)


def overclaim(s: Solution, y: Tensor, g: Any) -> Solution:
    z = 1.1 * s.scores
    return replace(s, scores=z, residual=relative_residual(g, 0.5, z, y))


def overlimit(s: Solution, y: Tensor, g: Any) -> Solution:
    return replace(overclaim(s, y, g), converged=False, limited_by_precision=True)


def spoil(t: Tensor, s: Solution) -> Solution:
    t.mul_(1 + 2e-7)  # the last bit
    return s


FAULTS: dict[str, tuple[Callable[..., Solution], str]] = {
    "NaN": (lambda s, y, g: replace(s, scores=s.scores / 0), "holds NaN or infinity"),
    "shape": (lambda s, y, g: replace(s, scores=s.scores[:-1]), r"scores must be \[24, 4\]"),
    "float64": (lambda s, y, g: replace(s, scores=s.scores.double()), "must be torch.float32"),
    "residual": (lambda s, y, g: replace(s, residual=s.residual * 0 + 1e-3), "not the true one"),
    "overclaim": (overclaim, "reports that it converged"),
    "never": (lambda s, y, g: replace(s, converged=False), "does not converge"),
    "unreached": (lambda s, y, g: replace(s, scores=s.scores + 1e-9), "exact zeros"),
    "random": (noise, "two solves differ"),
    "spoils labels": (lambda s, y, g: spoil(y, s), "changes the label matrix"),
    "spoils graph": (lambda s, y, g: spoil(g.values, s), "changes the graph"),
    "tensor": (lambda s, y, g: s.scores, "must return a Solution"),
    "converged": (lambda s, y, g: replace(s, converged=torch.tensor(True)), "True or False"),
    "limited": (overlimit, "far above rounding"),
    "both": (lambda s, y, g: replace(s, limited_by_precision=True), "reports both"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_solver_finds(fault: str) -> None:
    broken, sentence = FAULTS[fault]
    with pytest.raises(AssertionError, match=sentence):
        testing.check_solver(Broken(broken))


def test_check_solver_passes_what_the_faults_start_from() -> None:
    testing.check_solver(Broken(lambda s, y, g: s))


class Constant(Weighter):
    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        self.value = value

    def certainty(self, probabilities: Tensor) -> Tensor:
        return self.value(probabilities)


def rank(p: Tensor) -> Tensor:
    """The share of rows that are less certain: other blocks of rows give other certainties."""
    best = p.amax(1)
    return (best[:, None] >= best).float().mean(1) if p.shape[1] > 1 else best


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (lambda p: 2 * p.amax(1), "must lie in 0..1"),
        (lambda p: 1 - p.amax(1), "as certain as any"),
        (lambda p: p.log().sum(1), "NaN or infinity"),
        (lambda p: p, "must be"),
        (lambda p: p.amax(1) * (len(p) == 50), "depends on the other rows"),
        (rank, "depends on the other rows"),
    ],
)
def test_check_weighter_finds(value: Callable[[Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        testing.check_weighter(Constant(value))


class Factors(Balancer):
    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        self.value = value

    def class_weights(self, counts: Tensor) -> Tensor:
        return self.value(counts.float())


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (lambda n: 1 / n, "balanced set must give 1"),
        (lambda n: n.mean() / n, "NaN or infinity"),
        (lambda n: torch.ones_like(n), "without an example must get 0"),
        (lambda n: (n > 0) * torch.linspace(1, 1 + n.std().item(), len(n)), "its number"),
    ],
)
def test_check_balancer_finds(value: Callable[[Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        testing.check_balancer(Factors(value))


class Altered(GraphBuilder):
    k = 5
    exact = True

    def __init__(self, change: Callable[[Neighbors], Neighbors]) -> None:
        self.change = change

    def neighbors(self, descriptors: Tensor) -> Neighbors:
        return self.change(Exact(k=5).neighbors(descriptors))


def to_self(x: Neighbors) -> Neighbors:
    own = torch.arange(len(x.indices), dtype=x.indices.dtype)[:, None]
    return replace(x, indices=torch.cat([own, x.indices[:, 1:]], 1))


def first_lost(x: Neighbors) -> Neighbors:
    best = x.similarities.argmax(1, keepdim=True) if x.similarities.numel() else x.indices.long()
    return replace(x, indices=x.indices.scatter(1, best, -1))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (to_self, "its own neighbour"),
        (first_lost, "of the true neighbours"),
        (lambda x: replace(x, similarities=x.similarities + 0.01), "inner products"),
        (lambda x: replace(x, indices=x.indices[:, :1].expand_as(x.indices)), "listed twice"),
        (lambda x: replace(x, indices=x.indices + 400), "lie in"),
        (lambda x: replace(x, order=torch.zeros(len(x.indices), dtype=torch.long)), "order must"),
    ],
)
def test_check_graph_finds(change: Callable[[Neighbors], Neighbors], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        testing.check_graph(Altered(change))


class Weights(Affinity):
    def __init__(self, value: Callable[[Tensor], Tensor]) -> None:
        self.value = value

    def weights(self, neighbors: Neighbors) -> Tensor:
        return self.value(neighbors.similarities)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (lambda s: s, "negative"),
        (lambda s: s.log(), "NaN or infinity"),
        (lambda s: s.clamp_(min=0), "changes the similarities"),
        (lambda s: 1 - s, "duplicates must be linked"),
        (lambda s: s[:, :1].abs(), "must be"),
    ],
)
def test_check_affinity_finds(value: Callable[[Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        testing.check_affinity(Weights(value))


def test_check_affinity_finds_one_that_needs_other_rows() -> None:
    affinity = Weights(lambda s: s.clamp(min=0) / (1 + s.abs().sum()))
    testing.check_affinity(affinity)
    affinity.rowwise = True
    with pytest.raises(AssertionError, match="must not say rowwise"):
        testing.check_affinity(affinity)


class BatchDependent(nn.Module):
    num_features = 3

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) - images.mean(dim=(0, 2, 3))


def test_check_backbone_finds() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    with pytest.raises(AssertionError, match="num_features"):
        testing.check_backbone(net)
    net.num_features = 7  # type: ignore[assignment]
    with pytest.raises(AssertionError, match=r"must be \[4, 7\]; it is \[4, 5\]"):
        testing.check_backbone(net)
    net.num_features = 5  # type: ignore[assignment]
    testing.check_backbone(net)
    net.unused = nn.Linear(2, 2)
    net.forward = lambda x: net[1](net[0](x))  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match=r"no gradient reaches unused\.weight"):
        testing.check_backbone(net)


def test_check_backbone_finds_features_that_depend_on_the_batch() -> None:
    net = nn.Sequential(BatchDependent(), nn.Linear(3, 3))
    net.num_features = 3  # type: ignore[assignment]
    with pytest.raises(AssertionError, match="rest of the batch"):
        testing.check_backbone(net)


class SelfTeacher(Consistency):
    """The known slip of a Mean Teacher: the teacher is compared with itself."""

    def begin_stage(self, student: nn.Module, num_examples: int, total_steps: int) -> None:
        import copy

        self.teacher = copy.deepcopy(student)

    def losses(self, step: Any) -> dict[str, Tensor]:
        with torch.no_grad():
            one, two = (self.teacher(step.weak(step.batch.images)).logits for _ in range(2))
        return {**super().losses(step), "consistency": (one - two).square().mean()}


def test_check_consistency_finds_a_teacher_compared_with_itself() -> None:
    with pytest.raises(AssertionError, match="'consistency' has no gradient"):
        testing.check_consistency(SelfTeacher())


class Forgetful(Consistency):
    def begin_stage(self, student: nn.Module, num_examples: int, total_steps: int) -> None:
        self.memory = torch.zeros(num_examples)

    def after_step(self, student: nn.Module, number: int) -> None:
        self.memory = self.memory + 1

    def state(self) -> dict[str, Tensor]:
        return {"memory": self.memory}


def test_check_consistency_finds_a_state_that_is_not_brought_back() -> None:
    with pytest.raises(AssertionError, match="does not bring back memory"):
        testing.check_consistency(Forgetful())


class HardOnly(Consistency):
    def losses(self, step: Any) -> dict[str, Tensor]:
        batch = step.batch
        losses = nn.functional.cross_entropy(
            step.output.logits, batch.labels, ignore_index=-1, reduction="none"
        )
        return {"supervised": (losses * batch.certainty).mean()}


def test_check_consistency_finds_soft_labels_that_are_not_used() -> None:
    with pytest.raises(AssertionError, match=r"does not use batch\.probabilities"):
        testing.check_consistency(HardOnly())


def test_check_dataset_finds() -> None:
    good = registry.datasets.build("digits")
    with pytest.raises(AssertionError, match=r"test labels must be torch\.int64"):
        testing.check_dataset(replace(good, test=replace(good.test, labels=good.test.labels.int())))
    names = ("zero", *good.classes[1:-1], "zero")
    with pytest.raises(AssertionError, match="a class name occurs twice"):
        testing.check_dataset(replace(good, classes=names))


def test_a_component_of_another_kind_is_refused() -> None:
    with pytest.raises(AssertionError, match="must be a dlp_plugins"):
        testing.check_weighter(NoWeighter())  # type: ignore[arg-type]


class NoWeighter:
    pass
