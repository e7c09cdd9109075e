"""`partial_fit` of ten batches of 1 % of the points, against a fit of all points.

    python benchmarks/partial_fit_speed.py [--points 50000]

The first 90 % of the points of a mixture (128 numbers, 10 classes, 10 labels per class) are fitted,
the rest comes in ten batches. Agreement is over all points.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import reference
from benchmarks.timing import timed
from dlp_plugins.sklearn import GraphLabelPropagation

BATCHES = 10


def compare(points: int, classes: int = 10, graph: str = "auto") -> None:
    x, truth = reference.mixture(points, classes)
    labels = reference.some_labels(truth, 10)
    size = points // 100
    first = points - BATCHES * size
    timed(lambda: GraphLabelPropagation().fit(x[:2000], truth[:2000]))  # imports
    model = GraphLabelPropagation(graph=graph).fit(x[:first], labels[:first])
    batches = []
    for start in range(first, points, size):
        rows = slice(start, start + size)
        batches.append(timed(partial(model.partial_fit, x[rows], labels[rows])))
    whole = timed(partial(GraphLabelPropagation(graph=graph).fit, x, labels))
    agree = 100 * (model.transduction_ == whole.result.transduction_).mean()
    wall, cpu = median(b.wall for b in batches), median(b.cpu for b in batches)
    print(
        f"{points:,} x 128, {classes} classes: fit {whole.wall:.1f} wall s, {whole.cpu:.1f} CPU s; "
        f"a batch of {size:,} {wall:.2f} wall s, {cpu:.2f} CPU s ({cpu / whole.cpu:.3f} of a fit, "
        f"in wall s {wall / whole.wall:.3f}); labels agree on {agree:.2f} %"
    )
    for name, found in (("partial_fit", model), ("fit", whole.result)):
        accuracy = 100 * (found.transduction_ == truth).mean()
        print(f"  accuracy by {name} {accuracy:.2f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=50_000)
    compare(parser.parse_args().points)


if __name__ == "__main__":
    main()
