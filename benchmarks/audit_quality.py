"""Finding wrong labels: `make bench-labels` runs it after the accuracy of labels.

Five labels per class, 10, 20 or 40 % of them wrong: flipped to any other class, or to the class
whose centre is nearest to that of their own. Area under the ROC curve of each score of doubt, mean
of ten draws on each of three sets, then over the sets; and what `dlp audit` itself estimates.

- margin: probability of the given label less that of the best other class, from the graph (k = 10,
  alpha = 0.9, class mass), the label being known: the `margin` of `dlp propagate` without B;
- leave-one-out: the same without that label;
- labels hidden in turn: the default's probability of the given label, five folds;
- logistic regression: scikit-learn's on unit rows, five folds (C = 10);
- SelfClean's ratio (Groeger and others, 2023): squared distances to the nearest labelled point of
  the same class and of another, d_same / (d_same + d_other);
- `dlp audit`.

Another score is one more function in SCORES: a `Case` in, larger where a label is more doubtful.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks._sets import draw, parser_with_data
from benchmarks.label_quality import DRAWS, SETS, row
from dlp_plugins.embeddings.audit import FOLDS, Audit, Evidence, folds_of
from dlp_plugins.embeddings.built import Built
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.embeddings.robust import trusted_beliefs
from dlp_plugins.inputs import unit_rows
from dlp_plugins.propagation import Propagator, influence_among
from dlp_plugins.propagation.beliefs import PLAIN
from dlp_plugins.recipe.build import build_propagator

PER_CLASS = 5
RATES = (0.1, 0.2, 0.4)
KINDS = {"random": "to any other class", "nearest": "to the nearest class"}
ESTIMATES = (
    "estimated share of wrong labels", "found likely wrong",
    "estimated share of these that is wrong", "really wrong", "wrong labels missed",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Labels of which some are wrong.

    x: [n, d] embeddings; unit: the same, unit rows.
    truth: [n]. points: [m], the labelled ones. labels: [m], as given. wrong: [m] bool.
    """

    x: np.ndarray
    unit: np.ndarray
    classes: int
    truth: np.ndarray
    points: np.ndarray
    labels: np.ndarray
    wrong: np.ndarray
    propagator: Propagator
    built: Built

    @cached_property
    def all_labels(self) -> torch.Tensor:
        """[n], -1 where there is none."""
        found = torch.full((len(self.x),), -1)
        found[self.points] = torch.from_numpy(self.labels)
        return found

    @cached_property
    def evidence(self) -> Evidence:
        return Evidence.of(
            self.propagator, self.built.f, self.built.graph, self.all_labels, self.classes
        )

    @cached_property
    def audit(self) -> Audit:
        return self.evidence.audit()

    @cached_property
    def folds(self) -> np.ndarray:
        return folds_of(torch.from_numpy(self.labels), FOLDS, seed=0).numpy()

    def less_best_other(self, p: np.ndarray) -> np.ndarray:
        """[m]: probability [m, c] of the best other class less that of the given one."""
        own = p[np.arange(len(p)), self.labels]
        other = p.copy()
        other[np.arange(len(p)), self.labels] = -1
        return other.max(axis=1) - own

    def less_own(self, p: np.ndarray) -> np.ndarray:
        return -p[np.arange(len(p)), self.labels]


def margin(case: Case) -> np.ndarray:
    among = influence_among(case.built.graph, case.points)
    g, y = among.values.numpy(), np.eye(case.classes)[case.labels]
    z = g @ (y / np.maximum(y.sum(axis=0), 1))
    mass = (among.sums.numpy() - g.sum(axis=0)) @ (y / np.maximum(y.sum(axis=0), 1))
    p = z / np.where(mass > 0, mass, np.inf)
    return case.less_best_other(p / p.sum(axis=1, keepdims=True))


def logistic_regression(case: Case) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    rows, p = case.unit[case.points], np.zeros((len(case.points), case.classes))
    for k in range(FOLDS):
        kept = case.folds != k
        model = LogisticRegression(C=10, max_iter=1000).fit(rows[kept], case.labels[kept])
        p[np.ix_(~kept, model.classes_)] = model.predict_proba(rows[~kept])
    return case.less_own(p)


def selfclean_ratio(case: Case) -> np.ndarray:
    rows = case.unit[case.points].astype(np.float64)
    distance = np.maximum(2 - 2 * rows @ rows.T, 0)
    np.fill_diagonal(distance, np.inf)
    same = case.labels[:, None] == case.labels
    own = np.where(same, distance, np.inf).min(axis=1)
    own = np.where(np.isinf(own), 4, own)  # the only label of its class: as far as can be
    other = np.where(same, np.inf, distance).min(axis=1)
    return own / (own + other)


SCORES: dict[str, Callable[[Case], np.ndarray]] = {
    "margin": margin,
    "leave-one-out": lambda case: case.less_own(case.evidence.left_out),
    "labels hidden in turn": lambda case: case.less_own(case.evidence.hidden),
    "logistic regression": logistic_regression,
    "SelfClean's ratio": selfclean_ratio,
    "**`dlp audit`**": lambda case: np.nan_to_num(case.audit.doubt),
}


def flip(labels: np.ndarray, rate: float, nearest: np.ndarray | None, seed: int) -> np.ndarray:
    """Labels [m] of which a share is of another class: any, or the `nearest` [c] of their own."""
    rng = np.random.default_rng([seed, round(100 * rate), nearest is not None])
    found, classes = labels.copy(), labels.max() + 1
    for i in rng.choice(len(labels), round(rate * len(labels)), replace=False):
        other = (labels[i] + rng.integers(1, classes)) % classes
        found[i] = other if nearest is None else nearest[labels[i]]
    return found


