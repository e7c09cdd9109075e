"""Labels of held-out points by an index, against a propagation that has them among its points.

    python benchmarks/index_quality.py [--data FOLDER] [--new 0.2]

A share (a fifth) of each of three sets of embeddings is held out, ten draws of m labels per class
among the rest (seeds 0 to 9). Accuracy on the held-out points, in percent: by `Index.assign` of a
propagation without them, with points in float32 and float16, and by a propagation of all points.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks._sets import draw, parser_with_data
from benchmarks.label_quality import DRAWS, PER_CLASS, SETS, row
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.embeddings.fitted import FittedPropagation
from dlp_plugins.embeddings.index import load_index
from dlp_plugins.recipe.build import build_propagator

MOST_LOSS = 1.0  # points of accuracy, in any column


def compare(path: Path, title: str, draws: int, share: float) -> float:
    """Print the table of one set; the largest mean loss against a propagation of all points."""
    with np.load(path) as file:
        x, y = file["x"].astype(np.float32), file["y"]
    classes = len(np.unique(y))
    propagator = build_propagator(propagation_recipe([]))
    found = np.empty((3, draws, len(PER_CLASS)))
    changed = []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(y))
        old, new = np.split(order, [round((1 - share) * len(y))])
        for column, m in enumerate(PER_CLASS):
            labels = draw(y[old], m, seed)
            index = FittedPropagation.of(propagator, x[old], labels, classes).index
            with tempfile.TemporaryDirectory() as folder:
                half = Path(folder) / "half.safetensors"
                index.save(half, "float16")
                assigned = [i.assign(x[new]).labels for i in (index, load_index(half))]
            known = np.concatenate([labels, np.full(len(new), -1)])
            refit = FittedPropagation.of(propagator, x[order], known, classes).labels[len(old) :]
            found[:, seed, column] = [100 * (a == y[new]).mean() for a in (*assigned, refit)]
            changed.append((assigned[0] != assigned[1]).mean())
    print(f"\n**{title}**: {len(new):,} points held out of {len(x):,}\n")
    print(row("labels per class", map(str, PER_CLASS)))
    print(row("---", ("---",) * len(PER_CLASS)))
    for name, part in zip(("index", "index, float16", "propagation again"), found, strict=True):
        print(row(name, [f"{mean:.1f}" for mean in part.mean(axis=0)]))
    print(f"\nfloat16 changes {100 * np.mean(changed):.2f} % of labels", flush=True)
    return float((found[2] - found[0]).mean(axis=0).max())


def main() -> None:
    parser = parser_with_data(__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--new", type=float, default=0.2, help="share of points held out")
    options = parser.parse_args()
    worst = max(
        compare(options.data / f"{name}.npz", title, options.draws, options.new)
        for name, (title, _) in SETS.items()
    )
    print(f"\nlargest mean loss: {worst:.2f} points")
    if worst > MOST_LOSS:
        sys.exit(f"The index loses more than {MOST_LOSS} point.")


if __name__ == "__main__":
    main()
