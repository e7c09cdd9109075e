"""SimMatch and CoMatch as a loss: a projection head, and memories whose size the batches tell."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from dlp_plugins.consistency._usb_loss import Driver, StudentView

SIZE = 128  # their `proj_size`


def projection(features: int, size: int) -> nn.Sequential:
    """The head of both (their `mlp_proj`)."""
    return nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, size))


class ProjectedView(StudentView):
    """A Network with a `projection`, answering as SimMatch_Net and CoMatch_Net do."""

    def forward(self, images: Tensor, **_: Any) -> dict[str, Tensor]:
        output = super().forward(images)
        head: nn.Module = self.network.projection  # type: ignore[assignment]
        # float32 under autocast too: the memories are
        return {**output, "feat": F.normalize(head(output["feat"]).float(), dim=1)}


class Resident(Tensor):
    """A tensor that is already where USB would send it with `.cuda`."""

    def cuda(self, *_: Any, **__: Any) -> Tensor:  # type: ignore[override]
        return self.as_subclass(Tensor)


class Projected(Driver):
    """USB makes the head itself, and the memories with `.cuda`; here neither."""

    def init(self, **settings: Any) -> None:
        for key, value in settings.items():
            setattr(self, key, value)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device


class DrivenSimMatch(Projected):
    """Its bank holds one entry for each labelled image; it grows as they are seen."""

    memories = ("mem_bank", "labels_bank", "seen")

    def init(self, **settings: Any) -> None:
        super().init(**settings)
        self.mem_bank = torch.zeros(settings["proj_size"], 0, device=self.device)
        self.labels_bank = torch.zeros(0, dtype=torch.long, device=self.device)
        self.seen = torch.zeros(0, dtype=torch.long, device=self.device)  # image of each entry

    def train_step(self, idx_lb: Tensor, **batch: Tensor) -> Any:  # type: ignore[override]
        new = idx_lb[~torch.isin(idx_lb, self.seen)].unique()
        self.seen = torch.cat([self.seen, new])
        # As USB starts every entry: a random direction, class 0, until its image comes by.
        fresh = F.normalize(torch.randn(len(self.mem_bank), len(new), device=self.device), dim=0)
        self.mem_bank = torch.cat([self.mem_bank, fresh], dim=1)
        self.labels_bank = torch.cat([self.labels_bank, torch.zeros_like(new)])
        entry = (idx_lb[:, None] == self.seen[None, :]).long().argmax(dim=1)
        return super().train_step(idx_lb=entry.as_subclass(Resident), **batch)  # type: ignore[misc]


class DrivenCoMatch(Projected):
    """Its queue holds `queue_batch` batches; their size is known with the first."""

    memories = ("queue_feats", "queue_probs", "queue_ptr")

    def init(self, **settings: Any) -> None:
        super().init(**settings)
        self.use_hard_label = settings["hard_label"]
        # a tensor, so that it is saved with the rest
        self.queue_ptr = torch.zeros((), dtype=torch.long)
        self.queue_feats = torch.zeros(0, self.args.proj_size, device=self.device)
        self.queue_probs = torch.zeros(0, self.num_classes, device=self.device)
        self.queue_size = 0

    def train_step(  # type: ignore[override]
        self, x_lb: Tensor, x_ulb_w: Tensor, **batch: Tensor
    ) -> Any:
        if len(self.queue_feats) == 0:
            rows = self.queue_batch * (len(x_lb) + len(x_ulb_w))
            self.queue_feats = self.queue_feats.new_zeros(rows, self.args.proj_size)
            self.queue_probs = self.queue_probs.new_zeros(rows, self.num_classes)
        self.queue_size = len(self.queue_feats)
        return super().train_step(x_lb=x_lb, x_ulb_w=x_ulb_w, **batch)  # type: ignore[misc]
