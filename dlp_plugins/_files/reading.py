"""Reading a text or JSON file that may be a stranger's: a regular file, of a bounded size."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

MOST_JSON = 2**26  # bytes; the indices of 8 million images


def read_text(path: Path, most: int) -> str:
    """The text of a UTF-8 file of at most `most` bytes.

    Raises:
        OSError: it cannot be read. ValueError: it is no regular file (a pipe would wait for ever, a
            device never end), larger, or not UTF-8.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a regular file")
    if found.st_size > most:
        raise ValueError(f"it has {found.st_size:,} bytes; at most {most:,} are read")
    return path.read_text(encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError, ValueError: as `read_text`, or it is not JSON.
    """
    return parse_json(read_text(path, MOST_JSON))


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds; ValueError where it is none, or nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
