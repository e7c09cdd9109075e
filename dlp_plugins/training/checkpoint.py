"""Checkpoints: every tensor and number a resumed run needs, in one safetensors file.

One file, so that one rename replaces it: a kill at any moment leaves the old checkpoint or the
new one, whole. No random state is kept: every step is seeded by its own number (`seeds.py`).

The file's metadata hold a digest of all the rest of it, so that a damaged file is never used.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from dlp_plugins._files.writing import to_json
from dlp_plugins.errors import DataError
from dlp_plugins.training.folder import write_with

State = dict[str, Tensor]
# The file's only metadata, as one text, so that the same state always gives the same bytes.
METADATA = "checkpoint"
MARK = b'"checkpoint":"{\\"sha256\\": \\"'
BLANK = b"0" * 64  # stands in the digest's place while the digest is computed


def save(
    path: Path,
    tensors: State,
    numbers: dict[str, Any] | None = None,
    previous: Path | None = None,
) -> None:
    """Write atomically.

    previous: where the file that is replaced goes.

    Raises:
        SaveError: the disk is full or the folder cannot be written; the old file is intact.
    """
    # Copies: two names must not share memory in a safetensors file.
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    metadata = to_json({"sha256": BLANK.decode(), "numbers": numbers or {}})
    raw = bytearray(safetensors.torch.save(plain, {METADATA: metadata}))
    at = _place_of_digest(raw)
    raw[at : at + len(BLANK)] = _digest(raw, at)

    write_with(path, lambda temporary: temporary.write_bytes(raw), previous)


def load(path: Path) -> tuple[State, dict[str, Any]]:
    """Tensors on the CPU, and the numbers.

    Raises:
        DataError: missing or damaged.
    """
    try:
        if not path.is_file():  # reading a pipe would wait for ever
            raise DataError(f"{path} cannot be read: there is no such file.")
        raw = path.read_bytes()  # once: while it is read, another file may take its place
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    at = _place_of_digest(raw)
    if at < 0 or raw[at : at + len(BLANK)] != _digest(raw, at):
        raise DataError(f"{path} is damaged: its digest is not that of its contents.")
    header = json.loads(raw[8 : 8 + _header_length(raw)])
    metadata = json.loads(header["__metadata__"][METADATA])
    return safetensors.torch.load(raw), metadata["numbers"]


def _header_length(raw: bytes | bytearray) -> int:
    return int.from_bytes(raw[:8], "little")


def _place_of_digest(raw: bytes | bytearray) -> int:
    """Where the digest's 64 characters begin, -1 without one."""
    # Within the texts of the header a quotation mark has a backslash before it.
    found = raw.find(MARK, 8, 8 + _header_length(raw))
    return found + len(MARK) if found >= 0 else -1


def _digest(raw: bytes | bytearray, at: int) -> bytes:
    with memoryview(raw) as view:
        digest = hashlib.sha256(view[:at])
        digest.update(BLANK)
        digest.update(view[at + len(BLANK) :])
    return digest.hexdigest().encode()


def add_prefix(prefix: str, state: State) -> State:
    return {f"{prefix}.{k}": v for k, v in state.items()}


def with_prefix(prefix: str, state: State) -> State:
    """The entries under a prefix, without it."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
