"""Measurements with a network in evaluation mode: error, descriptors, class probabilities."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from dlp_plugins.network import Output
from dlp_plugins.processes.group import ALONE, Processes
from dlp_plugins.training.backend import let_graphs_replay
from dlp_plugins.training.batches import ImageStore

BATCH = 512
# On a CPU a batch holds no more numbers than 512 images of 32 x 32: of larger images so many would
# not stay in its cache, and EfficientNet-Lite0 at 80 pixels takes 1.5 times as long.
CPU_NUMBERS = BATCH * 3 * 32 * 32
CPU_LEAST = 16


@contextlib.contextmanager
def evaluation(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the former mode comes back."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)


def of_every_image(
    read: Callable[[Output], Tensor],
    network: nn.Module,
    images: ImageStore,
    view: Callable[[Tensor], Tensor],
    processes: Processes = ALONE,
) -> Tensor:
    """What `read` takes from the network's output, [n, ...] for every image, in order.

    Several processes share the batches, which stay the same, so that the numbers do.
    """
    plan = list(torch.arange(len(images.source)).split(_batch_size(images)))
    shares = processes.shares(len(plan))
    with evaluation(network):
        mine = images.batches(plan[shares[processes.rank]])
        found = [_read(read, network, view(batch)) for batch in mine]
    counts = [sum(map(len, plan[share])) for share in shares]
    return processes.gather_rows(torch.cat(found) if found else None, counts)


def _read(read: Callable[[Output], Tensor], network: nn.Module, batch: Tensor) -> Tensor:
    let_graphs_replay()
    return read(network(batch)).clone()  # which the next batch's pass may write over


def _batch_size(images: ImageStore) -> int:
    if images.device.type != "cpu":
        return BATCH
    return min(BATCH, max(CPU_LEAST, CPU_NUMBERS // math.prod(images.source.shape)))


def errors(
    network: nn.Module,
    images: ImageStore,
    labels: Tensor,
    view: Callable[[Tensor], Tensor],
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Percent of images with a known label that are classified wrongly.

    labels: [n] int64 on the device, -1 where unknown.

    Returns:
        'error', and with over 10 classes 'error_top5': the true class is not among the best five.
    """
    logits = of_every_image(lambda o: o.logits, network, images, view, processes)
    labels = images.known(labels)  # now that all of them are read
    known = labels >= 0
    logits, labels = logits[known], labels[known, None]
    found = {"error": _percent_missed(logits, labels, 1)}
    if logits.shape[1] > 10:
        found["error_top5"] = _percent_missed(logits, labels, 5)
    return found


def _percent_missed(logits: Tensor, labels: Tensor, k: int) -> float:
    hit = (logits.topk(k, dim=1).indices == labels).any(dim=1)
    return 100.0 * float(1 - hit.double().mean())


def describe(
    network: nn.Module,
    images: ImageStore,
    view: Callable[[Tensor], Tensor],
    processes: Processes = ALONE,
) -> Tensor:
    """Descriptors [n, d] float32 of every image."""
    return of_every_image(lambda o: o.descriptor.float(), network, images, view, processes)


def predict(
    network: nn.Module,
    images: ImageStore,
    view: Callable[[Tensor], Tensor],
    processes: Processes = ALONE,
) -> Tensor:
    """Class probabilities [n, c] float32 of every image."""
    return of_every_image(
        lambda o: o.logits.float().softmax(dim=1), network, images, view, processes
    )
