"""What a propagation leaves to label new points by, without doing it again; also as a file.

>>> from dlp_plugins.embeddings.index import load_index
>>> index = load_index("pets.safetensors")  # doctest: +SKIP
>>> labels, probabilities, certainty = index.assign(new)  # doctest: +SKIP
>>> [index.classes[i] for i in labels]  # doctest: +SKIP

Shapes: m old points, d numbers each, c classes, k neighbours, b new points.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlp_plugins import registry
from dlp_plugins._threads import row_slices
from dlp_plugins.embeddings import _index_file
from dlp_plugins.errors import DataError, DlpError, FeatureError
from dlp_plugins.graph import Neighbors
from dlp_plugins.inputs import UNLABELED, to_descriptors
from dlp_plugins.propagation import Assignment, Propagator
from dlp_plugins.propagation.calibration import Calibration
from dlp_plugins.propagation.propagator import build_parts, full_precision
from dlp_plugins.refiners.contract import Classifier

# Gathered neighbours of a block of new points, held at once: 2^24 float64 = 128 MiB.
BLOCK_ENTRIES = 2**24
PARTS = ("transform", "affinity", "refiner", "weighter")  # what a new point needs
Precision = Literal["float32", "float16"]


class Assigned(NamedTuple):
    """Labels of b new points.

    labels: [b] int64, position in `Index.classes`; -1 where no label reaches, without a refiner.
    probabilities: [b, c] float64; rows sum to 1, or are 0 where no label reaches.
    certainty: [b] float32 in 0..1, on the scale of the old points'; 0 where no label reaches.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    certainty: np.ndarray


