"""An index as one safetensors file: arrays, and JSON text of all the rest with a digest.

Nothing in it is executed when it is read: components are named, and built by the registry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlp_plugins._files.reading import parse_json
from dlp_plugins._files.writing import replacing, to_json
from dlp_plugins.embeddings._files import check_file, readable
from dlp_plugins.errors import DataError

SUFFIX = ".safetensors"
METADATA, DIGEST = "dlp_index", "dlp_index_sha256"  # keys of the file's metadata
FORMAT = 1  # raised whenever older code could not read the file


def write(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write the file whole or not at all.

    Raises:
        SaveError: the disk is full or the folder cannot be written; an old file is as it was.
    """
    import safetensors.numpy

    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = to_json({"format": FORMAT, **about})
    metadata = {METADATA: text, DIGEST: _digest(text, plain)}
    with replacing(path) as temporary:
        try:
            safetensors.numpy.save_file(plain, temporary, metadata)
        except safetensors.SafetensorError as error:  # how it reports a full disk
            raise OSError(str(error)) from error


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the rest of an index.

    Raises:
        DataError: no such file, not an index, of another format, or damaged.
    """
    check_file(path, (SUFFIX,), "indexes")
    with readable(path):
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if METADATA not in metadata:
                raise DataError(
                    f"{path}: is no index. `dlp propagate --save-index FILE` writes one."
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    text = metadata[METADATA]
    if metadata.get(DIGEST) != _digest(text, arrays):
        raise DataError(f"{path} is damaged: its digest is not that of its contents.")
    try:
        about = parse_json(text)
        found = about.get("format")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: is no index: {error}.") from None
    if found != FORMAT:
        raise DataError(
            f"{path}: is an index of format {found}; this version reads {FORMAT}. "
            "Write it again with `dlp propagate --save-index`."
        )
    return arrays, about


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the text and of every array with its name, type and shape."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
