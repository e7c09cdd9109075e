"""Thumbnails of the files of one folder; nothing outside it is ever opened."""

from __future__ import annotations

import io
import stat
import threading
import warnings
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from dlp_plugins.datasets._files import (
    FORMATS,
    MOST_PIXELS,
    UNREADABLE,
    eight_bits,
    list_images,
    upright,
)
from dlp_plugins.embeddings.ids import Ids
from dlp_plugins.errors import DataError
from dlp_plugins.units import counted

SIDE = 320  # pixels of a thumbnail's longer side: sharp at 160 on a screen of twice the density
KEPT_BYTES = 128 * 2**20  # of thumbnails in memory


@dataclass
class ImageFolder:
    """The image of every point.

    folder: resolved.
    names: [n], paths below the folder.
    """

    folder: Path
    names: list[str]
    _kept: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    _size: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def thumbnail(self, point: int) -> bytes | None:
        """A JPEG or PNG of the whole image; None if there is none that can be shown."""
        with self._lock:
            if point in self._kept:
                self._kept.move_to_end(point)
                return self._kept[point]
        path = self.path(point)
        try:
            made = None if path is None else _thumbnail(path)
        except UNREADABLE:
            return None
        if made is not None:
            with self._lock:
                self._size += len(made) - len(self._kept.pop(point, b""))
                self._kept[point] = made
                while self._size > KEPT_BYTES:
                    self._size -= len(self._kept.popitem(last=False)[1])
        return made

    def path(self, point: int) -> Path | None:
        """The file of a point, links followed; None if that leads out of the folder."""
        path = (self.folder / self.names[point]).resolve()
        return path if path.is_relative_to(self.folder) else None


def _thumbnail(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait, a device never end
        raise ValueError("it is not a regular file")
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError("it is too large")
        image.draft("RGB", (SIDE, SIDE))  # a JPEG is read at the least size that is large enough
        whole = eight_bits(upright(image))
        small = max(whole.size) <= SIDE
        shown = whole.convert("RGB")
        shown.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        if small:
            shown.save(buffer, "PNG")  # small images have few bytes, and every pixel shows
        else:
            shown.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()


def open_images(folder: Path, points: int, ids: Ids | None) -> ImageFolder:
    """The images of points: the files that their ids name, or all in the folder, sorted by name.

    Raises:
        DataError: no such folder, a file outside it, not one of the ids names a file, or another
            number of images.

    Warns of ids that name no file; their points are shown without an image.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder of images.")
    folder = folder.resolve()
    if ids is not None:
        images = ImageFolder(folder, [str(value) for value in ids.values])
        absent = []
        for point, name in enumerate(images.names):
            path = images.path(point)
            if path is None:
                raise DataError(
                    f"{name}: the image of point {point:,} lies outside {folder}, and nothing "
                    "outside it is shown."
                )
            if not path.is_file():
                absent.append(point)
        if absent:
            name = images.names[absent[0]]
            text = f"{folder / name}: there is no such image, but it is the id of point {absent[0]}"
            if len(absent) == points:
                raise DataError(f"{text}. Ids must be paths below the folder of images.")
            warnings.warn(
                f"{text} ({counted(len(absent), 'such point')}). It is shown without an image.",
                stacklevel=2,
            )
        return images
    found = [str(p.relative_to(folder)) for p in list_images(folder, Counter())]
    if len(found) != points:
        raise DataError(
            f"{folder} holds {len(found):,} images, but there are {points:,} points. Say which "
            "image is whose with --ids FILE: a path below the folder for each point."
        )
    return ImageFolder(folder, found)
