"""`partial_fit`: more points for a fraction of the time, nearly the labels of a fit of all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.digits import digits, some_labels

from dlp_plugins.embeddings import _more_points
from dlp_plugins.embeddings._more_points import extend_neighbors
from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs.exact import Exact
from dlp_plugins.inputs import unit_rows
from dlp_plugins.sklearn import GraphLabelPropagation
from dlp_plugins.solvers.cut import Cut
from dlp_plugins.solvers.poisson_mbo import PoissonMBO

pytestmark = pytest.mark.usefixtures("one_thread")
C = 10


@pytest.mark.parametrize(("old", "k"), [(400, 10), (12, 15), (590, 3)])
def test_repaired_lists_are_those_of_a_search(old, k):
    f = unit_rows(torch.from_numpy(digits()[0]))
    known = Exact(min(k, old - 1)).neighbors(f[:old])
    found = extend_neighbors(known, f, old, k)
    expected = Exact(k).neighbors(f)
    ascending = [n.similarities.sort(dim=1).values for n in (found, expected)]
    torch.testing.assert_close(*ascending, atol=1e-6, rtol=0)
    s = f @ f.T
    torch.testing.assert_close(s.gather(1, found.indices.long()), found.similarities)
    assert not (found.indices == torch.arange(600)[:, None]).any()
    assert all(len(set(row)) == k for row in found.indices.tolist())


def check_extended(f: torch.Tensor, old: int, k: int) -> None:
    """Against all products; copies may stand for each other."""
    found = extend_neighbors(Exact(k).neighbors(f[:old]), f, old, k)
    expected = (f @ f.T).fill_diagonal_(-1).topk(k, dim=1).values
    similarities = found.similarities.sort(dim=1, descending=True).values
    torch.testing.assert_close(similarities, expected, atol=1e-5, rtol=0)
    assert not (found.indices == torch.arange(len(f))[:, None]).any()
    assert (found.indices.sort(dim=1).values.diff(dim=1) > 0).all()


@pytest.mark.parametrize("estimates", [True, False])
def test_repaired_lists_of_many_points_are_exact(estimates, monkeypatch):
    # several blocks of new points, groups of groups, copies among old and new points, a zero
    monkeypatch.setattr(_more_points, "has_bfloat16", lambda device: estimates)
    monkeypatch.setattr(_more_points, "ESTIMATED_ENTRIES", 2**19)
    monkeypatch.setattr(_more_points, "BLOCK_ENTRIES", 2**19)
    done = []
    by_estimates = _more_points._by_estimates
    monkeypatch.setattr(
        _more_points, "_by_estimates", lambda *a: done.append(by_estimates(*a)) or done[-1]
    )
    x = torch.randn(4_603, 16, generator=torch.Generator().manual_seed(0))
    x[4_400:4_450] = x[100:150]
    x[7] = 0
    check_extended(unit_rows(x), old=4_300, k=2)
    assert done == ([4_603] if estimates else [])


@pytest.mark.parametrize("estimates", [True, False])
def test_points_that_are_equally_near_are_compared_in_full(estimates, monkeypatch):
    monkeypatch.setattr(_more_points, "has_bfloat16", lambda device: estimates)
    sizes = []
    keep = _more_points._keep
    monkeypatch.setattr(_more_points, "_keep", lambda *a: sizes.append(len(a[2].rows)) or keep(*a))
    random = torch.Generator().manual_seed(0)
    centers = torch.randn(5, 64, generator=random)
    x = centers[torch.arange(4_500) % 5] + 0.05 * torch.randn(4_500, 64, generator=random)
    check_extended(unit_rows(x), old=4_400, k=3)
    assert sizes == []  # thousands of estimates reach the bound


@pytest.mark.parametrize("d", [2, 16, 300])
def test_estimates_are_wrong_by_no_more_than_the_error(d):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2_000, d, generator=random)
    x[:500] = 1 + 0.01 * x[:500]
    x[500:600] = torch.rand(100, 1, generator=random) + torch.arange(d) % 2
    f = unit_rows(x)
    r = f.bfloat16()
    error = ((r @ r.T).double() - f.double() @ f.double().T).abs().max()
    assert 0.3 * _more_points.ERROR < error < _more_points.ERROR


def test_more_points_in_inference_mode():
    # threads have modes of their own
    x = np.random.default_rng(0).standard_normal((4_500, 8))
    y = np.arange(4_500) % 3
    few = np.where(np.arange(4_500) % 50, -1, y)
    model = GraphLabelPropagation(n_neighbors=5)
    with torch.inference_mode():
        model.fit(x[:4_400], few[:4_400]).partial_fit(x[4_400:], few[4_400:])
    assert len(model.transduction_) == 4_500


def test_nothing_new_leaves_the_lists():
    f = unit_rows(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    known = Exact(3).neighbors(f)
    assert extend_neighbors(known, f, 50, 3) is known


def test_places_that_were_empty_are_filled():
    f = unit_rows(torch.tensor([[1.0, 0], [1, 0.1], [1, 0.2], [1, 0.3]]))
    known = Neighbors(torch.tensor([[1, -1], [0, -1]]), torch.tensor([[0.995, 0.0], [0.995, 0.0]]))
    found = extend_neighbors(known, f, 2, 2)
    assert found.indices.sort(dim=1).values.tolist() == [[1, 2], [0, 2], [1, 3], [1, 2]]


@pytest.mark.parametrize("settings", [{}, {"refiner": "none", "normalizer": "clamp"}])
def test_ten_batches_agree_with_a_fit_of_all(settings):
    x, y = digits()
    few = some_labels(y, 6)
    model = GraphLabelPropagation(**settings).fit(x[:540], few[:540])
    for start in range(540, 600, 6):
        model.partial_fit(x[start : start + 6], few[start : start + 6])
    whole = GraphLabelPropagation(**settings).fit(x, few)
    assert len(model.transduction_) == 600
    assert (model.transduction_ == whole.transduction_).mean() > 0.96
    np.testing.assert_allclose(model.label_distributions_.sum(axis=1), 1, atol=1e-5)
    assert (model.transduction_[few >= 0] == few[few >= 0]).all()
    assert (model.predict(x[:50]) == whole.predict(x[:50])).mean() > 0.9


def test_without_a_refiner_and_a_transform_the_answer_is_that_of_a_fit():
    x, y = digits()
    few = some_labels(y, 6)
    settings = {"refiner": "none", "transformation": "none", "tol": 1e-6}
    model = (
        GraphLabelPropagation(**settings).fit(x[:400], few[:400]).partial_fit(x[400:], few[400:])
    )
    whole = GraphLabelPropagation(**settings).fit(x, few)
    np.testing.assert_allclose(model.label_distributions_, whole.label_distributions_, atol=1e-3)
    np.testing.assert_array_equal(model.transduction_, whole.transduction_)


def test_copies_of_old_and_new_points_share_a_label():
    x, y = digits()
    few = some_labels(y, 6)[:300]
    model = GraphLabelPropagation().fit(x[:300], few)
    model.partial_fit(np.vstack([x[:20], x[300:310], x[300:310]]))
    t = model.transduction_
    assert len(t) == 340
    unlabeled = few[:20] < 0
    assert (t[300:320] == t[:20])[unlabeled].all()
    assert (t[320:330] == t[330:340]).all()
    assert len(model._fitted.index.points) == 310


def test_suggested_rows_are_as_given_where_rows_are_equal():
    x, y = digits()
    first = np.vstack([x[:20], x[:20], x[20:30]])
    few = np.concatenate([y[:20], np.full(30, -1)])
    model = GraphLabelPropagation(n_neighbors=5).fit(first, few)
    model.partial_fit(x[30:40]).partial_fit(np.vstack([x[20:25], x[40:45]]))
    assert sorted(model.suggest(25)) == [*range(40, 60), *range(65, 70)]


@pytest.mark.parametrize("solver", [PoissonMBO(slack=0), Cut()], ids=["poisson_mbo", "cut"])
def test_class_sizes_are_kept(solver):
    x, y = digits()
    some = (y == 8) | (y == 9)
    x, few = x[some], some_labels(y, 6)[some]
    settings = {"refiner": "none", "normalizer": "clamp", "class_shares": [0.7, 0.3]}
    model = GraphLabelPropagation(solver=solver, **settings).fit(x[:-20], few[:-20])
    model.partial_fit(x[-20:], few[-20:])
    assert (model.transduction_[few < 0] == 8).mean() == pytest.approx(0.7, abs=0.02)


def test_a_new_class_comes_last():
    x, y = digits()
    names = np.array([f"digit {j}" for j in range(C)])
    old, new = y < 9, y == 9
    few = np.where(some_labels(y, 6) >= 0, names[y], "").astype(object)
    model = GraphLabelPropagation().fit(x[old], few[old])
    model.partial_fit(x[new], few[new])
    assert model.classes_.tolist() == names.tolist()
    assert model.label_distributions_.shape == (600, C)
    assert (model.transduction_[old.sum() :] == "digit 9").mean() > 0.7
    again = GraphLabelPropagation().fit(x[new | (y > 4)], few[new | (y > 4)])
    again.partial_fit(x[y < 5], few[y < 5])
    assert again.classes_.tolist() == [*names[5:], *names[:5]]


@pytest.mark.parametrize("refiner", ["discriminant", "none"])
def test_labels_of_old_points_may_come_later_and_be_corrected(refiner):
    x, y = digits()
    x, few = x[:300], some_labels(y, 6)[:300].copy()
    wrong = int(np.flatnonzero(few == 3)[0])
    unlabeled = np.flatnonzero(few < 0)[:12]
    first, later = few.copy(), np.full(300, -1)
    first[wrong] = 5
    later[wrong], later[unlabeled] = 3, y[unlabeled]
    later[few == 7], first[few == 7] = 7, -1  # a class that comes with them
    few[unlabeled] = y[unlabeled]
    model = GraphLabelPropagation(refiner=refiner).fit(x, first).partial_fit(None, later)
    whole = GraphLabelPropagation(refiner=refiner).fit(x, few)
    assert sorted(model.classes_) == whole.classes_.tolist()
    assert (model.transduction_ == whole.transduction_).mean() >= 0.99
    assert (model.transduction_[few >= 0] == few[few >= 0]).all()
    assert model.predict(x[:5]).shape == (5,)


def test_the_first_call_is_a_fit_and_what_is_wrong_is_refused():
    x, y = digits()
    model = GraphLabelPropagation().partial_fit(x[:200], y[:200])
    assert model.transduction_.shape == (200,)
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(x[:5, :-1])
    with pytest.raises(ValueError, match="inconsistent"):
        model.partial_fit(x[:5], y[:4])
    with pytest.raises(ValueError, match="do not mix"):
        model.partial_fit(x[:2], ["cat", "dog"])
    with pytest.raises(ValueError, match="inconsistent"):
        model.partial_fit(None, y[:5])
    with pytest.raises(ValueError, match="nothing to add"):
        model.partial_fit(None)
    every = GraphLabelPropagation(unlabeled=None).fit(x[:200], y[:200])
    with pytest.raises(ValueError, match="every point has a label"):
        every.partial_fit(x[200:210])


def test_parameters_that_have_changed_ask_for_a_fit():
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 2
    model = GraphLabelPropagation(n_neighbors=5).fit(x, np.where(np.arange(30) < 9, y, -1))
    model.partial_fit(x[:2])
    with pytest.raises(ValueError, match="fit again"):
        model.set_params(n_neighbors=3).partial_fit(x[:2])
