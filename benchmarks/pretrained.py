"""What to train of a pretrained network when labels are few, on CIFAR-10, as one table.

    python benchmarks/pretrained.py --data FOLDER --out runs/pretrained

FOLDER holds CIFAR-10 in Parquet files. Of its first 10,000 training images 4 per class are labelled
(seeds 0 and 1 draw them); its first 2,000 test images are never trained on. Every row starts from
the ImageNet weights of the backbone imagenet-lite:

1. logistic regression (scikit-learn, C = 10) on embeddings: the labels alone;
2. the default of `dlp propagate` on the same embeddings;
3. the rows of recipes/suites/pretrained_cifar10.toml, trained.

Embeddings and runs are kept in --out: the same command goes on where it was broken off, and more
--seeds add to it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks._sets import DATA, ROOT
from benchmarks.photos import lines, write_split
from dlp_plugins.bench.runner import TrialDone, run_suite
from dlp_plugins.bench.suite import Suite, load_suite
from dlp_plugins.environment import describe_environment
from dlp_plugins.inputs import unit_rows
from dlp_plugins.photos.embed import embed
from dlp_plugins.sklearn import GraphLabelPropagation
from dlp_plugins.training.splits import choose_labeled

SUITE = ROOT / "recipes" / "suites" / "pretrained_cifar10.toml"
TRAIN, TEST = "cifar10_96px.npy", "cifar10_test_96px.npy"  # the suite reads the first
CLASSES = 10
COLUMNS = {
    "alone": "test images, from the labels alone",
    "pseudo": "unlabelled images, pseudo-labels",
    "final": "test images, from the pseudo-labels",
    "seconds": "seconds",
}


@dataclass
class Row:
    """Percent correct and seconds of each draw, by the keys of COLUMNS."""

    name: str
    found: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        for key, value in values.items():
            self.found.setdefault(key, []).append(value)

    def texts(self) -> list[str]:
        """The mean over the draws, and each of them."""
        return [self.name, *(_figure(self.found.get(key, [])) for key in COLUMNS)]


def _figure(values: list[float]) -> str:
    each = ", ".join(f"{v:.1f}" for v in values)
    return f"{mean(values):.1f} ({each})" if values else "-"


class Images:
    """The images in a folder, with their embeddings."""

    def __init__(self, data: Path, folder: Path, images: int, test_images: int, size: int) -> None:
        self.folder = folder / "images"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.x, self.y = self._embedded(data, "train", images, folder / TRAIN, size)
        self.test_x, self.test_y = self._embedded(data, "test", test_images, folder / TEST, size)

    def _embedded(
        self, data: Path, split: str, count: int, out: Path, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        file, y = write_split(data, split, count, self.folder)
        if not out.is_file():
            embed(file, out, size=size, progress=lines(f"embedding {split}", len(y)))
        return np.load(out), y.copy()  # Arrow's cannot be written to, of which torch warns


def embedding_rows(images: Images, suite: Suite) -> list[Row]:
    """Logistic regression and the graph, on the labels that the runs draw."""
    regression, graph = Row("logistic regression on embeddings"), Row("graph on embeddings")
    draws = {t.seed: t.recipe.dataset.num_labeled for t in suite.trials}
    for seed, count in draws.items():
        assert isinstance(count, int)
        known = choose_labeled(torch.from_numpy(images.y), count, CLASSES, seed).numpy()
        labels = np.full(len(images.y), -1)
        labels[known] = images.y[known]
        hidden = labels < 0
        unit, test = (unit_rows(torch.from_numpy(x)).numpy() for x in (images.x, images.test_x))
        plain = LogisticRegression(C=10, max_iter=1000).fit(unit[known], labels[known])
        on_test = _percent(plain.predict(test), images.test_y)
        on_hidden = _percent(plain.predict(unit[hidden]), images.y[hidden])
        regression.add(alone=on_test, pseudo=on_hidden)
        spread = GraphLabelPropagation().fit(images.x, labels)
        on_hidden = _percent(spread.transduction_[hidden], images.y[hidden])
        graph.add(pseudo=on_hidden, final=_percent(spread.predict(images.test_x), images.test_y))
    return [regression, graph]


def _percent(found: np.ndarray, truth: np.ndarray) -> float:
    return 100 * float((found == truth).mean())


def trained_rows(suite: Suite, folder: Path) -> list[Row]:
    """The suite's rows; a run that fails ends the program with its reason."""
    with contextlib.chdir(folder):  # the suite names the file of embeddings alone
        results = run_suite(suite, folder / "runs", device="cpu", listeners=[_tell])
    rows: dict[str, Row] = {}
    for result in results:
        if result.summary is None:
            sys.exit(f"{result.trial.row}, seed {result.trial.seed}: {result.failure}")
        s: dict[str, Any] = result.summary
        rows.setdefault(result.trial.row, Row(result.trial.row)).add(
            alone=100 - s["supervised_test_error"], pseudo=s["pseudo_label_accuracy"],
            final=100 - s["test_error"], seconds=s["seconds"],
        )  # fmt: skip
    return list(rows.values())


def _tell(event: object) -> None:
    if isinstance(event, TrialDone) and event.result.summary:
        trial, seconds = event.result.trial, event.result.summary["seconds"]
        load = os.getloadavg()[0]
        print(f"{trial.row}, seed {trial.seed}: {seconds:.0f} s (load {load:.1f})", flush=True)


def to_markdown(rows: list[Row]) -> str:
    table = [["row", *COLUMNS.values()], ["---"] + ["---:"] * len(COLUMNS)]
    table += [row.texts() for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in table) + "\n"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA / "cifar10", help="Parquet files")
    parser.add_argument("--out", type=Path, default=Path("runs/pretrained"))
    parser.add_argument("--images", type=int, default=10_000, help="training images")
    parser.add_argument("--test-images", type=int, default=2_000)
    parser.add_argument("--size", type=int, default=96, help="pixels a side")
    parser.add_argument("--seeds", type=int, default=2, help="draws of the labels")
    parser.add_argument("--set", action="append", dest="settings", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(words)
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    _check_same(out / "arguments.json", {k: str(v) for k, v in vars(given).items() if k != "seeds"})
    images = Images(given.data, out, given.images, given.test_images, given.size)
    settings = [
        f"dataset.path={images.folder}", f"dataset.image_size={given.size}",
        f"dataset.num_train={len(images.y)}", f"dataset.num_test={len(images.test_y)}",
        *given.settings,
    ]  # fmt: skip
    suite = load_suite(SUITE, settings, given.seeds)
    rows = embedding_rows(images, suite)
    print(to_markdown(rows), flush=True)
    rows += trained_rows(suite, out)
    table = to_markdown(rows)
    command = shlex.join(["python", "benchmarks/pretrained.py", *(words or sys.argv[1:])])
    environment = describe_environment(torch.device("cpu"))
    (out / "results.md").write_text(f"{table}\n{command}\n{json.dumps(environment)}\n")
    print(table)


def _check_same(file: Path, arguments: dict[str, str]) -> None:
    """Refuse a folder of other images or settings."""
    if file.is_file() and json.loads(file.read_text()) != arguments:
        sys.exit(f"{file.parent} holds results of other arguments. Choose another --out.")
    file.write_text(json.dumps(arguments))


if __name__ == "__main__":
    main()
