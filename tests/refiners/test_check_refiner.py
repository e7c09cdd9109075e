"""check_refiner finds what breaks the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dlp_plugins import testing
from dlp_plugins.graph import Graph
from dlp_plugins.refiners import Refiner
from dlp_plugins.refiners.contract import Given, Refined
from dlp_plugins.refiners.discriminant import Discriminant

pytestmark = pytest.mark.usefixtures("one_thread")


class Altered(Refiner):
    """The discriminant with a fault."""

    def __init__(self, fault: Callable[[Refined, dict[str, Any]], Any]) -> None:
        self.fault = fault

    def refine(
        self, descriptors: Tensor, graph: Graph, probabilities: Tensor, given: Given, shares: Tensor
    ) -> Any:
        found = Discriminant(steps=2).refine(descriptors, graph, probabilities, given, shares)
        return self.fault(found, {"f": descriptors, "graph": graph, "given": given, "pi": shares})

    def restore(self, tensors: dict[str, Tensor]) -> Any:
        return Discriminant().restore(tensors) if tensors else Guess()


def test_check_refiner_finds_what_a_file_would_change() -> None:
    class Other(Discriminant):
        def restore(self, tensors: dict[str, Tensor]) -> Any:
            return Discriminant.restore(
                self, tensors | {"directions": tensors["directions"].flip(1)}
            )

    with pytest.raises(AssertionError, match="gives another classifier"):
        testing.check_refiner(Other())


class Guess:
    """A classifier that gives every new point one class."""

    def probabilities(self, descriptors: Tensor, neighbors: Tensor) -> Tensor:
        return torch.zeros_like(neighbors).index_fill_(1, torch.tensor([0]), 1.0)

    def tensors(self) -> dict[str, Tensor]:
        return {}


def changed(found: Refined, q: Tensor) -> Refined:
    return replace(found, probabilities=q)


def spoiled(found: Refined, x: Tensor) -> Refined:
    x *= 0.5
    return found


def first_class_favored(found: Refined, given: Given) -> Refined:
    q = found.probabilities.clone()
    q[:, 0] += 0.05
    q /= q.sum(dim=1, keepdim=True)
    q[given.points] = given.distributions
    return changed(found, q)


def without_labels(found: Refined) -> Refined:
    q = found.probabilities
    return changed(found, q.roll(1, dims=0))


FAULTS: dict[str, tuple[Callable[[Refined, Any], Any], str]] = {
    "tensor": (lambda r, x: r.probabilities, "must return Refined"),
    "shape": (lambda r, x: changed(r, r.probabilities[:, :-1]), "must be"),
    "float64": (lambda r, x: changed(r, r.probabilities.double()), "must be torch.float32"),
    "negative": (lambda r, x: changed(r, 2 * r.probabilities - 0.5), "negative"),
    "sums": (lambda r, x: changed(r, r.probabilities / 2), "must sum to 1"),
    "labels": (lambda r, x: without_labels(r), "must stay as given"),
    "class 0": (lambda r, x: first_class_favored(r, x["given"]), "numbers of points or classes"),
    "spoils descriptors": (lambda r, x: spoiled(r, x["f"]), "changes the descriptors"),
    "spoils graph": (lambda r, x: spoiled(r, x["graph"].values), "changes the graph"),
    "spoils labels": (lambda r, x: spoiled(r, x["given"].distributions), "changes the given"),
    "spoils shares": (lambda r, x: spoiled(r, x["pi"]), "changes the shares"),
    "classifier": (lambda r, x: replace(r, classifier=Guess()), "get the label they had"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_refiner_finds(fault: str) -> None:
    broken, sentence = FAULTS[fault]
    with pytest.raises(AssertionError, match=sentence):
        testing.check_refiner(Altered(broken))


def test_check_refiner_finds_chance() -> None:
    def shaken(found: Refined, x: dict[str, Any]) -> Refined:
        q = found.probabilities + 0.01 * torch.rand_like(found.probabilities)
        q /= q.sum(dim=1, keepdim=True)
        q[x["given"].points] = x["given"].distributions
        return changed(found, q)

    with pytest.raises(AssertionError, match="two calls differ"):
        testing.check_refiner(Altered(shaken))


def test_check_refiner_passes_what_the_faults_start_from() -> None:
    testing.check_refiner(Altered(lambda found, x: found))
