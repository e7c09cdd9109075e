"""The probability that a label is right: its equation, its temperature, what it is measured by."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, roc_auc_score

from dlp_plugins.graph import Graph
from dlp_plugins.propagation import Propagator, PseudoLabels, calibration, propagate
from dlp_plugins.propagation.beliefs import PLAIN, to_beliefs
from dlp_plugins.propagation.calibration import Calibration, calibrate
from dlp_plugins.propagation.quality import Quality, calibration_error, coverage

N, C = 120, 4
DEFAULT = {
    "transform": "rescale", "normalizer": "class_mass", "refiner": "discriminant",
    "k": 10, "alpha": 0.9,
}  # fmt: skip


def points(per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clusters [n, d], and so many labels of each class, -1 elsewhere."""
    rng = np.random.default_rng(0)
    truth = np.arange(N) % C
    x = np.eye(8)[truth] + 0.5 * rng.standard_normal((N, 8))
    return x, np.where(np.arange(N) < C * per_class, truth, -1)


def test_the_equation_in_numpy() -> None:
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.ones(5), 20)
    labels = rng.integers(5, size=20)
    labels[:15] = q.argmax(axis=1)[:15]
    found = Calibration(2.5).probability(torch.from_numpy(q).float(), torch.from_numpy(labels))
    power = q ** (1 / 2.5)
    total = np.sort(power, axis=1)[:, -3:].sum(axis=1)
    np.testing.assert_allclose(found, power[np.arange(20), labels] / total, rtol=1e-5)


def test_rows_without_a_label_or_without_evidence() -> None:
    q = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    found = Calibration(3.0).probability(q, torch.tensor([-1, 0, -1, 1]))
    assert found.tolist() == [0, 1, 0, 0]
    assert Calibration(3.0).probability(torch.ones(2, 1), torch.tensor([0, 0])).tolist() == [1, 1]


