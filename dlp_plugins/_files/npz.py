"""Arrays of an .npz that may be a stranger's: a small file may unpack to a huge one."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import psutil
from numpy.lib import format as npy

from dlp_plugins.errors import DataError
from dlp_plugins.units import format_bytes


class Member:
    """One array, of which the header alone is read until it is loaded."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        self._archive, self._member = archive, member
        with archive.open(member) as file:
            version = npy.read_magic(file)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            self.shape, _, self.dtype = read(file)

    @property
    def name(self) -> str:
        return self._member.filename.removesuffix(".npy")

    @property
    def nbytes(self) -> int:
        """Once it is unpacked: as its header says, or as the archive does."""
        return max(math.prod(self.shape) * self.dtype.itemsize, self._member.file_size)

    def load(self, path: Path, budget: float | None = None, advice: str = "") -> np.ndarray:
        """The array.

        Args:
            path: for messages. budget, advice: as `check_size` takes them.

        Raises:
            DataError: it takes more.
        """
        check_size(path, self.nbytes, budget, advice)
        with self._archive.open(self._member) as file:
            return npy.read_array(file, allow_pickle=False)


def members(archive: zipfile.ZipFile) -> dict[str, Member]:
    """All arrays by their names."""
    found = (Member(archive, info) for info in archive.infolist())
    return {member.name: member for member in found}


def check_size(path: Path, size: float, budget: float | None = None, advice: str = "") -> None:
    """Raise DataError where a file's contents take more bytes than memory may hold.

    Args:
        size: bytes once it is unpacked. budget: bytes that may be used; by default what is free.
        advice: a sentence at the message's end.
    """
    most = psutil.virtual_memory().available if budget is None else budget
    if size > most:
        raise DataError(
            f"{path}: takes {format_bytes(size)} once it is unpacked, and {format_bytes(most)} of "
            f"memory may be used. {advice}".rstrip()
        )
