"""The sources that add to the paper's: an ensemble of graphs, agreement, spread predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dlp_plugins import testing
from dlp_plugins.errors import DataError
from dlp_plugins.propagation import Propagator
from dlp_plugins.registry import EMBEDDINGS, sources
from dlp_plugins.sources.agreement import AgreementSource
from dlp_plugins.sources.contract import Refresh
from dlp_plugins.sources.ensemble import EnsembleSource
from dlp_plugins.sources.graph import GraphSource
from dlp_plugins.sources.spread_network import SpreadNetworkSource
from dlp_plugins.sources.teacher import TeacherSource

N, CLASSES = 60, 3


@pytest.fixture
def refresh() -> Refresh:
    """Three groups of points; the first six are labelled, image i is row 2 i of the split."""
    random = torch.Generator().manual_seed(0)
    truth = torch.arange(N) % CLASSES
    points = torch.eye(CLASSES)[truth] + 0.3 * torch.rand(N, CLASSES, generator=random)
    return Refresh(
        student=torch.nn.Identity(),
        teacher=None,
        describe=lambda network: points,
        predict=lambda network: points.softmax(dim=1),
        propagator=Propagator.default(k=5),
        labels=torch.where(torch.arange(N) < 6, truth, -1),
        num_classes=CLASSES,
        indices=2 * torch.arange(N),
    )


def write(path: Path, refresh: Refresh, noise: float) -> str:
    """Embeddings of the whole split, of which the run uses every second row."""
    rows = np.full((2 * N, CLASSES), np.nan, dtype=np.float16)
    points = refresh.describe(refresh.student).numpy()
    rows[::2] = points + noise * np.random.default_rng(1).normal(size=points.shape)
    np.save(path, rows)
    return str(path)


def test_an_ensemble_is_the_mean_over_its_graphs(tmp_path: Path, refresh: Refresh) -> None:
    file = write(tmp_path / "x.npy", refresh, 0.05)
    source = EnsembleSource([file])
    np.save(tmp_path / "all.npy", refresh.describe(refresh.student).numpy())
    testing.check_source(EnsembleSource([str(tmp_path / "all.npy")]))
    found = source.pseudo_labels(refresh)
    alone = EnsembleSource([file], student=False).pseudo_labels(refresh)
    student = refresh.propagator(refresh.describe(refresh.student), refresh.labels, CLASSES)
    mean = (alone.probabilities + student.probabilities) / 2
    torch.testing.assert_close(found.probabilities, mean)
    Path(file).unlink()  # its embeddings are read once
    assert torch.equal(source.pseudo_labels(refresh).labels, found.labels)


def test_embeddings_are_spread_by_the_defaults_of_embeddings(
    tmp_path: Path, refresh: Refresh
) -> None:
    file = write(tmp_path / "x.npy", refresh, 1.0)
    found = EnsembleSource([file], student=False).pseudo_labels(refresh)
    rows = torch.from_numpy(np.load(file)[::2].astype(np.float32))
    by_hand = Propagator.default(**EMBEDDINGS, k=10, alpha=0.9)
    expected = by_hand(rows, refresh.labels, CLASSES, merge_equal=True).probabilities
    torch.testing.assert_close(found.probabilities, expected)


def test_a_teacher_is_what_describes_the_images(refresh: Refresh) -> None:
    teacher = torch.nn.Identity()
    turned = refresh.describe(refresh.student).roll(1, dims=0)
    asked = replace(
        refresh,
        teacher=teacher,
        describe=lambda network: turned if network is teacher else refresh.describe(network),
    )
    found = TeacherSource().pseudo_labels(asked)
    expected = refresh.propagator(turned, refresh.labels, CLASSES)
    assert torch.equal(found.scores, expected.scores)
    assert not torch.equal(found.scores, GraphSource().pseudo_labels(asked).scores)


@pytest.mark.parametrize("name", ["graph", "teacher", "agreement", "spread_network", "ensemble"])
def test_a_solve_starts_from_the_former_scores(name: str, tmp_path: Path, refresh: Refresh) -> None:
    file = write(tmp_path / "x.npy", refresh, 0.05)
    source = sources.build(name, **({"embeddings": [file]} if name == "ensemble" else {}))
    rough = Propagator.default(k=5, tolerance=1e-4)
    asked = replace(refresh, teacher=refresh.student, propagator=rough)
    found = source.pseudo_labels(asked)
    again = source.pseudo_labels(replace(asked, scores=found.scores))
    assert again.health.iterations < found.health.iterations / 2


def test_embeddings_that_do_not_fit_are_refused(tmp_path: Path, refresh: Refresh) -> None:
    short, text = tmp_path / "short.npy", tmp_path / "text.npy"
    np.save(short, np.ones((N, 3), dtype=np.float32))
    text.write_text("1,2")
    with pytest.raises(DataError, match=r"60 rows, but the training split has at least 119"):
        EnsembleSource([str(short)]).pseudo_labels(refresh)
    with pytest.raises(DataError, match="cannot be read"):
        EnsembleSource([str(text)]).pseudo_labels(refresh)


def test_predictions_are_spread_with_the_labels(refresh: Refresh) -> None:
    """Against (I - alpha Wn)^(-1) (Y_labels + beta P / column sums) in dense float64."""
    p = Propagator.default(k=5, tolerance=1e-7, max_iterations=500)
    found = SpreadNetworkSource(prior_weight=3.0).pseudo_labels(replace(refresh, propagator=p))
    graph = p.build_graph(refresh.describe(refresh.student))
    w = graph.to_scipy().toarray().astype(np.float64)
    labels = refresh.labels.numpy()
    y = np.stack([(labels == c) / (labels == c).sum() for c in range(CLASSES)], axis=1)
    predictions = refresh.predict(refresh.student).double().numpy() * (labels < 0)[:, None]
    y += 3.0 * predictions / predictions.sum(axis=0)
    z = np.linalg.solve(np.eye(N) - p.alpha * w, y)
    expected = np.where(labels >= 0, labels, z.argmax(axis=1))
    assert found.labels.tolist() == expected.tolist()
    np.testing.assert_allclose(found.scores, z, rtol=1e-3)


def test_labels_count_where_graph_and_network_agree(refresh: Refresh) -> None:
    graph = GraphSource().pseudo_labels(refresh)
    # Every fifth prediction is another class, also of labelled images.
    other = torch.arange(N) % 5 == 0
    predicted = (graph.labels + other.long()) % CLASSES
    network = replace(refresh, predict=lambda _: torch.eye(CLASSES)[predicted])
    found = AgreementSource().pseudo_labels(network)
    counted = ~other | (refresh.labels >= 0)
    assert torch.equal(found.labels, graph.labels)
    assert torch.equal(found.certainty, torch.where(counted, graph.certainty, 0.0))
    counts = torch.bincount(graph.labels[counted], minlength=CLASSES).float()
    torch.testing.assert_close(found.class_weights, counts.sum() / CLASSES / counts)


def test_a_graph_that_knows_nothing_of_a_point_leaves_it_to_the_others(
    tmp_path: Path, refresh: Refresh
) -> None:
    """The student sees group 2 on an island without a label; the embeddings do not."""
    far = refresh.describe(refresh.student).clone()
    far[2::3, :2], far[:, 2] = 0, torch.where(torch.arange(N) % 3 == 2, 1.0, 0.0)
    labels = torch.where(torch.arange(N) % 3 == 2, -1, refresh.labels)
    asked = replace(refresh, describe=lambda network: far, labels=labels)
    alone = refresh.propagator(far, labels, CLASSES)
    assert not alone.probabilities[2::3].any()
    found = EnsembleSource([write(tmp_path / "x.npy", refresh, 0.05)]).pseudo_labels(asked)
    torch.testing.assert_close(found.probabilities.sum(dim=1), torch.ones(N))
    assert torch.equal(found.scores, alone.scores)  # the next refresh starts from them
    assert found.health.iterations == alone.health.iterations > 0


def test_the_recipes_class_shares_count_in_every_graph(tmp_path: Path, refresh: Refresh) -> None:
    file = write(tmp_path / "x.npy", refresh, 0.4)
    shares = torch.tensor([0.8, 0.1, 0.1])
    asked = replace(refresh, propagator=Propagator.default(k=5, class_shares=shares))
    equal, first = (
        EnsembleSource([file], student=False).pseudo_labels(r).probabilities[:, 0].mean()
        for r in (refresh, asked)
    )
    assert first > equal + 0.001
