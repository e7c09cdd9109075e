"""From an index and a file of new embeddings to a table of labels: what `dlp assign` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlp_plugins._threads import row_slices
from dlp_plugins.embeddings import table
from dlp_plugins.embeddings.clock import Progress, silent
from dlp_plugins.embeddings.features import EmbeddingFile, open_embeddings
from dlp_plugins.embeddings.ids import Ids, read_ids
from dlp_plugins.embeddings.index import Index, load_index
from dlp_plugins.embeddings.scores import Probabilities
from dlp_plugins.errors import FeatureError

BLOCK_ENTRIES = 2**24  # numbers of a block of new points


@dataclass(frozen=True)
class NewLabels:
    """Labels of b new points, as a table is written of.

    labels: [b] int64, position in `classes`, -1 where no label reaches, without a refiner.
    certainty: [b] float32, 0 where no label reaches.
    margin: [b] float32, probability of the label less that of the best other class.
    probability: [b] float32, that the label is right; None if the index is not calibrated.
    reached: [b] bool, whether a neighbour is reached by some label over the old points' graph.
    probabilities: [b, c].
    """

    labels: Tensor
    certainty: Tensor
    margin: Tensor
    probability: Tensor | None
    reached: Tensor
    probabilities: Probabilities
    classes: list[str] | list[int]
    ids: Ids | None


@dataclass(frozen=True)
class FileAssignment:
    """Labelling from files, checked and ready to run."""

    index: Index
    source: EmbeddingFile
    ids: Ids | None
    out: Path
    probabilities: bool

    def run(self, progress: Progress = silent) -> NewLabels:
        """Label the new points and write the table."""
        points = self.source.points
        progress("read", 0, points)
        rows = self.source.load(lambda done: progress("read", done, points))
        parts = []
        for block in row_slices(points, max(rows.shape[1], len(self.index.classes)), BLOCK_ENTRIES):
            parts.append(_label(self.index, rows[block]))
            progress("assign", block.stop, points)
        labels, certainty, margin, reached, p = map(torch.cat, zip(*parts, strict=True))
        found = NewLabels(
            labels, certainty, margin, self.index.probability(p, labels), reached,
            Probabilities.held(p), self.index.classes, self.ids,
        )  # fmt: skip
        table.write_table(
            self.out, found, found, self.probabilities, lambda done: progress("write", done, points)
        )
        return found


def prepare(
    index: Path | str,
    embeddings: Path | str,
    out: Path | str,
    *,
    ids: Path | str | None = None,
    key: str | None = None,
    probabilities: bool = False,
    overwrite: bool = False,
) -> FileAssignment:
    """Check everything that can be checked before the new embeddings are read.

    Args:
        index: what `dlp propagate --save-index` wrote.
        embeddings: of the new points, by the network that made the old ones.
        out: the table, .csv or .parquet.
        ids, key, probabilities, overwrite: as `Options` takes them.

    Raises:
        UsageError: a path is wrong.
        DataError, FeatureError: a file cannot be used as it is.
    """
    out = Path(out)
    table.check_out(out, overwrite, {"INDEX": index, "NEW": embeddings, "--ids": ids})
    known = load_index(index)
    source = open_embeddings(Path(embeddings), key, least=1)
    if source.dim != known.dim:
        raise FeatureError(
            f"{embeddings}: holds {source.dim:,} numbers for each point; the index was made of "
            f"{known.dim:,}. Both must be embeddings of one network."
        )
    names = source.ids if ids is None else read_ids(Path(ids), source.points)
    return FileAssignment(known, source, names, out, probabilities)


def assign_file(
    index: Path | str,
    embeddings: Path | str,
    out: Path | str,
    *,
    progress: Progress = silent,
    **options: Any,
) -> NewLabels:
    """Label new points by an index and write the table.

    Args:
        options: as `prepare` takes them.

    Raises:
        As `prepare`; SaveError: the table cannot be written.
    """
    return prepare(index, embeddings, out, **options).run(progress)


def _label(index: Index, rows: Tensor) -> tuple[Tensor, ...]:
    """Labels, certainty, margin, reached and probabilities (float32) of rows [b, d]."""
    found, reached = index.label(rows)
    p = torch.from_numpy(found.probabilities)
    best = p.topk(min(2, p.shape[1]), dim=1).values
    margin = best[:, 0] - (best[:, 1] if p.shape[1] > 1 else 0.0)
    arrays = map(torch.from_numpy, (found.labels, found.certainty, reached))
    labels, certainty, reached_by_label = arrays
    return labels, certainty, margin.float(), reached_by_label, p.float()
