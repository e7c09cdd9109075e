"""Writing a file whole or not at all, so that a crash or a full disk destroys nothing; JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dlp_plugins.errors import SaveError, UsageError


@contextlib.contextmanager
def replacing(path: Path, advice: str = "", previous: Path | None = None) -> Iterator[Path]:
    """A new, empty file beside `path` that takes its place only once it is wholly written.

    The temporary name is random and the file must not exist yet, so neither another process nor a
    link or a pipe that lies in the folder is ever written to. A link called `path` is replaced, not
    followed. The mode is what the umask leaves.

    Args:
        advice: a sentence that ends the error message.
        previous: where the file that is replaced goes, once the new one is whole on the disk.

    Raises:
        SaveError: it could not be written; `path` is as it was and the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    made = False
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        made = True
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        if previous is not None and path.is_file():
            path.replace(previous)
        temporary.replace(path)
        made = False
    except OSError as error:
        if not path.parent.is_dir():
            raise SaveError(
                f"{path} could not be written: there is no folder {path.parent}. "
                "Was it moved or removed?"
            ) from error
        sentences = [
            f"{path} could not be written: {error.strerror or error}.",
            "What was there before is intact.",
            advice,
        ]
        raise SaveError(" ".join(filter(None, sentences))) from error
    finally:
        if made:
            with contextlib.suppress(OSError):
                temporary.unlink()


def left_over(names: Iterable[str]) -> re.Pattern[str]:
    """What the temporary files of `replacing` are called, for files of these names."""
    return re.compile(rf"\.({'|'.join(map(re.escape, names))})\.[0-9a-f]+\.tmp")


def remove_left_over(folder: Path, names: Iterable[str]) -> None:
    """Remove the temporary files of processes that were killed while they wrote these.

    For whoever holds a lock on the files: another process's file in the making looks the same.
    """
    temporary = left_over(names)
    for path in folder.iterdir():
        if temporary.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def check_place(
    path: Path,
    formats: Sequence[str],
    what: str,
    overwrite: bool,
    inputs: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Refuse a path that cannot be written, before time is spent on what should go there.

    Args:
        inputs: what is read, by the option or argument that names it; None for none. Such a file is
            not replaced, nor one in such a folder, whatever was asked for.

    Raises:
        UsageError: not one of the suffixes, no such folder, a file that is there already, an input.
    """
    if path.suffix not in formats:
        raise UsageError(f"{path}: {what} is written as {' or '.join(formats)}.")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder.")
    for option, given in inputs.items():
        read = isinstance(given, Path | str) and path.exists() and Path(given).exists()
        if read and (path.samefile(given) or Path(given).resolve() in path.resolve().parents):
            raise UsageError(
                f"{path}: this command reads it ({option}), so {what} must go elsewhere. Nothing "
                "was changed."
            )
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists already. Add --overwrite to replace it.")


def write_text(path: Path, text: str, advice: str = "") -> None:
    """Write a text file whole or not at all.

    Raises:
        SaveError: as `replacing`.
    """
    with replacing(path, advice) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text. A number that is not finite becomes null, as JSON has no NaN."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
