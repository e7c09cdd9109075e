"""How good `probability` and `unknown` are on three sets of embeddings: `make bench-calibration`.

Ten draws of m labels per class, as benchmarks/label_quality.py draws them; figures over the
unlabelled points, means over the draws, as Markdown:

- expected calibration error (15 bins) of the raw largest probability, and of `probability`;
- AUROC of right against wrong labels, by the table's `margin` and by `probability`;
- the temperature, and accuracy where the 50 and 80 % most probable labels are kept;
- AUROC of points of classes without a label (a third, drawn with each seed) against the others, by
  `unknown` and by 1 - `probability` (at the fixed temperature).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks._sets import draw, parser_with_data
from benchmarks.label_quality import PER_CLASS, SETS, row
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.graph import Graph
from dlp_plugins.propagation import Propagator, PseudoLabels
from dlp_plugins.propagation.beliefs import PLAIN
from dlp_plugins.propagation.calibration import fixed
from dlp_plugins.propagation.quality import calibration_error, coverage, ranking
from dlp_plugins.recipe.build import build_propagator

MOST_ERROR = 0.06  # of `probability`, from two labels per class on
KEPT = (0.5, 0.8)
FIGURES = (
    "calibration error, raw", "calibration error, `probability`", "AUROC, `margin`",
    "AUROC, `probability`", "temperature",
    *(f"accuracy of the {100 * k:.0f} % surest" for k in KEPT),
)  # fmt: skip


class Task:
    """One set of embeddings and its graph, which does not depend on labels."""

    def __init__(self, propagator: Propagator, path: Path) -> None:
        with np.load(path) as file:
            x, self.y = file["x"], file["y"]
        self.propagator = propagator
        self.classes = len(np.unique(self.y))
        self.f = propagator.apply_transform(torch.from_numpy(x))
        self.graph: Graph = propagator.assemble_graph(propagator.find_neighbors(self.f))

    def label(
        self, labels: np.ndarray, classes: int, calibrated: bool = False, unknown: bool = False
    ) -> PseudoLabels:
        """As `dlp propagate` does."""
        given, made = torch.from_numpy(labels), self.propagator
        found = made.spread(self.graph, given, classes, None, self.f)
        return made.assess(found, self.graph, given, self.f, PLAIN, calibrated, unknown)

    def sureness(self, per_class: int, seed: int) -> list[float]:
        """FIGURES of one draw."""
        labels = draw(self.y, per_class, seed)
        hidden = torch.from_numpy(labels < 0)
        found = self.label(labels, self.classes, calibrated=True)
        q, p = found.probabilities[hidden], found.probability
        assert p is not None
        assert found.calibration is not None
        p, right = p[hidden], (found.labels == torch.from_numpy(self.y))[hidden]
        best = q.topk(2, dim=1).values
        kept = coverage(p, right, KEPT)
        return [
            calibration_error(best[:, 0], right), calibration_error(p, right),
            ranking(best[:, 0] - best[:, 1], right), ranking(p, right),
            found.calibration.temperature, *kept,
        ]  # fmt: skip

    def unknown(self, per_class: int, seed: int) -> list[float]:
        """AUROC of held-out classes by `unknown` and by 1 - `probability`, of one draw."""
        rng = np.random.default_rng(1000 + seed)
        known = np.sort(rng.choice(self.classes, round(self.classes * 2 / 3), replace=False))
        number = np.full(self.classes + 1, -1)
        number[known] = np.arange(len(known))
        labels = number[draw(self.y, per_class, seed)]
        hidden = labels < 0
        found = self.label(labels, len(known), unknown=True)
        assert found.unknown is not None
        likely = fixed(per_class, True, "").probability(found.probabilities, found.labels)
        other = torch.from_numpy(number[self.y][hidden] < 0)
        hidden = torch.from_numpy(hidden)
        return [ranking(found.unknown[hidden], other), ranking(-likely[hidden], other)]


def show(task: Task, title: str, draws: int) -> bool:
    """Print the table of one set; whether `probability` is as good as it should be."""
    sure = np.array([[task.sureness(m, s) for s in range(draws)] for m in PER_CLASS]).mean(axis=1)
    other = np.array([[task.unknown(m, s) for s in range(draws)] for m in PER_CLASS]).mean(axis=1)
    print(f"\n**{title}**\n")
    print(row("labels per class", map(str, PER_CLASS)))
    print(row("---", ("---",) * len(PER_CLASS)))
    for name, figures in zip(FIGURES, sure.T, strict=True):
        print(row(name, [f"{x:.1f}" if name == "temperature" else f"{x:.3f}" for x in figures]))
    names = ("AUROC of unknown classes, `unknown`", "AUROC of unknown classes, 1 - `probability`")
    for name, figures in zip(names, other.T, strict=True):
        print(row(name, [f"{x:.3f}" for x in figures]), flush=True)
    errors, margins, probabilities = sure[1:, 1], sure[1:, 2], sure[1:, 3]
    return bool((errors < MOST_ERROR).all() and (probabilities >= margins).all())


def main() -> None:
    parser = parser_with_data(__doc__)
    parser.add_argument("--draws", type=int, default=10, help="draws of labelled points")
    parser.add_argument("--sets", nargs="*", default=list(SETS), help="which of the files")
    arguments = parser.parse_args()
    propagator = build_propagator(propagation_recipe([]))
    good = [
        show(Task(propagator, arguments.data / f"{name}.npz"), SETS[name][0], arguments.draws)
        for name in arguments.sets
    ]
    if not all(good):
        sys.exit(
            f"A calibration error is not below {MOST_ERROR}, or an AUROC below the margin's, with "
            "two labels per class or more."
        )


if __name__ == "__main__":
    main()
