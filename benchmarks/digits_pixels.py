"""Where the default's steps harm: pixels of scikit-learn's digits, whose classes are no clusters.

    python benchmarks/digits_pixels.py

Accuracy in percent over the points without a label, nine labels per class, mean and standard
deviation of ten draws (seeds 0 to 9).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from sklearn.datasets import load_digits

from benchmarks._sets import draw
from dlp_plugins.sklearn import GraphLabelPropagation

PER_CLASS, DRAWS = 9, 10
PLAIN: dict[str, Any] = {"refiner": "none", "transformation": "none"}
METHODS: dict[str, dict[str, Any]] = {
    "the default": {},
    "refiner=none": {"refiner": "none"},
    "refiner=none, transform=none": PLAIN,
    "the same, the paper's alpha and normalizer": PLAIN | {"normalizer": "clamp", "alpha": 0.99},
}


def main() -> None:
    x, y = load_digits(return_X_y=True)
    sets = [draw(y, PER_CLASS, seed) for seed in range(DRAWS)]
    print("| | accuracy |\n| --- | --- |")
    for name, parameters in METHODS.items():
        found = []
        for labels in sets:
            model = GraphLabelPropagation(**parameters).fit(x, labels)
            found.append(100 * (model.transduction_ == y)[labels < 0].mean())
        print(f"| {name} | {np.mean(found):.1f} ± {np.std(found, ddof=1):.1f} |", flush=True)


if __name__ == "__main__":
    main()
