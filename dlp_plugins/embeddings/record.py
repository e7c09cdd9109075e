"""How embeddings of photos were made: a small JSON file beside them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from dlp_plugins._files import writing
from dlp_plugins._files.reading import read_json
from dlp_plugins.errors import DataError

FORMAT = 1


@dataclass(frozen=True)
class Record:
    """How photos become embeddings: all that is needed to describe further photos alike.

    backbone: name of a component. params: its parameters.
    run: folder of the run whose network it is instead; then backbone is ''. weights: SHA-256 of
        the file of its weights. network: 'student' or 'teacher'.
    size: [height, width]. interpolation: of the resizing. mean, std: of each channel of pixels in
        0..1. flips: whether an image's embedding is the mean with that of its mirror image.
    precision: of the network's pass.
    """

    size: tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flips: bool
    precision: str
    backbone: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    run: str = ""
    weights: str = ""
    network: Literal["", "student", "teacher"] = ""

    def as_dict(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v not in ("", {})}

    @classmethod
    def from_dict(cls, found: Any, where: str) -> Record:
        """The reverse; DataError for anything else, which begins with `where`."""
        try:
            return cls(**{
                **found,
                "size": (int(found["size"][0]), int(found["size"][1])),
                "mean": tuple(map(float, found["mean"])),
                "std": tuple(map(float, found["std"])),
            })  # fmt: skip
        except (TypeError, KeyError, ValueError, IndexError) as error:
            raise DataError(
                f"{where}: does not say how its photos were described ({error!r})."
            ) from None


def record_path(embeddings: Path) -> Path:
    """Where `dlp embed` writes how embeddings were made: `x.json` beside `x.npy`."""
    return embeddings.with_suffix(".json")


def write_record(
    out: Path, record: Record, points: int, dim: int, shard: dict[str, Any] | None = None
) -> None:
    """Write it; SaveError where the disk is full or the folder cannot be written.

    Args:
        shard: which part of the photos they are, if not all.
    """
    told = {"format": FORMAT, "points": points, "dim": dim, "record": record.as_dict()}
    if shard is not None:
        told["shard"] = shard
    writing.write_text(record_path(out), writing.to_json(told, indent=2) + "\n")


def read_record(embeddings: Path) -> Record | None:
    """How a file of embeddings was made, by the file beside it; None where there is none.

    Raises:
        DataError: that file is damaged or something else.
    """
    path = record_path(embeddings)
    if not path.is_file():
        return None
    try:
        found: Any = read_json(path)
        record = found["record"] if found["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error!r}.") from None
    return Record.from_dict(record, str(path))
