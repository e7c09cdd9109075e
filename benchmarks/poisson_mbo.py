"""Solvers with class sizes on one graph: accuracy and CPU seconds, beside graphlearning's.

    python benchmarks/poisson_mbo.py [--set NAME] [--method PART] [--draws 20] [--per-class 1]
        [--peer PYTHON]

The graph and the labels are the same for all: that of the default (rescaled, k = 10), labels drawn
by seeds 0 to 19. Class sizes are the true ones, except where the table says otherwise. Accuracy is
over the unlabelled points: of the solver's scores alone, and with what `dlp propagate` does after
them, class mass and the discriminant. `--peer` is a Python with graphlearning 1.7.5 (`pip install
graphlearning==1.7.5` in an environment of its own); where its solve of a label set takes minutes,
`--peer-draws` compares fewer sets.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks._sets import draw, parser_with_data
from benchmarks.label_quality import SETS
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.graph import Graph
from dlp_plugins.recipe.build import build_propagator

PEER = Path(__file__).with_name("_graphlearning_peer.py")
WRONG = 0.2  # every class's size is given too large or too small by this share of it


def true_shares(y: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.bincount(y[labels < 0], minlength=y.max() + 1) / (labels < 0).sum()


def wrong_shares(y: np.ndarray, labels: np.ndarray) -> np.ndarray:
    signs = np.resize([1, -1], y.max() + 1)
    np.random.default_rng(0).shuffle(signs)
    shares = true_shares(y, labels) * (1 + WRONG * signs)
    return shares / shares.sum()


def equal_shares(y: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.full(y.max() + 1, 1 / (y.max() + 1))


Shares = Callable[[np.ndarray, np.ndarray], np.ndarray]
ALONE = ("normalizer=clamp", "refiner=none")
MBO = ("solver=poisson_mbo",)
BY_MASS = ("solver=poisson_mbo", "solver.projection=class_mass")
EXACT = ("solver=poisson_mbo", "solver.slack=0")
CUT = ("solver=cut",)
METHODS: dict[str, tuple[tuple[str, ...], Shares]] = {
    "poisson": (("solver=poisson", *ALONE), equal_shares),
    "poisson_mbo, class mass": ((*BY_MASS, *ALONE), equal_shares),
    "poisson_mbo, equal sizes": ((*MBO, *ALONE), equal_shares),
    "poisson_mbo, sizes wrong by 20 %": ((*MBO, *ALONE), wrong_shares),
    "poisson_mbo, true sizes": ((*MBO, *ALONE), true_shares),
    "slack 0, equal sizes": ((*EXACT, *ALONE), equal_shares),
    "slack 0, sizes wrong by 20 %": ((*EXACT, *ALONE), wrong_shares),
    "slack 0, true sizes": ((*EXACT, *ALONE), true_shares),
    "cut, sizes wrong by 20 %": ((*CUT, *ALONE), wrong_shares),
    "cut, true sizes": ((*CUT, *ALONE), true_shares),
    "poisson_mbo and discriminant, sizes wrong by 20 %": (MBO, wrong_shares),
    "poisson_mbo and discriminant, true sizes": (MBO, true_shares),
    "slack 0 and discriminant, sizes wrong by 20 %": (EXACT, wrong_shares),
    "slack 0 and discriminant, true sizes": (EXACT, true_shares),
    "cut and discriminant, sizes wrong by 20 %": (CUT, wrong_shares),
    "cut and discriminant, true sizes": (CUT, true_shares),
    "the default, sizes wrong by 20 %": ((), wrong_shares),
    "the default, true sizes": ((), true_shares),
}


def measure(
    settings: Sequence[str],
    shares: Shares,
    graph: Graph,
    f: torch.Tensor,
    y: np.ndarray,
    labels: np.ndarray,
) -> tuple[float, float]:
    """Accuracy in percent and CPU seconds of one label set."""
    pi = tuple(map(float, shares(y, labels)))
    blind = settings[:1] == ("solver=poisson",)
    made = build_propagator(propagation_recipe(settings))
    made = made if blind else replace(made, class_shares=pi)
    begin = time.process_time()
    found = made.spread(graph, torch.from_numpy(labels), y.max() + 1, descriptors=f)
    seconds = time.process_time() - begin
    return 100 * float((found.labels.numpy() == y)[labels < 0].mean()), seconds


def peer(python: str, graph: Graph, y: np.ndarray, sets: list[np.ndarray]) -> np.ndarray:
    """[sets, 2] as `measure`, of graphlearning."""
    root = sp.diags(np.sqrt(graph.degree.numpy().astype(float)))
    w = (root @ graph.to_scipy().astype(float) @ root).tocsr()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        np.savez(
            path, data=w.data, indices=w.indices, indptr=w.indptr, truth=y, labels=sets,
            numbers=range(len(sets)), priors=np.bincount(y) / len(y),
        )  # fmt: skip
        done = subprocess.run([python, PEER, path], stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return np.array([(line["accuracy"], line["cpu"]) for line in lines])


def show(name: str, found: np.ndarray) -> None:
    mean, deviation = found.mean(axis=0), found.std(axis=0, ddof=1) if len(found) > 1 else (0, 0)
    print(f"| {name} | {mean[0]:.1f} ± {deviation[0]:.1f} | {mean[1]:.2f} |", flush=True)


def compare(path: Path, title: str, options: argparse.Namespace) -> None:
    with np.load(path) as file:
        x, y = file["x"], file["y"].astype(int)
    made = build_propagator(propagation_recipe([]))
    f = made.apply_transform(torch.from_numpy(x))
    graph = made.assemble_graph(made.find_neighbors(f))
    sets = [draw(y, options.per_class, seed) for seed in range(options.draws)]
    print(f"\n**{title}**, {options.per_class} per class, {len(sets)} label sets\n")
    print("| solver | accuracy | CPU seconds |\n| --- | --- | --- |")
    for name, (settings, shares) in METHODS.items():
        if options.method in name:
            show(name, np.array([measure(settings, shares, graph, f, y, y_l) for y_l in sets]))
    if options.peer:
        few = sets[: options.peer_draws]
        show(f"graphlearning's, {len(few)} label sets", peer(options.peer, graph, y, few))


def main() -> None:
    parser = parser_with_data(__doc__)
    parser.add_argument("--set", choices=SETS, help="one set; by default all three")
    parser.add_argument("--method", default="", help="rows with this in their name; default: all")
    parser.add_argument("--draws", type=int, default=20, help="label sets")
    parser.add_argument("--per-class", type=int, default=1, help="labels per class")
    parser.add_argument("--peer", metavar="PYTHON", help="one with graphlearning")
    parser.add_argument("--peer-draws", type=int, default=20, help="label sets for graphlearning")
    options = parser.parse_args()
    for name, (title, _) in SETS.items():
        if options.set in (None, name):
            compare(options.data / f"{name}.npz", title, options)


if __name__ == "__main__":
    main()
