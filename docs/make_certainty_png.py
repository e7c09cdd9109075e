"""Makes docs/certainty.png: certainty of right and wrong pseudo-labels as training goes on.

    python docs/make_certainty_png.py --set dataset.path=FOLDER

FOLDER holds CIFAR-10 in parquet files. Trains the recipe quick_cifar10 (or another, --recipe) and
draws its first, a middle and its last refresh, as the paper's poster does. Needs Matplotlib.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import dlp_plugins
from dlp_plugins import registry
from dlp_plugins.report.plot import BAD, GOOD
from dlp_plugins.training import events

PICTURE = Path(__file__).resolve().with_name("certainty.png")
BINS = 20


class Refresh(NamedTuple):
    """Pseudo-labels of the unlabelled images. epoch: of stage two, from 0."""

    epoch: int
    certainty: np.ndarray
    right: np.ndarray


class Refreshes:
    """Listens to a run and keeps what every refresh writes into its folder."""

    def __init__(self, folder: Path, truth: np.ndarray) -> None:
        self.folder, self.truth, self.found = folder, truth, list[Refresh]()

    def __call__(self, event: events.Event) -> None:
        if not isinstance(event, events.PseudoLabelsRefreshed):
            return
        chosen = json.loads((self.folder / "labeled_indices.json").read_text())
        with np.load(self.folder / "pseudo_labels.npz") as arrays:
            own = ~np.isin(arrays["index"], chosen["labeled_indices"])
            right = arrays["labels"] == self.truth[arrays["index"]]
            self.found.append(Refresh(event.epoch, arrays["certainty"][own], right[own]))


def draw(refreshes: list[Refresh]) -> Figure:
    edges = np.linspace(0, 1, BINS + 1)
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    for axes, refresh in zip(
        figure.subplots(1, len(refreshes), sharey=True), refreshes, strict=True
    ):
        for which, color, name in (
            (refresh.right, GOOD, "right"),
            (~refresh.right, BAD, "wrong"),
        ):
            shown = refresh.certainty[which]
            label = f"{name}, mean {shown.mean():.2f}"
            weights = np.full(len(shown), 100 / len(refresh.right))
            axes.hist(shown, edges, weights=weights, color=color, alpha=0.65, label=label)
        share = refresh.right.mean()
        axes.set_title(f"epoch {refresh.epoch + 1}: {share:.1%} right", fontsize=10, loc="left")
        axes.set(xlim=(0, 1), xlabel="certainty")
        axes.legend(frameon=False, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("% of the unlabelled images")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="quick_cifar10")
    parser.add_argument("--set", action="append", dest="settings", default=[])
    given = parser.parse_args()
    recipe = dlp_plugins.load_recipe(given.recipe, given.settings)
    dataset = registry.datasets.build(recipe.dataset.name, **recipe.dataset.params)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        listener = Refreshes(out, dataset.train.labels.numpy())
        dlp_plugins.run(recipe, out, listeners=[listener])
    found = listener.found
    draw([found[0], found[len(found) // 2], found[-1]]).savefig(PICTURE, dpi=120)
    print(f"{PICTURE.name}: {PICTURE.stat().st_size:,} bytes")
    for refresh in found:
        means = [refresh.certainty[w].mean() for w in (refresh.right, ~refresh.right)]
        print(f"epoch {refresh.epoch + 1}: {refresh.right.mean():.2%} right, certainty {means}")


if __name__ == "__main__":
    main()
