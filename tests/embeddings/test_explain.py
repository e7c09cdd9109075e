"""Why a point has its label, from files and from what is in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dlp_plugins.embeddings.built import Built
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.embeddings.explain import explain_file, explain_point
from dlp_plugins.embeddings.memory import MemoryBudgetError
from dlp_plugins.errors import LabelError, UsageError
from dlp_plugins.recipe.build import build_propagator

C, EACH = 3, 30


def blobs() -> torch.Tensor:
    random = np.random.default_rng(0)
    centers = random.normal(size=(C, 16))
    return torch.from_numpy(np.repeat(centers, EACH, 0) + 0.5 * random.normal(size=(C * EACH, 16)))


def given() -> torch.Tensor:
    labels = torch.full((C * EACH,), -1)
    for j in range(C):
        labels[j * EACH : j * EACH + 4] = j
    return labels


def test_a_point_of_a_blob_has_its_label_from_the_labelled_points_of_the_blob():
    propagator = build_propagator(propagation_recipe([]))
    found = explain_point(propagator, Built.of(propagator, blobs().float()), given(), C, 40)
    assert (found.label, found.graph_label, found.refined_label, found.given) == (1, 1, 1, -1)
    assert set(found.shares.nodes.tolist()) <= {30, 31, 32, 33}
    assert found.shares.shares.sum() == pytest.approx(1)
    assert [p[0] for p in found.paths] == found.shares.nodes[:3].tolist()
    assert all(p[-1] == 40 for p in found.paths)
    assert found.centers[0][0] == 1
    assert found.refined_probabilities.argmax() == 1


def test_shares_are_those_of_the_score_at_the_solvers_alpha():
    propagator = build_propagator(propagation_recipe(["refiner=none", "solver.alpha=0.5"]))
    built = Built.of(propagator, blobs().float())
    found = explain_point(propagator, built, given(), C, 40)
    wn = built.graph.to_scipy().toarray().astype(np.float64)
    added = np.linalg.inv(np.eye(len(wn)) - 0.5 * wn)[40] * (given().numpy() == 1) / 4
    order = np.argsort(-added, kind="stable")[: len(found.shares.nodes)]
    assert found.shares.nodes.tolist() == order.tolist()
    np.testing.assert_allclose(found.shares.shares, added[order] / added.sum(), rtol=1e-4)
    scores = propagator.spread(built.graph, given(), C).scores
    assert found.shares.score == pytest.approx(added.sum(), rel=1e-4)
    assert found.shares.score == pytest.approx(float(scores[40, found.graph_label]), rel=1e-4)


def test_without_a_refiner_there_is_no_refined_label():
    propagator = build_propagator(propagation_recipe(["refiner=none"]))
    found = explain_point(propagator, Built.of(propagator, blobs().float()), given(), C, 40)
    assert (found.label, found.refined_label, found.centers) == (1, None, [])


def test_copies_are_shown_as_rows_of_the_file():
    """Point 90 is a copy of 40, and 91 one of the labelled point 30, whose label it has."""
    x, labels = blobs(), given()
    x = torch.cat([x, x[[40]], x[[30]]])
    labels = torch.cat([labels, torch.tensor([-1, 1])])
    labels[30] = -1
    propagator = build_propagator(propagation_recipe([]))
    found = explain_point(propagator, Built.of(propagator, x.float()), labels, C, 90)
    assert 91 in found.shares.nodes
    assert 30 not in found.shares.nodes


def test_a_point_that_no_label_reaches():
    x = blobs()
    x[5] = 0
    propagator = build_propagator(propagation_recipe(["refiner=none"]))
    found = explain_point(propagator, Built.of(propagator, x.float()), given(), C, 5)
    assert (found.label, found.graph_label, found.paths) == (-1, -1, [])


@pytest.mark.parametrize("point", ["7", "p7", 7])
def test_a_point_is_named_by_its_id_or_its_row(tmp_path, point):
    np.savez(tmp_path / "x.npz", x=blobs().numpy(), id=[f"p{i}" for i in range(C * EACH)])
    np.save(tmp_path / "y.npy", given().numpy())
    found, file = explain_file(tmp_path / "x.npz", tmp_path / "y.npy", point)
    assert (found.point, file.classes) == (7, [0, 1, 2])


@pytest.mark.parametrize("point", ["90", "-1", "x", 90])
def test_no_such_point(tmp_path, point):
    np.save(tmp_path / "x.npy", blobs().numpy())
    np.save(tmp_path / "y.npy", given().numpy())
    with pytest.raises(LabelError, match=r"rows are 0\.\.89"):
        explain_file(tmp_path / "x.npy", tmp_path / "y.npy", point)


def test_too_little_memory_for_all_classes(tmp_path):
    n, c = 2000, 1000
    x = np.random.default_rng(0).normal(size=(n, 4))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(n) % c)
    with pytest.raises(MemoryBudgetError, match="all 1,000 classes are solved at once"):
        explain_file(
            tmp_path / "x.npy", tmp_path / "y.npy", 0, memory="20MB",
            settings=["refiner=none", "graph=faiss_flat"],
        )  # fmt: skip


def test_a_copy_of_a_labelled_point_has_its_label():
    """Point 90 is a copy of point 5, which is given a label that its neighbours deny."""
    x, labels = blobs(), given()
    x, labels = torch.cat([x, x[[5]]]), torch.cat([labels, torch.tensor([-1])])
    labels[5] = 2
    propagator = build_propagator(propagation_recipe(["refiner=none"]))
    found = explain_point(propagator, Built.of(propagator, x.float()), labels, C, 90)
    assert (found.label, found.given, found.known) == (2, -1, 2)


def test_a_solver_of_another_system_is_refused():
    propagator = build_propagator(propagation_recipe(["solver=poisson"]))
    with pytest.raises(UsageError, match="such as cg; found Poisson"):
        explain_point(propagator, Built.of(propagator, blobs().float()), given(), C, 40)
