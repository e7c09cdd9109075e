"""New pseudo-labels from the network as it is: its descriptors' graph, or its own predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dlp_plugins.network import Network
from dlp_plugins.propagation import Propagator, PseudoLabels
from dlp_plugins.training import evaluate
from dlp_plugins.training.data import RunData


def refresh(
    source: str,
    network: Network,
    propagator: Propagator,
    data: RunData,
    view: Callable[[Tensor], Tensor],
    initial: Tensor | None = None,
) -> PseudoLabels:
    """Pseudo-labels of every training image.

    Args:
        source: 'graph' or 'network' (the paper's baseline 'Network prediction').
        view: uint8 images to the network's input, not augmented.
        initial: [n, c] scores to start the solver from.
    """
    labels = data.known_labels
    if source == "network":
        return propagator.to_pseudo_labels(evaluate.predict(network, data.train, view), labels)
    descriptors = evaluate.describe(network, data.train, view)
    return propagator(descriptors, labels, data.dataset.num_classes, initial)


def accuracy(pseudo: PseudoLabels, truth: Tensor, unlabeled: Tensor) -> float | None:
    """Percent of unlabelled examples whose pseudo-label is true; None where no truth is known.

    One that no label reaches counts as wrong.
    """
    unlabeled = unlabeled.to(truth.device)
    known = unlabeled[truth[unlabeled] >= 0]
    if len(known) == 0:
        return None
    right = pseudo.labels[known] == truth[known]
    return 100.0 * float(right.double().mean())


def mean_certainty(pseudo: PseudoLabels, unlabeled: Tensor) -> float:
    """Mean certainty of the unlabelled examples."""
    return float(pseudo.certainty[unlabeled.to(pseudo.certainty.device)].mean())


def tensors(pseudo: PseudoLabels, keep_scores: bool) -> dict[str, Tensor]:
    """What a checkpoint holds of pseudo-labels: a resume in mid-epoch needs no new solve."""
    state = {"labels": pseudo.labels, "weights": pseudo.weights, "certainty": pseudo.certainty}
    if keep_scores and pseudo.scores is not None:
        state["scores"] = pseudo.scores
    return state


def initial_tensors(data: RunData) -> dict[str, Tensor]:
    """Stage one: the given labels, weight 1; nothing else has any."""
    labels = data.known_labels
    weights = (labels >= 0).float()
    return {"labels": labels, "weights": weights, "certainty": weights.clone()}


def flatten_health(pseudo: PseudoLabels) -> dict[str, Any]:
    """Health as metrics; what was not solved for is left out."""
    return {k: v for k, v in pseudo.health.as_dict().items() if v is not None}


def cpu_arrays(state: dict[str, Tensor]) -> dict[str, Any]:
    return {k: v.cpu().numpy() for k, v in state.items() if k != "scores"}
