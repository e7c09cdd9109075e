"""Print the paper's rows beside ours, as docs/results.md holds them.

python docs/make_results_tables.py [SUITE.toml FOLDER]

Without arguments: recipes/suites/paper_table.toml. FOLDER is what `dlp bench SUITE --out FOLDER`
wrote; a row without a finished run there is 'not run'.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dlp_plugins.bench.suite import Trial, load_suite


def main(suite: str = "recipes/suites/paper_table.toml", folder: str = "runs/paper") -> None:
    rows: dict[str, list[Trial]] = {}
    for trial in load_suite(Path(suite)).trials:
        rows.setdefault(trial.row, []).append(trial)
    print("| row | command | published | ours (student) | on |")
    print("| --- | --- | ---: | ---: | --- |")
    for name, trials in rows.items():
        mean, deviation = trials[0].published or (float("nan"), None)
        published = f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")
        print(f"| {name} | `{command(trials[0])}` | {published} | {ours(trials, Path(folder))} |")


def command(trial: Trial) -> str:
    """What runs this row's first seed."""
    data_set, method, labels = trial.row.split(",")[0].split(" ")
    return f"dlp run {method}_{data_set} --set dataset.num_labeled={labels}"


def ours(trials: list[Trial], folder: Path) -> str:
    key = "test_error_top5" if "top 5" in trials[0].row else "test_error"
    found = [folder / t.folder for t in trials if (folder / t.folder / "summary.json").is_file()]
    if not found:
        return "not run | "
    errors = [json.loads((f / "summary.json").read_text())[key] for f in found]
    environment = json.loads((found[0] / "environment.json").read_text())
    return f"{sum(errors) / len(errors):.2f} ({len(errors)} seeds) | {environment['device']}"


if __name__ == "__main__":
    main(*sys.argv[1:])
