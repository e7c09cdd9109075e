"""A folder as a few files of at most 15 MiB each, as a transfer from a GPU machine allows."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

PART_BYTES = 15 * 2**20


class Packed(TypedDict):
    sha256: str
    parts: list[str]


def pack(root: Path, members: Iterable[Path], out: Path) -> Packed:
    """Write files and folders below `root` as out/state-DIGEST.000, .001, ...

    Returns:
        What `unpack` and `remove_others` need: the parts' names and the digest of the whole.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            archive.add(member, member.relative_to(root))
    raw = buffer.getbuffer()
    digest = hashlib.sha256(raw).hexdigest()
    names = []
    for number, first in enumerate(range(0, len(raw), PART_BYTES)):
        names.append(f"state-{digest[:8]}.{number:03d}")
        (out / names[-1]).write_bytes(raw[first : first + PART_BYTES])
    return {"sha256": digest, "parts": names}


def unpack(packed: Packed, out: Path, root: Path) -> None:
    """The reverse of `pack`, into `root`.

    Raises:
        SystemExit: a part is missing or damaged.
    """
    names = packed["parts"]
    if missing := [name for name in names if not (out / name).is_file()]:
        raise SystemExit(f"{out}: missing: {', '.join(missing)}. Put them back, or take a new DIR.")
    raw = b"".join((out / name).read_bytes() for name in names)
    if hashlib.sha256(raw).hexdigest() != packed["sha256"]:
        raise SystemExit(f"{out}: {', '.join(names)}: damaged. Put intact copies there.")
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        archive.extractall(root, filter="data")


def remove_others(packed: Packed | None, out: Path) -> None:
    """Remove the parts of earlier packings."""
    kept = packed["parts"] if packed else []
    for path in out.glob("state-*.[0-9][0-9][0-9]"):
        if path.name not in kept:
            path.unlink()
