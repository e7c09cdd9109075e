"""What the folder of `dlp bench` tells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_plugins._files.reading import read_json
from dlp_plugins.bench.suite import TABLES
from dlp_plugins.bench.table import RowResult
from dlp_plugins.errors import DataError

RESULTS = TABLES[2]


@dataclass(frozen=True)
class BenchReading:
    name: str
    command: str
    description: str
    environment: dict[str, Any]
    rows: list[RowResult]


def read_bench(folder: Path) -> BenchReading:
    """Read results.json.

    Raises:
        DataError: it is damaged.
    """
    path = folder / RESULTS
    try:
        found = read_json(path)
        rows = [_row(row) for row in found["rows"]]
        return BenchReading(
            folder.resolve().name,
            str(found.get("command", "")),
            str(found.get("description", "")),
            dict(found.get("environment", {})),
            rows,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Run the same `dlp bench` command again: it keeps "
            "what is finished and writes the table."
        ) from None


def _row(row: dict[str, Any]) -> RowResult:
    published = row.get("published")
    figure = None
    if published:
        mean, deviation = published
        figure = float(mean), None if deviation is None else float(deviation)
    values = {str(k): [float(x) for x in v] for k, v in row["values"].items()}
    if not all(math.isfinite(x) for v in values.values() for x in v):
        raise ValueError("a value is not finite")
    return RowResult(str(row["row"]), figure, values, [str(f) for f in row.get("failures", [])])
