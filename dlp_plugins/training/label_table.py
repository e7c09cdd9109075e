"""The pseudo-labels of a run as a table that names the images."""

from __future__ import annotations

from dlp_plugins.embeddings.table import Column, write_rows
from dlp_plugins.training.data import RunData
from dlp_plugins.training.folder import RunFolder
from dlp_plugins.training.pseudo_labels import PseudoLabelState


def write_pseudo_label_table(folder: RunFolder, data: RunData, pseudo: PseudoLabelState) -> None:
    """Write pseudo_labels.csv, a row per training image.

    Columns: `index` (place in the data set's training split), `file` where images have names,
    `label` (name of the class, empty where no label reaches), `certainty`, and `given`: whether the
    label was known.

    Raises:
        SaveError: the disk is full or the folder cannot be written; the old table is intact.
    """
    dataset, index = data.dataset, data.indices.tolist()
    labels = pseudo.labels.cpu().tolist()
    certainty = pseudo.certainty.cpu().numpy()
    given = (data.known_labels >= 0).cpu().numpy()
    columns = [Column("index", "int64", lambda rows: index[rows])]
    if dataset.files is not None:
        columns.append(
            Column("file", "string", lambda rows: [dataset.file_of(i) for i in index[rows]])
        )
    columns += [
        Column(
            "label", "string",
            lambda rows: [dataset.classes[y] if y >= 0 else "" for y in labels[rows]],
        ),
        Column("certainty", "float32", lambda rows: certainty[rows]),
        Column("given", "bool_", lambda rows: given[rows]),
    ]  # fmt: skip
    write_rows(folder.pseudo_label_table, columns, len(index))
