"""Batches sent to a GPU while it works on the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def sent_ahead(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Every batch on the device; on a GPU the next one's copy runs beside the present one's work.

    batches: in pinned memory where the device is a GPU: other copies wait.
    """
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    copies = torch.cuda.Stream(device)
    sent: tuple[Tensor, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copies):
            coming = batch.to(device, non_blocking=True), copies.record_event()
        if sent is not None:
            yield _arrived(*sent)
        sent = coming
    if sent is not None:
        yield _arrived(*sent)


def _arrived(batch: Tensor, copied: torch.cuda.Event) -> Tensor:
    """The batch, for the stream that works: it waits for this copy, the host does not."""
    working = torch.cuda.current_stream(batch.device)
    working.wait_event(copied)
    batch.record_stream(working)  # else its memory could be given to a later copy too early
    return batch
