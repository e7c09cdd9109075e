"""Several labels per point: against plain NumPy, and from files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from oracles import label_quality as oracle

from dlp_plugins.embeddings import memory_fit
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.embeddings.run import propagate_file
from dlp_plugins.errors import UsageError
from dlp_plugins.propagation.multi_label import propagate_multi_label

N, C, ALPHA = 80, 3, 0.9
SETTINGS = ("transform=none", "solver.tolerance=1e-6")


def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of class directions [n, d], which classes each point has, and those of the first 24."""
    rng = np.random.default_rng(0)
    truth = rng.random((N, C)) < 0.5
    truth[~truth.any(axis=1), 0] = True
    x = truth @ np.eye(C, 6) + 0.15 * rng.standard_normal((N, 6))
    return x, truth, truth * (np.arange(N) < 24)[:, None]


def expected(x: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels: a class goes to as large a share of the others as of the labelled."""
    wn = oracle.graph(oracle.unit_rows(x)).toarray()
    z = np.linalg.solve(np.eye(N) - ALPHA * wn, given / given.sum(axis=0))
    labels = given > 0
    labeled = labels.any(axis=1)
    for j in range(C):
        k = round(labels[labeled, j].mean() * (~labeled).sum())
        least = np.sort(z[~labeled, j])[::-1][k - 1]
        labels[:, j] |= ~labeled & (z[:, j] >= least)
    return z, labels


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_equal_to_numpy(form) -> None:
    x, truth, given = points()
    found = propagate_multi_label(x, form(given), k=10, alpha=ALPHA, tolerance=1e-6)
    z, labels = expected(x, given)
    np.testing.assert_allclose(found.scores, z, rtol=1e-3, atol=1e-6)
    assert np.array_equal(found.labels.numpy(), labels)
    assert (found.labels.numpy() == truth)[24:].mean() > 0.8


def test_weights_count_and_a_class_without_a_label_goes_to_nobody() -> None:
    x, _, given = points()
    weighted = given * np.where(np.arange(N) % 2, 3.0, 1)[:, None]
    found = propagate_multi_label(x, np.c_[weighted, np.zeros(N)], k=10, alpha=ALPHA)
    z, _ = expected(x, weighted)
    np.testing.assert_allclose(found.scores[:, :C], z, rtol=2e-2, atol=1e-4)
    assert not found.labels[:, C].any()
    assert found.thresholds[C] == np.inf


def write(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    x, _, given = points()
    x[70] = x[3]  # a copy of a labelled point, and one of an unlabelled one
    x[71] = x[60]
    np.save(folder / "x.npy", x)
    rows = ["index,label", *(f"{i},{'abc'[j]}" for i, j in zip(*given.nonzero(), strict=True))]
    (folder / "y.csv").write_text("\n".join(rows))
    return x, given


@pytest.mark.parametrize(("width", "on_disk"), [(3, False), (1, True)])
def test_files_and_chunks(tmp_path, monkeypatch, width, on_disk) -> None:
    x, given = write(tmp_path)
    monkeypatch.setattr(memory_fit, "choose_chunks", lambda *a: ClassChunks(width, on_disk, 0))
    found = propagate_file(
        tmp_path / "x.npy", tmp_path / "y.csv", tmp_path / "out.csv", multi_label=True,
        settings=SETTINGS, probabilities=True,
    )  # fmt: skip
    distinct = np.delete(np.arange(N), [70, 71])
    plain = propagate_multi_label(x[distinct], given[distinct], k=10, alpha=ALPHA, tolerance=1e-6)
    labels = np.empty((N, C), bool)
    labels[distinct] = plain.labels.numpy()
    labels[[70, 71]] = labels[[3, 60]]
    assert np.array_equal(found.labels.numpy(), labels)
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "reached", "score_a", "score_b", "score_c"]
    names = ["|".join(np.array(list("abc"))[row]) for row in labels]
    assert [row["label"] for row in rows] == names
    np.testing.assert_allclose(
        [float(row["score_b"]) for row in rows][:70], plain.scores[:70, 1], rtol=1e-3
    )


def test_what_needs_one_label_per_point_is_refused(tmp_path) -> None:
    write(tmp_path)
    with pytest.raises(UsageError, match="--unknown and --truth need one label per point"):
        propagate_file(
            tmp_path / "x.npy", tmp_path / "y.csv", tmp_path / "o.csv", multi_label=True,
            unknown=True,
        )  # fmt: skip