def test_the_temperature_recovers_what_made_the_rows_too_sure() -> None:
    """Rows to the fourth power are right less often than they promise; many points show it."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(3, 0.7), 5_000)
    truth = (p.cumsum(axis=1) > rng.random((5_000, 1))).argmax(axis=1)
    q = p**4 / (p**4).sum(axis=1, keepdims=True)
    own = torch.nn.functional.one_hot(torch.from_numpy(truth), 3)
    found = calibration._fit(torch.from_numpy(q), own, torch.ones(5_000), 9.0, refined=True)
    assert found == pytest.approx(4, rel=0.1)
    rows = torch.from_numpy(q)
    best = rows.argmax(dim=1)
    right = best == torch.from_numpy(truth)
    assert calibration_error(Calibration(found).probability(rows, best), right) < 0.02
    assert calibration_error(rows.amax(dim=1), right) > 0.1


def test_the_temperature_in_numpy() -> None:
    x, labels = points(3)
    p, given = Propagator.default(**DEFAULT), torch.from_numpy(labels)
    f = p.apply_transform(torch.from_numpy(x))
    graph = p.assemble_graph(p.find_neighbors(f))
    rows, truth = [], []
    for hidden in calibration._folds(given, C):
        found = p.spread(graph, torch.where(hidden, -1, given), C, descriptors=f)
        rows.append(found.probabilities[hidden].double().numpy())
        truth.append(labels[hidden.numpy()])
    q = np.concatenate(rows)
    right = q.argmax(axis=1) == np.concatenate(truth)
    fewer = np.mean([(12 - len(r)) / C for r in rows])

    def loss(t: float) -> float:
        power = q ** (1 / t)
        own = power.max(axis=1) / np.sort(power, axis=1)[:, -3:].sum(axis=1)
        own = own.clip(1e-9, 1 - 1e-9)
        fit = np.where(right, np.log(own), np.log(1 - own)).sum()
        return -fewer / (fewer + 3) * fit + np.log(t / (6 * (1 + 0.6 / fewer))) ** 2 / 0.18

    grid = np.geomspace(0.1, 100, 350)
    expected = grid[np.argmin([loss(t) for t in grid])] * (1 + 0.6 / 3) / (1 + 0.6 / fewer)
    assert calibrate(p, graph, f, given, C).temperature == pytest.approx(expected, rel=1e-6)


def test_few_held_out_points_hardly_move_the_usual_temperature() -> None:
    q, own = torch.tensor([[0.9, 0.1]]), torch.tensor([[1.0, 0.0]])
    weights = torch.full((1,), 0.25)
    found = calibration._fit(q, own, weights, 9.0, refined=True)
    assert 8 < found < 9


def test_folds_hide_each_label_once_and_leave_one_of_each_class() -> None:
    labels = torch.tensor([0] * 5 + [1] * 5 + [2] * 4 + [3] * 2 + [4] + [-1] * 10)
    folds = list(calibration._folds(labels, 5))
    assert len(folds) == 3
    assert torch.stack(folds).sum(dim=0).max() == 1
    for hidden in folds:
        assert not hidden[labels == -1].any()
        assert set(labels[(labels >= 0) & ~hidden].tolist()) == {0, 1, 2, 3, 4}
    assert not list(calibration._folds(torch.tensor([0, 1, -1]), 2))


def test_two_labels_per_class_make_two_folds_that_cover_them() -> None:
    labels = torch.arange(12) // 2
    folds = torch.stack(list(calibration._folds(labels, 6)))
    assert folds.sum(dim=0).tolist() == [1] * 12


def test_held_out_labels_are_hidden_from_the_propagation(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = points(5)
    calls: list[torch.Tensor] = []
    spread = Propagator.spread

    def recorded(self: Propagator, graph: Graph, given: torch.Tensor, *rest: Any) -> PseudoLabels:
        calls.append(given.clone())
        return spread(self, graph, given, *rest)

    monkeypatch.setattr(Propagator, "spread", recorded)
    found = propagate(x, labels, calibrated=True, **DEFAULT)
    whole, *folds = calls
    assert whole.tolist() == labels.tolist()
    assert len(folds) == 3
    hidden = [(fold != whole).sum().item() for fold in folds]
    assert all((fold == -1)[fold != whole].all() for fold in folds)
    assert found.calibration is not None
    assert found.calibration.held_out == sum(hidden) == 12  # 3 of 5 folds of 20 labels


def test_wrong_labels_raise_the_temperature() -> None:
    x, labels = points(6)
    good = propagate(x, labels, calibrated=True, **DEFAULT).calibration
    wrong = np.where((labels >= 0) & (np.arange(N) % 2 == 0), (labels + 1) % C, labels)
    bad = propagate(x, wrong, calibrated=True, **DEFAULT).calibration
    assert good is not None
    assert bad is not None
    assert bad.temperature > 1.1 * good.temperature


@pytest.mark.parametrize("refiner", ["discriminant", "none"])
def test_one_label_per_class_takes_the_fixed_temperature(refiner: str) -> None:
    x, labels = points(1)
    found = propagate(x, labels, calibrated=True, **{**DEFAULT, "refiner": refiner})
    assert found.calibration is not None
    assert found.calibration.temperature == pytest.approx(9.6 if refiner != "none" else 1.0)
    assert "fixed value: no class has two labels" in found.calibration.describe()


def test_many_points_take_the_fixed_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MOST_ENTRIES", N * C - 1)
    x, labels = points(5)
    found = propagate(x, labels, calibrated=True, **DEFAULT)
    assert found.calibration is not None
    assert found.calibration.temperature == pytest.approx(6 * 1.12)
    assert found.calibration.held_out == 0


def test_soft_labels_and_weights_count_in_the_calibration() -> None:
    x, labels = points(4)
    shares = np.zeros((N, C))
    shares[labels >= 0] = 0.1
    shares[np.arange(16), labels[:16]] = 0.7
    found = propagate(x, shares, calibrated=True, **DEFAULT)
    plain = propagate(x, labels, calibrated=True, **DEFAULT)
    assert found.calibration is not None
    assert plain.calibration is not None
    assert found.calibration.temperature > plain.calibration.temperature
    assert found.probability is not None
    np.testing.assert_allclose(found.probability[:16], 0.7, rtol=1e-6)
    _, _, beliefs = to_beliefs(shares)
    hidden = torch.zeros(N, dtype=torch.bool)
    hidden[[3, 8]] = True
    own, weights = calibration._shares(torch.from_numpy(labels), C, beliefs, hidden)
    np.testing.assert_allclose(own, shares[[3, 8]], rtol=1e-6)
    assert weights.tolist() == [1, 1]


def test_labels_and_scores_stay_as_they_were() -> None:
    x, labels = points(3)
    plain = propagate(x, labels, **DEFAULT)
    found = propagate(x, labels, calibrated=True, unknown=True, **DEFAULT)
    assert plain.probability is None
    assert torch.equal(plain.probabilities, found.probabilities)
    assert torch.equal(plain.labels, found.labels)
    assert found.probability is not None
    assert (found.probability[labels >= 0] == 1).all()
    assert ((found.probability > 0) & (found.probability <= 1)).all()


def test_calibrate_alone_is_repeatable() -> None:
    x, labels = points(5)
    made = Propagator.default(**DEFAULT)
    f = made.apply_transform(torch.from_numpy(x))
    graph = made.assemble_graph(made.find_neighbors(f))
    given = torch.from_numpy(labels)
    first, again = (calibrate(made, graph, f, given, C, PLAIN) for _ in range(2))
    assert first == again


# -- measures ---------------------------------------------------------------------------------


def test_the_measures_equal_numpy_and_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    p = np.round(rng.random(500), 2)  # with ties
    p[:3] = [0, 1, 1]
    right = rng.random(500) < p
    labels = torch.where(torch.from_numpy(right), 1, 0)
    found = Quality.of(labels, torch.ones(500, dtype=torch.long), torch.from_numpy(p))
    error = 0.0
    place = np.minimum((p * 15).astype(int), 14)
    for j in range(15):
        if (place == j).any():
            inside = place == j
            error += inside.mean() * abs(p[inside].mean() - right[inside].mean())
    assert found.calibration_error == pytest.approx(error)
    assert found.brier == pytest.approx(brier_score_loss(right, p))
    assert found.auroc == pytest.approx(roc_auc_score(right, p))
    assert found.accuracy == pytest.approx(right.mean())
    order = np.argsort(-p, kind="stable")
    assert found.coverage is not None
    assert found.coverage[0.5] == pytest.approx(right[order][:250].mean())
    assert found.coverage[1.0] == pytest.approx(right.mean())


def test_measures_of_all_right_and_of_one_point() -> None:
    one = torch.ones(1)
    assert np.isnan(Quality.of(one.long(), one.long(), one).auroc)
    assert calibration_error(one, one) == 0
    assert coverage(one, one.bool()) == [1] * 6
