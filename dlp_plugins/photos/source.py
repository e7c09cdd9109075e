"""Photos wherever they are: a folder, a list of files, Parquet files, a Hugging Face data set."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dlp_plugins.datasets import _files, _parquet
from dlp_plugins.datasets._encoded import EncodedReader
from dlp_plugins.datasets.contract import list_unreadable
from dlp_plugins.errors import DataError

HUB = "hf:"
COLUMN = "file"
LISTS = (".csv", ".txt")
KINDS = (
    "a folder of images, a list of files (.txt, or .csv with a column 'file'), a Parquet file or a "
    f"folder of them, or {HUB}NAME of the Hugging Face hub"
)
Read = Callable[[int], Tensor]


@dataclass(frozen=True)
class Photos:
    """Images that are decoded when they are needed.

    names: of the images in their order, all different.
    reader: (size, interpolation) to a function from a position to [3, height, width] uint8; that
        one raises DataError on an image that cannot be read.
    stamp: changes when an image does, as far as its size and time tell.
    """

    names: Sequence[str]
    reader: Callable[[tuple[int, int], str], Read]
    stamp: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.names)


def open_photos(where: str | Path, column: str | None = None, split: str = "train") -> Photos:
    """The images that `where` names: see KINDS.

    Names are paths below the folder; lines of the list, whose paths count from the list's own
    folder; the paths that a table holds, where they differ, else positions from 0.

    Args:
        column: of the images in a table, where several may hold them.
        split: of a Hugging Face data set or a folder of Parquet files.

    Raises:
        DataError: there is nothing there, no image in it, or a name twice.
        MissingDependency: a package for this kind is not installed.
    """
    text = str(where)
    if text.startswith(HUB):
        found = _of_hub(text.removeprefix(HUB), column, split)
    else:
        path = Path(where)
        if path.is_dir():
            found = _of_folder(path, column, split)
        elif path.suffix == ".parquet" and path.is_file():
            found = _of_parquet([path], column, text)
        elif path.suffix in LISTS and path.is_file():
            found = _of_list(path)
        elif path.exists():
            raise DataError(f"{where}: photos are given as {KINDS}.")
        else:
            raise DataError(f"{where}: there is no such file or folder. Photos are {KINDS}.")
    if len(found) == 0:
        raise DataError(f"{where}: there is no image. Images end in {', '.join(_files.ENDINGS)}.")
    return found


def _of_folder(folder: Path, column: str | None, split: str) -> Photos:
    left_out: Counter[str] = Counter()
    paths = _files.list_images(folder, left_out)
    if not paths and left_out[".parquet"]:
        return _of_parquet(_parquet.find_files(str(folder), split), column, str(folder))
    _files.warn_of_left_out(folder, left_out)
    return _of_files(paths, [path.relative_to(folder).as_posix() for path in paths])


def _of_list(file: Path) -> Photos:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as a list of files: {error}.") from error
    names = [line.strip() for line in text.splitlines()]
    if file.suffix == ".csv":
        rows = csv.DictReader(text.splitlines())
        if COLUMN not in (rows.fieldnames or ()):
            raise DataError(f"{file}: call the column of paths '{COLUMN}'.")
        names = [(row[COLUMN] or "").strip() for row in rows]
    names = [name for name in names if name]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(f"{file}: {twice[0]} is listed more than once ({len(twice)} such).")
    return _of_files([file.parent / name for name in names], names)


def _of_files(paths: Sequence[Path], names: Sequence[str]) -> Photos:
    def stamp(i: int) -> str:
        try:
            found = paths[i].stat()
        except OSError:
            return "missing"
        return f"{found.st_size} {found.st_mtime_ns}"

    def reader(size: tuple[int, int], interpolation: str) -> Read:
        return _files.FileReader(paths, size, interpolation)

    return Photos(names, reader, stamp)


def _of_parquet(files: Sequence[Path], column: str | None, where: str) -> Photos:
    images = _parquet.read_images(files, column)
    stats = [file.stat() for file in files]
    stamp = " ".join([str(column), *(f"{s.st_size} {s.st_mtime_ns}" for s in stats)])
    return _of_column(images, where, stamp)


def _of_hub(name: str, column: str | None, split: str) -> Photos:
    from dlp_plugins.datasets import huggingface

    images, fingerprint = huggingface.images_of(name, column, split)
    return _of_column(images, HUB + name, f"{column} {split} {fingerprint}")


def _of_column(images: object, where: str, stamp: str) -> Photos:
    """stamp: tells these images from those of other files, columns and splits."""

    def reader(size: tuple[int, int], interpolation: str) -> Read:
        return EncodedReader(images, size, where, interpolation)

    return Photos(_parquet.image_names(images), reader, lambda i: stamp)


def warn_of_skipped(problems: Sequence[str], total: int) -> None:
    """Warn that images were left out, and name them."""
    if problems:
        warnings.warn(f"Left out: {list_unreadable(problems, total)}", stacklevel=2)
