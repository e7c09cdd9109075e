"""Sizes and counts as people write them: 4GB, 512MiB, 100M, 1 thread, 2 threads."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dlp_plugins.errors import UsageError

MOST = 10**18  # of what is counted, far beyond what any machine holds
MOST_CLASSES = 10  # counted one by one
SHOWN = 40  # letters of a text in an error
DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}
BYTES = {
    f"{prefix}{suffix}": (1024**power if "i" in suffix else 1000**power)
    for power, prefix in enumerate("kmgt", start=1)
    for suffix in ("", "b", "ib")
} | {"": 1, "b": 1}


def parse_count(text: str) -> int:
    """'100M' to 100,000,000. Suffixes k, M, G or B, T; UsageError for all else, also under 1."""
    return _parse(text, DECIMAL, "a count such as 50000, 100k or 1.5M")


def parse_bytes(text: str) -> int:
    """'4GB' to 4,000,000,000 and '4GiB' to 4 x 2^30. UsageError for anything else or under 1."""
    return _parse(text, BYTES, "a size such as 4GB, 512MB or 16GiB")


def _parse(text: str, units: dict[str, int], wanted: str) -> int:
    match = re.fullmatch(r"(\d[\d_]*\.?\d*)\s*([a-z]*)", text.strip().lower())
    if match is None or match[2] not in units or (value := float(match[1]) * units[match[2]]) < 1:
        raise UsageError(f"'{text}' is not {wanted}.")
    if value > MOST:
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
        raise UsageError(f"'{shown}' is too large: at most {MOST:.0e}.")
    return round(value)


def format_bytes(size: float) -> str:
    """Bytes in the largest decimal unit that leaves at least 1: '4.2 GB'."""
    return _format(size, [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")], "B")


def format_seconds(seconds: float) -> str:
    """Seconds in the unit a person would use: '12 s', '3.4 min', '2.1 h', '5 days'."""
    return _format(seconds, [(2 * 86400, "days"), (5400, "h"), (120, "min")], "s")


def counted(count: int, one: str, many: str = "") -> str:
    """The count with its noun: '1 thread', '2 threads', '1,347 classes' (many='classes')."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def counts_by_class(counts: Sequence[int], classes: Sequence[object] | None = None) -> str:
    """Points of each class; of many classes the range and the median.

    classes: their names, by default their numbers.
    """
    if len(counts) <= MOST_CLASSES:
        names = range(len(counts)) if classes is None else classes
        return ", ".join(f"{c}: {n:,}" for c, n in zip(names, counts, strict=True))
    middle = sorted(counts)[len(counts) // 2]
    return f"from {min(counts):,} to {max(counts):,}, median {middle:,}"


def _format(value: float, units: list[tuple[float, str]], base: str) -> str:
    scale = {"days": 86400.0, "h": 3600.0, "min": 60.0}
    for least, name in units:
        if value >= least:
            return f"{value / scale.get(name, least):,.1f} {name}"
    return f"{value:.2g} {base}" if value < 10 else f"{value:.0f} {base}"