def nearest_classes(unit: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[c]: the class whose mean unit row has the largest cosine with that of each class."""
    centers = np.stack([unit[y == j].mean(axis=0) for j in range(y.max() + 1)])
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    cosine = centers @ centers.T
    np.fill_diagonal(cosine, -np.inf)
    return cosine.argmax(axis=1)


def auroc(score: np.ndarray, wrong: np.ndarray) -> float:
    """The share of pairs of a wrong and a right label of which the wrong one has more doubt."""
    pairs = score[wrong][:, None] - score[~wrong]
    return float((pairs > 0).mean() + (pairs == 0).mean() / 2)


def cases(path: Path, draws: int) -> Iterable[tuple[str, float, Case]]:
    with np.load(path) as file:
        x, y = file["x"].astype(np.float32), file["y"].astype(np.int64)
    unit = unit_rows(torch.from_numpy(x)).numpy()
    propagator = build_propagator(propagation_recipe([]))
    built, nearest = Built.of(propagator, torch.from_numpy(x)), nearest_classes(unit, y)
    assert built.distinct.duplicates == 0
    for seed, kind, rate in itertools.product(range(draws), KINDS, (0.0, *RATES)):
        if rate == 0 and kind != "random":
            continue
        points = np.flatnonzero(draw(y, PER_CLASS, seed) >= 0)
        labels = flip(y[points], rate, nearest if kind == "nearest" else None, seed)
        wrong = labels != y[points]
        classes = int(y.max()) + 1
        yield kind, rate, Case(x, unit, classes, y, points, labels, wrong, propagator, built)


def robust_accuracy(case: Case) -> tuple[float, float]:
    """Percent of unlabelled points with their true label, without and with doubts as weights."""
    truth, labels = torch.from_numpy(case.truth), case.all_labels
    trusted = trusted_beliefs(case.built.graph, labels, case.classes)
    found = []
    for beliefs in (PLAIN, trusted):
        assigned = case.propagator.spread(
            case.built.graph, labels, case.classes, descriptors=case.built.f, beliefs=beliefs
        ).labels
        found.append(100 * float((assigned == truth)[labels < 0].double().mean()))
    return found[0], found[1]


def compare_robust(folder: Path, sets: list[str], draws: int) -> None:
    """Print accuracies of `dlp propagate`, as it is and with --robust."""
    columns = [("random", 0.0), *itertools.product(KINDS, RATES)]
    print(row("accuracy with wrong labels", (f"{rate:.0%} {kind}" for kind, rate in columns)))
    print(row("---", ("---",) * len(columns)))
    for name in sets:
        found: defaultdict[tuple[str, float], list[tuple[float, float]]] = defaultdict(list)
        for kind, rate, case in cases(folder / f"{name}.npz", draws):
            found[kind, rate].append(robust_accuracy(case))
        for i, way in enumerate(("", ", `--robust`")):
            means = (np.mean(found[column], axis=0)[i] for column in columns)
            print(row(SETS[name][0] + way, (f"{mean:.1f}" for mean in means)), flush=True)


def main() -> None:
    parser = parser_with_data(__doc__)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--robust", action="store_true", help="accuracy with and without --robust")
    arguments = parser.parse_args()
    if arguments.robust:
        compare_robust(arguments.data, arguments.sets, arguments.draws)
        return
    found: defaultdict[tuple[str, str, float], list[float]] = defaultdict(list)
    estimates: defaultdict[tuple[str, float], list[np.ndarray]] = defaultdict(list)
    columns = list(itertools.product(KINDS, RATES))

    def table(title: str, of: Callable[[str, str, float], float]) -> None:
        print(f"\n**{title}**\n")
        print(row("wrong labels", (f"{rate:.0%} {kind}" for kind, rate in columns)))
        print(row("---", ("---",) * len(columns)))
        for name in SCORES:
            print(row(name, (f"{of(name, *column):.3f}" for column in columns)), flush=True)

    for path in arguments.sets:
        for kind, rate, case in cases(arguments.data / f"{path}.npz", arguments.draws):
            for name, score in SCORES.items() if rate else ():
                found[name + path, kind, rate].append(auroc(score(case), case.wrong))
            count, share = case.audit.likely_wrong()
            first = case.audit.order[:count]
            right = case.wrong[first].sum()
            estimates[kind, rate].append(
                np.array([case.audit.error_rate, case.wrong.mean(), count, count * share, right,
                          case.wrong.sum()])
            )  # fmt: skip
        table(SETS[path][0], lambda name, *column, path=path: np.mean(found[name + path, *column]))
    table(
        "mean over the sets",
        lambda name, *column: np.mean([np.mean(found[name + p, *column]) for p in arguments.sets]),
    )
    print("\n**what `dlp audit` estimates**, all sets and draws together\n")
    print(row("wrong labels", ESTIMATES))
    print(row("---", ("---",) * len(ESTIMATES)))
    for (kind, rate), parts in estimates.items():
        rates, total = np.mean(parts, axis=0), np.sum(parts, axis=0)
        count = max(1, total[2])
        missed = 1 - total[4] / total[5] if total[5] else 0.0
        name = f"{rate:.0%} {KINDS[kind]}" if rate else "none"
        shares = (total[3] / count, total[4] / count, missed)
        print(row(name, (f"{rates[0]:.1%}", f"{total[2]:.0f}", *(f"{s:.0%}" for s in shares))))


if __name__ == "__main__":
    main()
