"""Given labels that are likely wrong, by `embeddings.audit`."""

from __future__ import annotations

import numpy as np
import torch

from dlp_plugins.embeddings.audit import MORE_LIKELY, audit_labels
from dlp_plugins.embeddings.built import Built
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.errors import DlpError
from dlp_plugins.inputs import UNLABELED, unit_rows
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.report.page import Gallery, Picture, Sheet
from dlp_plugins.report.points import Absent, Embedded, Points, Thumbnail, percent, printable

SHOWN = 12
LEAST_DOUBT = 0.01
NO_LABELS = "Suspicious labels and marks on the map: give the known labels with --labels."


def suspicious(
    name: str,
    points: Points | Absent,
    embedded: Embedded | Absent,
    thumbnail: Thumbnail | Absent,
    title: str,
) -> Sheet | Gallery | Absent:
    """The most doubtful of the given labels of the embedded points, by the default propagation."""
    for needed in (points, embedded):
        if isinstance(needed, Absent):
            return needed
    assert isinstance(points, Points)
    assert isinstance(embedded, Embedded)
    if points.given is None:
        return Absent(NO_LABELS)
    which = embedded.points
    labels = np.where(points.given[which], points.labels[which], UNLABELED)
    present, counts = np.unique(labels[labels >= 0], return_counts=True)
    if len(present) < 2 or counts.max() < 2:
        return Absent("Suspicious labels: that needs two classes, and two labels of one of them.")
    number = np.full(len(points.classes) + 1, UNLABELED)
    number[present] = np.arange(len(present))
    try:
        propagator = build_propagator(propagation_recipe([], len(which)))
        x = unit_rows(torch.from_numpy(embedded.descriptors).double()).float()
        built = Built.of(propagator, x)
        found = audit_labels(
            propagator, built.f, built.graph, torch.from_numpy(number[labels]), len(present),
            built.distinct,
        )  # fmt: skip
    except DlpError as error:
        return Absent(f"Suspicious labels: {error}")
    count, _ = found.likely_wrong()
    caption = (
        f"{count:,} of {len(found.points):,} given labels are likely wrong; of all, an estimated "
        f"{percent(found.error_rate)} are."
    )
    rows, pictures = [], []
    for i in found.order[:SHOWN]:
        # NaN is the doubt of the only label of its class.
        if not found.doubt[i] >= LEAST_DOUBT or found.suggested[i] == found.labels[i]:
            continue
        point = int(which[found.points[i]])
        label, other = (
            points.class_name(int(present[j])) for j in (found.labels[i], found.suggested[i])
        )
        doubt = f"{found.doubt[i]:.2f}"
        rows.append((printable(points.names[point]), printable(label), printable(other), doubt))
        image = None if isinstance(thumbnail, Absent) else thumbnail(point)
        if image is not None:
            lines = [label, f"rather {other}", f"doubt {doubt}"]
            likely = bool(found.doubt[i] >= MORE_LIKELY)
            pictures.append(Picture(image, lines, points.names[point], likely))
    if not rows:
        return Absent(f"Suspicious labels: {caption} No other class is likelier.")
    if len(pictures) == len(rows):
        caption += " Framed: more likely wrong than right."
        return Gallery(name, title, caption, pictures)
    return Sheet(title, ("point", "label", "suggested", "doubt"), rows, caption, numbers=False)
