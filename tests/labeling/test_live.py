"""Labels that follow every answer: equal to those of `dlp propagate`, in any order of answers."""

from __future__ import annotations

import csv

import numpy as np
import torch

from dlp_plugins.embeddings.run import propagate_file
from dlp_plugins.labeling.advice import audit
from dlp_plugins.labeling.live import LiveLabels
from dlp_plugins.labeling.probability import calibrated, probability, usual


def given(points, classes):
    labels = torch.full((300,), -1)
    labels[torch.tensor(points)] = torch.tensor(classes)
    return labels


def some_labels(y, count, seed=1):
    chosen = np.random.default_rng(seed).permutation(len(y))[:count]
    return given(chosen.tolist(), y[chosen].tolist())


def dense_sums(space, nodes, classes):
    alpha = space.propagator.solver.alpha
    n = space.graph.num_nodes
    w = space.graph.matmul(torch.eye(n)).double()
    indicator = torch.nn.functional.one_hot(nodes + 1, classes + 1)[:, 1:].double()
    return torch.linalg.solve(torch.eye(n, dtype=torch.float64) - alpha * w, indicator)


def test_sums_are_those_of_the_inverse_after_labels_came_changed_and_went(space, points):
    y = points[1]
    live = LiveLabels(space, given([0, 1], y[[0, 1]].tolist()), 4)
    labels = some_labels(y, 20)
    live.update(labels, 4)
    labels = labels.clone()
    labels[5], labels[7] = 2, 0
    live.update(labels, 5)
    labels = labels.clone()
    labels[labels == 3] = -1  # class 3 has no label left
    view = live.update(labels, 5)
    expected = dense_sums(space, view.nodes, 5)
    assert torch.allclose(view.sums.double(), expected, atol=1e-4)
    assert not view.sums[:, 3:].any()


def test_refined_labels_are_those_of_dlp_propagate(space, points, tmp_path):
    x, y = points
    labels = some_labels(y, 12)
    live = LiveLabels(space, labels, 6)  # two classes have no label
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", labels.numpy())
    out = tmp_path / "out.csv"
    propagate_file(tmp_path / "x.npy", tmp_path / "y.npy", out)
    rows = list(csv.DictReader(out.open()))
    assert live.view.settled
    assert [int(row["label"]) for row in rows] == live.view.labels.tolist()
    certainty = torch.tensor([float(row["certainty"]) for row in rows])
    assert torch.allclose(certainty, live.view.certainty, atol=1e-4)
    expected = torch.tensor([float(row["probability"]) for row in rows])
    found = probability(space, live.view, calibrated(space, live.view))
    assert 0.1 < expected[labels < 0].mean() < 0.999
    assert torch.allclose(found, expected, atol=1e-3)


def test_labels_of_one_class_or_none_have_no_probability(space, points):
    for count in (0, 1):
        labels = torch.full((300,), -1)
        labels[:count] = int(points[1][0])
        live = LiveLabels(space, labels, 4)
        assert calibrated(space, live.view) is None
        found = probability(space, live.view, usual(space, live.view))
        assert found.tolist() == (live.view.given >= 0).float().tolist()


def test_an_answer_changes_labels_at_once_and_agrees_with_what_refinement_finds(space, points):
    y = points[1]
    live = LiveLabels(space, some_labels(y, 3), 4)
    before = live.view
    view = live.update(some_labels(y, 30), 4)
    assert (view.version, view.settled) == (before.version + 1, False)
    assert (view.labels != before.labels).any()
    quick = (view.labels.numpy() == y).mean()
    refined = live.refine()
    assert refined.settled
    assert quick > (before.labels.numpy() == y).mean()
    assert (view.labels == refined.labels).float().mean() > 0.9


def test_answers_during_a_refinement_are_kept(space, points, monkeypatch):
    y = points[1]
    live = LiveLabels(space, some_labels(y, 10), 4)
    live.update(some_labels(y, 20), 4)
    spread = type(space.propagator).spread

    def answer_meanwhile(*arguments, **more):
        monkeypatch.undo()
        live.update(some_labels(y, 40), 4)
        return spread(*arguments, **more)

    monkeypatch.setattr(type(space.propagator), "spread", answer_meanwhile)
    view = live.refine()
    assert not view.settled
    assert torch.equal(view.given, some_labels(y, 40))
    assert live.refine().settled


def test_without_labels_with_one_class_and_back_to_none(space, points):
    nothing = torch.full((300,), -1)
    live = LiveLabels(space, nothing, 0)
    assert (live.view.labels == -1).all()
    view = live.update(given([3], [1]), 2)
    assert set(view.labels.tolist()) == {1}  # the graph is in one piece
    assert view.certainty.sum() == 1  # of the labelled point alone
    assert torch.equal(live.refine().labels, view.labels)
    live.update(nothing, 2)
    assert (live.refine().labels == -1).all()


def test_copies_of_a_point_share_its_label(space):
    live = LiveLabels(space, given([0, 298], [0, 1]), 2)
    assert live.view.labels[299] == 1
    assert live.view.given[299] == -1


def test_labels_are_audited_where_copies_outvote_a_class(space):
    """The last two points are copies; class 3 is given to one of them alone."""
    labels = given([0, 1, 2, 3, 299, 298], [0, 0, 1, 1, 3, 0])
    live = LiveLabels(space, labels, 4)
    assert {suspicion.point for suspicion in audit(space, live.view)} >= {0, 1}
