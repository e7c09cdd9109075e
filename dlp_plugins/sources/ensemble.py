"""Several descriptions of the images, each with its graph: the network's, embeddings of files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dlp_plugins.errors import DataError
from dlp_plugins.propagation import Propagator, PseudoLabels
from dlp_plugins.registry import EMBEDDINGS, EMBEDDINGS_ALPHA, EMBEDDINGS_K, graph_for, sources
from dlp_plugins.sources.contract import Refresh, Source


@sources.register("ensemble")
@dataclass(frozen=True)
class EnsembleSource(Source):
    """The mean of class probabilities over graphs of the student's descriptors and of embeddings.

    Pseudo-labels from several frozen networks, after Zhang and others ("Revisiting Semi-Supervised
    Learning in the Era of Foundation Models", NeurIPS 2025), who average networks' predictions;
    here each network's embeddings are spread over their own graph, by the defaults of
    `dlp propagate` and the recipe's `class_shares`. Embeddings do not change, so theirs are found
    once.

    Raises:
        DataError: a file that is no .npy of a row for each training image.
    """

    embeddings: Annotated[
        list[str],
        Field(min_length=1, description=".npy files of `dlp embed`, a row per training image"),
    ]
    student: Annotated[bool, Field(description="whether the student's graph takes part")] = True
    _fixed: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    def pseudo_labels(self, refresh: Refresh) -> PseudoLabels:
        r = refresh
        if not self._fixed:
            self._fixed.extend(self._spread(Path(file), r) for file in self.embeddings)
        if not self.student:
            mean = torch.stack(self._fixed).mean(dim=0)
            return r.propagator.to_pseudo_labels(mean, r.labels)
        own = r.propagator(r.describe(r.student), r.labels, r.num_classes, r.scores)
        mean = torch.stack([*self._fixed, own.probabilities]).mean(dim=0)
        found = r.propagator.to_pseudo_labels(mean, r.labels)
        health = replace(found.health, **vars(own.health.convergence))
        return replace(found, scores=own.scores, health=health)

    def _spread(self, file: Path, r: Refresh) -> Tensor:
        rows = _read(file, r.indices)
        parts = EMBEDDINGS | {"graph": graph_for(len(rows))}
        propagator = Propagator.default(
            **parts, k=EMBEDDINGS_K, alpha=EMBEDDINGS_ALPHA, class_shares=r.propagator.class_shares
        )
        rows = rows.to(r.labels.device)
        return propagator(rows, r.labels, r.num_classes, merge_equal=True).probabilities


def _read(file: Path, indices: Tensor) -> Tensor:
    """Rows [n, d] float32 of the images at these places of the training split."""
    try:
        x = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"source.embeddings: {file} cannot be read as .npy: {error}") from error
    if x.ndim != 2 or x.dtype.kind != "f":
        raise DataError(f"source.embeddings: {file} holds {x.dtype} {list(x.shape)}, not rows.")
    if len(x) <= int(indices.max()):
        raise DataError(
            f"source.embeddings: {file} has {len(x):,} rows, but the training split has at least "
            f"{int(indices.max()) + 1:,} images. Embed the whole training split, in its order."
        )
    return torch.from_numpy(np.asarray(x[indices.numpy()], dtype=np.float32))
