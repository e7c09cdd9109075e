"""The most and the least certain images."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from dlp_plugins.datasets._files import UNREADABLE
from dlp_plugins.report.page import Gallery, Picture
from dlp_plugins.report.points import Absent, Points, Thumbnail

SHOWN = 12
SIDE = 96  # pixels of a picture's longer side


def galleries(
    name: str, points: Points | Absent, thumbnail: Thumbnail | Absent, title: str
) -> list[Gallery | Absent]:
    """Most certain, least certain, and where truth is known the most certain of the wrong ones."""
    if isinstance(points, Absent):
        return [points]
    if isinstance(thumbnail, Absent):
        return [thumbnail]
    shown = np.flatnonzero(~points.known & (points.labels >= 0))
    order = shown[np.argsort(-points.certainty[shown], kind="stable")]
    parts = {"Most certain": order, "Least certain": order[::-1]}
    if len(points.measured):
        wrong = points.measured[~points.right]
        parts["Most certain and wrong"] = order[np.isin(order, wrong)]
    found: list[Gallery | Absent] = []
    for number, (part, chosen) in enumerate(parts.items()):
        pictures = [_picture(points, int(i), thumbnail) for i in chosen[:SHOWN]]
        if there := [p for p in pictures if p is not None]:
            caption = f"Label, {points.certainty_name}, name"
            caption += "; wrong labels are framed." if len(points.measured) else "."
            found.append(Gallery(f"{name}-{number}", f"{part}{title}", caption, there))
    return found or [Absent("No image can be shown: none can be read, or none was labelled.")]


def _picture(points: Points, i: int, thumbnail: Thumbnail) -> Picture | None:
    image = thumbnail(i)
    if image is None:
        return None
    label = points.class_name(int(points.labels[i]))
    lines = [label, f"{points.certainty[i]:.2f}"]
    wrong = points.truth is not None and points.truth[i] not in (-1, points.labels[i])
    if wrong:
        assert points.truth is not None
        lines.append(f"is {points.class_name(int(points.truth[i]))}")
    return Picture(image, lines, points.names[i], wrong)


def small(image: Image.Image) -> bytes:
    """A thumbnail of SIDE pixels: PNG where the image is that small already, else JPEG."""
    buffer, shown = io.BytesIO(), image.convert("RGB")
    if max(shown.size) <= SIDE:
        shown.save(buffer, "PNG")
    else:
        shown.thumbnail((SIDE, SIDE))
        shown.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def smaller(image: bytes | None) -> bytes | None:
    """The same of an image in a file's bytes; None where it cannot be read."""
    if image is None:
        return None
    try:
        with Image.open(io.BytesIO(image), formats=("PNG", "JPEG")) as opened:
            return small(opened)
    except UNREADABLE:
        return None