@dataclass(frozen=True)
class Index:
    """Everything of a propagation that new points need.

    propagator: of its components those in `PARTS` are used.
    total: the transform's statistics of all old points.
    points: F [m, d] float32, the distinct old points, transformed.
    neighbors: theirs, as an affinity may look at both ends of an edge.
    distributions: Q [m, c] float32, their class probabilities.
    reached: [m] bool, whether some label reaches them over the graph.
    classifier: the refiner's, if it has one.
    largest_certainty: by which the old points' certainties were divided.
    classes: names (str) or numbers (int).
    embedding: of the network that made the embeddings, if known: JSON values by name.
    temperature: at which probabilities are calibrated (`Calibration`), if it was found.
    """

    propagator: Propagator
    total: Tensor | None
    points: np.ndarray
    neighbors: Neighbors
    distributions: np.ndarray
    reached: np.ndarray
    classifier: Classifier | None
    largest_certainty: float
    classes: list[str] | list[int]
    embedding: dict[str, Any] | None = None
    temperature: float | None = None

    @classmethod
    def of(
        cls,
        propagator: Propagator,
        total: Tensor | None,
        descriptors: Tensor,
        neighbors: Neighbors,
        probabilities: Tensor,
        found: Assignment,
        labels: Tensor,
        classifier: Classifier | None,
    ) -> Index:
        """Of m distinct points, from what a propagation of them found; classes are 0..c-1."""
        largest = 1.0
        unlabeled = torch.where(labels == UNLABELED, found.certainty, 0.0)
        at = int(unlabeled.argmax())
        if float(unlabeled[at]) > 0:
            own = float(propagator.best_class(probabilities[at : at + 1])[1])
            largest = own / float(unlabeled[at])
        return cls(
            propagator,
            total,
            descriptors.cpu().numpy(),
            Neighbors(neighbors.indices.cpu(), neighbors.similarities.cpu()),
            probabilities.cpu().numpy(),
            found.reached.cpu().numpy(),
            classifier,
            largest,
            list(range(probabilities.shape[1])),
        )

    @property
    def dim(self) -> int:
        return self.points.shape[1]

    # -- new points -------------------------------------------------------------------------------

    @full_precision()
    def assign(self, embeddings: Any) -> Assigned:
        """Labels of new points [b, d], a tensor, array or list as the old ones were given.

        Raises:
            FeatureError: NaN, infinity, or not of the old points' number of columns.
        """
        return self.label(embeddings)[0]

    @full_precision()
    def label(self, embeddings: Any) -> tuple[Assigned, np.ndarray]:
        """As `assign`, and which points [b] some label reaches by way of their neighbours."""
        p, reached = self.predict(embeddings)
        best, certainty = self.propagator.best_class(torch.from_numpy(p))
        scaled = (certainty / self.largest_certainty).clamp(max=1.0).numpy()
        return Assigned(best.numpy(), p, np.where(reached, scaled, np.float32(0))), reached

    def probability(self, rows: Tensor, labels: Tensor) -> Tensor | None:
        """[b] float32, that labels [b] of rows [b, c] are right; None if not calibrated."""
        if self.temperature is None:
            return None
        return Calibration(self.temperature).probability(rows, labels)

    @full_precision()
    def predict(self, embeddings: Any) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities [b, c] float64 of new points [b, d], and which [b] a label reaches.

        The mean of their k nearest neighbours' by affinity, and with a refiner what its classifier
        makes of that and of the new points' descriptors. A row is 0 where no neighbour with a
        label is similar at all and there is no refiner.

        Raises:
            FeatureError: as `assign`.
        """
        return self.predict_rows(self._transformed(embeddings))

    @full_precision()
    def neighbor_means(self, embeddings: Any) -> np.ndarray:
        """[b, c] float64: means of the old points' `distributions`, whatever these sum to.

        Over the k nearest of each new point [b, d], by affinity; 0 where none is similar at all.

        Raises:
            FeatureError: as `assign`.
        """
        indices, similarities = self._nearest(self._transformed(embeddings))
        weights = self._weights(indices, similarities)
        total = weights.sum(axis=1, keepdims=True)
        weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        return self._sums(indices, weights)

    def _transformed(self, embeddings: Any) -> np.ndarray:
        x = to_descriptors(embeddings)
        if x.shape[1] != self.dim:
            raise FeatureError(
                f"New points have {x.shape[1]:,} numbers each; the old ones have {self.dim:,}. "
                "Both must be embeddings of one network."
            )
        return self.propagator.transform_rows(x.cpu(), self.total).numpy()

    def predict_rows(self, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `predict`, of rows [b, d] float32 that are already transformed."""
        indices, similarities = self._nearest(f)
        weights = self._weights(indices, similarities)
        reached = (self.reached[indices] & (weights > 0)).any(axis=1)
        return self.combine(f, indices, weights), reached

    def predict_from(self, f: np.ndarray, neighbors: Neighbors) -> np.ndarray:
        """As `predict_rows`, of rows whose k nearest old points are known; no -1 among them."""
        indices = neighbors.indices.long().numpy()
        weights = self._weights(indices, neighbors.similarities.double().numpy())
        return self.combine(f, indices, weights)

    def combine(self, f: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """[b, c] float64 from the neighbours [b, k] of rows f [b, d] and their weights [b, k]."""
        found = self._sums(indices, weights)
        total = found.sum(axis=1, keepdims=True)
        found = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
        if self.classifier is None:
            return found
        for rows in row_slices(len(f), f.shape[1] + found.shape[1], BLOCK_ENTRIES):
            both = (torch.from_numpy(a) for a in (f[rows].astype(np.float64), found[rows]))
            found[rows] = self.classifier.probabilities(*both).numpy()
        return found

    def _sums(self, indices: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """[b, c] float64: rows of `distributions` at indices [b, k] times weights [b, k]."""
        found = np.empty((len(indices), self.distributions.shape[1]))
        for rows in row_slices(len(found), indices.shape[1] * found.shape[1], BLOCK_ENTRIES):
            near = self.distributions[indices[rows]].astype(np.float64)
            found[rows] = np.einsum("mk,mkc->mc", weights[rows], near)
        return found

    def _nearest(self, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices and similarities (float64) [b, k] of the nearest old points."""
        k = self.neighbors.indices.shape[1]
        indices = np.empty((len(f), k), np.int64)
        points = torch.from_numpy(self.points).T
        for rows in row_slices(len(f), len(self.points), BLOCK_ENTRIES):
            indices[rows] = (torch.from_numpy(f[rows]) @ points).topk(k, dim=1).indices.numpy()
        similarities = np.empty(indices.shape)
        for rows in row_slices(len(f), k * f.shape[1], BLOCK_ENTRIES):
            # Again in float64: a product rounds differently with the number of its rows.
            near = self.points[indices[rows]].astype(np.float64)
            similarities[rows] = np.einsum("mkd,md->mk", near, f[rows].astype(np.float64))
        return indices, similarities

    def _weights(self, indices: np.ndarray, similarities: np.ndarray) -> np.ndarray:
        """[b, k] affinities of new points to old ones.

        An affinity may look at the neighbour's own neighbours (a local scale): so the new points
        are put after the lists of those old points that are neighbours of one, none of which they
        change. Old points that none of them is linked to are one node without neighbours.
        """
        near, place = np.unique(indices, return_inverse=True)
        old = len(near)
        lists = self.neighbors.indices[near].long().numpy()
        at = np.searchsorted(near, lists).clip(max=old - 1)
        kept = np.where(lists < 0, -1, np.where(near[at] == lists, at, old))
        k = indices.shape[1]
        together = Neighbors(
            torch.from_numpy(np.concatenate([kept, np.full((1, k), -1), place.reshape(-1, k)])),
            torch.cat(
                [
                    self.neighbors.similarities[near].double(),
                    torch.zeros(1, k, dtype=torch.float64),
                    torch.from_numpy(similarities),
                ]
            ),
        )
        return self.propagator.affinity.weights(together)[old + 1 :].numpy()

    # -- as a file --------------------------------------------------------------------------------

    def save(self, path: Path | str, precision: Precision = "float16") -> None:
        """Write one file, whole or not at all; it holds no code.

        Args:
            precision: of the points and their probabilities. 'float16' takes half the space, and
                changed none of 24,984 labels (benchmarks/index_quality.py).

        Raises:
            UsageError: a component cannot be saved.
            SaveError: the disk is full or the folder cannot be written; an old file is as it was.
        """
        parts = {}
        for key in PARTS:
            name, params = registry.of_kind(key).describe(getattr(self.propagator, key))
            parts[key] = {"name": name, "params": params}
        arrays = {
            "points": self.points.astype(precision),
            "distributions": self.distributions.astype(precision),
            "reached": self.reached,
            "indices": self.neighbors.indices.int().numpy(),
            "similarities": self.neighbors.similarities.float().numpy(),
        }
        if self.total is not None:
            arrays["total"] = self.total.numpy()
        if self.classifier is not None:
            for name, tensor in self.classifier.tensors().items():
                arrays[f"classifier.{name}"] = tensor.cpu().numpy()
        about = {
            "parts": parts,
            "classes": self.classes,
            "largest_certainty": self.largest_certainty,
            "embedding": self.embedding,
            "temperature": self.temperature,
        }
        _index_file.write(Path(path), arrays, about)


def load_index(path: Path | str) -> Index:
    """The index that `Index.save` or `dlp propagate --save-index` wrote.

    Raises:
        DataError: no such file, not an index, of another format, or damaged.
        RegistryError, PluginError: a component of it is not registered here.
    """
    path = Path(path)
    arrays, about = _index_file.read(path)
    try:
        return _restored(arrays, about)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        if isinstance(error, DlpError):
            raise
        raise DataError(f"{path} cannot be used: {error!r}. Is it an index?") from error


def _restored(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> Index:
    parts: dict[str, Any] = {}
    for key in PARTS:
        part = about["parts"][key]
        parts |= build_parts({key: part["name"]}, part["params"])[0]
    prefix = "classifier."
    state = {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    points, indices = arrays["points"].astype(np.float32), torch.from_numpy(arrays["indices"])
    distributions = arrays["distributions"].astype(np.float32)
    m, c = len(points), len(about["classes"])
    shapes = [tuple(a.shape) for a in (distributions, arrays["reached"], arrays["similarities"])]
    if points.ndim != 2 or shapes != [(m, c), (m,), tuple(indices.shape)]:
        raise ValueError("its arrays do not fit each other")
    return Index(
        Propagator.default(**parts),
        torch.from_numpy(arrays["total"]) if "total" in arrays else None,
        points,
        Neighbors(indices, torch.from_numpy(arrays["similarities"])),
        distributions,
        arrays["reached"].astype(bool),
        parts["refiner"].restore(state) if state else None,
        float(about["largest_certainty"]),
        about["classes"],
        about["embedding"],
        None if about.get("temperature") is None else float(about["temperature"]),
    )
