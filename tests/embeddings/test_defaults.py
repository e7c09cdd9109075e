"""What `dlp propagate` does where nothing is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import label_quality as oracle
from oracles.digits import digits, some_labels

from dlp_plugins import registry
from dlp_plugins.embeddings import chunked, scores
from dlp_plugins.embeddings.chunked import Outcome, propagate_chunked
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.embeddings.memory import (
    ClassChunks,
    MemoryBudgetError,
    choose_chunks,
    estimate_memory,
)
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.run import prepare, propagate_file
from dlp_plugins.propagation import Propagator
from dlp_plugins.recipe.build import build_propagator

C = 10
pytestmark = pytest.mark.usefixtures("one_thread")


def files(folder: Path, x: np.ndarray, labels: np.ndarray) -> None:
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", labels)


def run(folder: Path, *settings: str, **options: Any) -> Outcome:
    return propagate_file(
        folder / "x.npy", folder / "y.npy", folder / "out.csv", settings=settings, device="cpu",
        overwrite=True, **options,
    )  # fmt: skip


def test_the_default_gives_every_label_of_the_equations(tmp_path: Path) -> None:
    x, y = digits()
    labels = some_labels(y, 2)
    files(tmp_path, x, labels)
    found = run(tmp_path).labels.numpy()
    expected = oracle.labels_by_default(x, labels, C)
    expected[labels >= 0] = labels[labels >= 0]
    np.testing.assert_array_equal(found, expected)
    accuracy = [(f == y)[labels < 0].mean() for f in (found, run(tmp_path, *PAPER).labels.numpy())]
    assert accuracy[0] > accuracy[1] + 0.05


PAPER = (
    "transform=none", "graph.k=50", "solver.alpha=0.99", "normalizer=clamp", "refiner=none"
)  # fmt: skip


def test_the_papers_settings_are_the_papers_components(tmp_path: Path) -> None:
    assert build_propagator(propagation_recipe(PAPER)) == Propagator.default()


def test_other_components_keep_what_they_know_of_the_defaults() -> None:
    recipe = propagation_recipe(["graph=cells", "solver=closed_form"])
    assert (recipe.graph.params["k"], recipe.solver.params["alpha"]) == (10, 0.9)
    assert "alpha" not in propagation_recipe(["solver=poisson"]).solver.params


def test_the_builder_follows_the_number_of_points(monkeypatch: pytest.MonkeyPatch) -> None:
    assert propagation_recipe([], 100_000).graph.name == "exact"
    assert propagation_recipe([], 100_001).graph.name == "cells"
    assert propagation_recipe(["graph.k=7"], 100_001).graph.params["k"] == 7
    assert propagation_recipe(["graph=exact"], 100_001).graph.name == "exact"
    assert registry.graph_for(1) == registry.EMBEDDINGS["graph"]


def test_the_builder_of_a_file_follows_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits()
    files(tmp_path, x, some_labels(y, 5))
    places = tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "out.csv"
    assert prepare(Options(*places)).recipe.graph.name == "exact"
    monkeypatch.setattr(registry, "EXACT_POINTS", len(x) - 1)
    job = prepare(Options(*places))
    assert job.recipe.graph.name == "cells"
    assert type(job.propagator.graph).__name__ == "Cells"


@pytest.mark.parametrize(("width", "on_disk"), [(10, False), (3, True)])
def test_in_chunks_the_same_as_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, on_disk: bool
) -> None:
    monkeypatch.setattr(scores, "BLOCK_ENTRIES", 1000)
    monkeypatch.setattr(chunked, "BLOCK_ENTRIES", 5000)
    x, y = digits()
    x[7] = 0
    labels = torch.from_numpy(some_labels(y, 2))
    propagator = build_propagator(propagation_recipe([]))
    whole = propagator(torch.from_numpy(x), labels, C)
    files(tmp_path, x, labels.numpy())
    parts = propagate_chunked(
        propagator, open_embeddings(tmp_path / "x.npy").load, labels, C,
        ClassChunks(width, on_disk, 0), scratch=tmp_path,
    )  # fmt: skip
    assert torch.equal(parts.labels, whole.labels)
    assert torch.equal(parts.reached, whole.reached)
    assert not parts.reached[7]
    torch.testing.assert_close(parts.certainty, whole.certainty, atol=1e-3, rtol=1e-3)
    with parts.probabilities as p:
        torch.testing.assert_close(p.all(), whole.probabilities, atol=1e-3, rtol=1e-3)
    assert (parts.health.unreached, parts.note) == (1, None)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("refiner", ["none", "discriminant"])
def test_copies_share_what_one_point_gets(tmp_path: Path, refiner: str, on_disk: bool) -> None:
    x, y = digits()
    rng = np.random.default_rng(0)
    chosen = rng.permutation(np.concatenate([np.arange(600), rng.integers(600, size=300)]))
    labels = some_labels(y, 3)
    points = np.flatnonzero(labels < 0)[:20]
    x[points], labels[points] = x[:20], -1  # equal rows also in the set that has no copies
    _, distinct = np.unique(x, axis=0, return_index=True)
    distinct.sort()
    propagator = build_propagator(propagation_recipe([f"refiner={refiner}"]))

    def propagated(rows: np.ndarray, given: np.ndarray) -> Outcome:
        np.save(tmp_path / "x.npy", rows)
        return propagate_chunked(
            propagator, open_embeddings(tmp_path / "x.npy").load, torch.from_numpy(given), C,
            ClassChunks(4, on_disk, 0), scratch=tmp_path,
        )  # fmt: skip

    first = np.array([distinct[(x[distinct] == row).all(axis=1)][0] for row in x])
    given = labels.copy()
    for i in np.flatnonzero(labels >= 0):
        given[first[i]] = labels[i]
    given[np.setdiff1d(np.arange(600), distinct)] = -1
    alone = propagated(x[distinct], given[distinct])
    many = propagated(x[chosen], labels[chosen])
    assert many.duplicates == 900 - len(np.unique(first[chosen]))
    at = np.searchsorted(distinct, first[chosen])
    assert torch.equal(many.labels, alone.labels[at])
    torch.testing.assert_close(many.certainty, alone.certainty[at], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(many.margin, alone.margin[at], atol=1e-3, rtol=1e-3)
    assert many.counts.sum() == 900
    with many.probabilities as p, alone.probabilities as q:
        torch.testing.assert_close(p.all(), q.all()[at], atol=1e-3, rtol=1e-3)


def test_copies_with_different_labels_keep_their_own(tmp_path: Path) -> None:
    x, y = digits()
    x, labels = np.vstack([x, x[[0, 0, 0]]]), np.append(some_labels(y, 3), [4, 5, -1])
    labels[0] = 4
    files(tmp_path, x, labels)
    outcome = run(tmp_path)
    assert outcome.labels[[0, 600, 601, 602]].tolist() == [4, 4, 5, 4]
    assert outcome.certainty[[0, 600, 601, 602]].tolist() == [1, 1, 1, 1]
    # Q holds the class that most of the copies are given
    assert outcome.margin[[0, 600, 601, 602]].tolist() == [1, 1, -1, 1]


def test_a_refiner_that_does_not_fit_is_named(tmp_path: Path) -> None:
    n, classes, cg = 1_000_000, 1000, registry.solvers.build("cg")
    memory = estimate_memory(n, 128, 10, cg, "cells", refines=True)
    need = memory.refine + classes * memory.refine_column
    assert need > 5 * 4 * n * classes
    assert choose_chunks(memory, n, classes, 1.01 * need).peak <= 1.01 * need
    with pytest.raises(MemoryBudgetError, match=r"refining 1,000 classes at once takes about 2\d"):
        choose_chunks(memory, n, classes, 0.9 * need)
    with pytest.raises(MemoryBudgetError, match=r"leave the refiner out \(--set refiner=none\)"):
        choose_chunks(memory, n, classes, 0.9 * need)
    assert choose_chunks(memory.unrefined, n, classes, 0.9 * need).peak <= 0.9 * need
    with pytest.raises(MemoryBudgetError, match="fewer neighbours"):
        choose_chunks(memory, n, classes, 1e9)


def test_a_class_that_takes_several_times_its_share_is_reported(tmp_path: Path) -> None:
    x, y = digits()
    labels = some_labels(y, 3)
    files(tmp_path, x, labels)
    assert run(tmp_path).crowded_classes(torch.from_numpy(labels)) == {}
    seven = np.flatnonzero(y == 7)
    copies = np.vstack([x, *(x[seven] + 0.01 * i for i in range(8))])
    given = np.append(labels, np.full(8 * len(seven), -1))
    files(tmp_path, copies, given)
    crowded = run(tmp_path).crowded_classes(torch.from_numpy(given))
    assert list(crowded) == [7]
    assert 3 < crowded[7] < 6


def test_principal_components_are_not_rescaled_and_the_outcome_says_so(tmp_path: Path) -> None:
    x, y = digits()
    centered = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    files(tmp_path, (u * s)[:, :30], some_labels(y, 3))
    assert "uncorrelated" in (run(tmp_path).note or "")
    assert run(tmp_path, "transform=rescale").note is None
