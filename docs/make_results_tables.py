"""Print the paper's rows beside ours, as docs/results.md holds them.

python docs/make_results_tables.py [SUITE.toml FOLDER]

Without arguments: recipes/suites/paper_table.toml. FOLDER is what `dlp bench SUITE --out FOLDER`
wrote; a row without a finished run there is 'not run'.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dlp_plugins.bench.suite import Cell, load_suite


def main(suite: str = "recipes/suites/paper_table.toml", folder: str = "runs/paper") -> None:
    rows: dict[str, list[Cell]] = {}
    for cell in load_suite(Path(suite)).cells:
        rows.setdefault(cell.row, []).append(cell)
    print("| row | command | published | ours (student) | on |")
    print("| --- | --- | ---: | ---: | --- |")
    for name, cells in rows.items():
        mean, deviation = cells[0].published or (float("nan"), None)
        published = f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")
        print(f"| {name} | `{command(cells[0])}` | {published} | {ours(cells, Path(folder))} |")


def command(cell: Cell) -> str:
    """What runs this row's first seed."""
    data_set, method, labels = cell.row.split(",")[0].split(" ")
    return f"dlp run {method}_{data_set} --set dataset.num_labeled={labels}"


def ours(cells: list[Cell], folder: Path) -> str:
    key = "test_error_top5" if "top 5" in cells[0].row else "test_error"
    found = [folder / c.folder for c in cells if (folder / c.folder / "summary.json").is_file()]
    if not found:
        return "not run | "
    errors = [json.loads((f / "summary.json").read_text())[key] for f in found]
    environment = json.loads((found[0] / "environment.json").read_text())
    return f"{sum(errors) / len(errors):.2f} ({len(errors)} seeds) | {environment['device']}"


if __name__ == "__main__":
    main(*sys.argv[1:])
