"""The scikit-learn estimator: scikit-learn's own checks, labels of every kind, new points."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from oracles import label_quality
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading

from dlp_plugins.embeddings.audit_file import audit_file
from dlp_plugins.errors import RegistryError
from dlp_plugins.graphs.exact import Exact
from dlp_plugins.propagation import propagate
from dlp_plugins.sklearn import GraphLabelPropagation
from dlp_plugins.solvers.closed_form import ClosedForm

# With this variable SciPy lets scikit-learn run its array check too, which it skips otherwise. It
# must be set before SciPy is imported: hence a process of its own.
CHECK = """
import json, warnings
warnings.simplefilter("ignore")
from sklearn.utils.estimator_checks import check_estimator
from dlp_plugins.sklearn import GraphLabelPropagation
results = check_estimator(GraphLabelPropagation(), on_fail=None)
print(json.dumps([[r["check_name"], r["status"]] for r in results]))
"""


# The paper's components in place of the defaults for embeddings.
PAPER = {"transformation": "none", "normalizer": "clamp", "refiner": "none"}


@pytest.fixture(scope="module")
def digits():
    """X, the true labels, and those of every twentieth image alone."""
    X, y = load_digits(return_X_y=True)
    return X, y, np.where(np.arange(len(y)) % 20 == 0, y, -1)


def test_check_estimator():
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=True
    )
    results = json.loads(done.stdout)
    assert len(results) > 50
    # For scikit-learn weight 0 is no point at all; here the point stays, without its label.
    failed = ["check_sample_weight_equivalence_on_dense_data", "failed"]
    assert [r for r in results if r[1] != "passed"] == [failed]


def test_minus_one_and_one_other_number_are_two_classes():
    X, y = make_blobs(60, centers=[[0, 5], [5, 0]], cluster_std=0.3, random_state=0)
    classes = np.where(y == 0, -1, 1)
    with pytest.warns(UserWarning, match="-1 and 1 alone: taken for two classes"):
        model = GraphLabelPropagation(n_neighbors=5).fit(X, classes)
    assert model.unlabeled_ is None
    assert model.classes_.tolist() == [-1, 1]
    assert (model.predict(X) == classes).all()
    assert model.score(X, classes) == 1


def test_a_single_class_where_minus_one_is_said_to_be_no_label():
    X = np.array([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3]])
    model = GraphLabelPropagation(n_neighbors=1, unlabeled=-1).fit(X, [4, -1, -1])
    assert model.classes_.tolist() == [4]
    assert model.transduction_.tolist() == [4, 4, 4]
    named = GraphLabelPropagation(n_neighbors=1).fit(X, ["cat", -1, -1])  # no doubt among names
    assert named.transduction_.tolist() == ["cat"] * 3


@pytest.mark.parametrize("unlabeled", [99, 0, None])
def test_another_mark_lets_minus_one_be_a_class(unlabeled):
    X, y = make_blobs(60, centers=[[0, 5], [5, 0]], cluster_std=0.3, random_state=0)
    classes = np.where(y == 0, -1, 1)
    given = classes if unlabeled is None else np.where(np.arange(60) % 6 == 0, classes, unlabeled)
    model = GraphLabelPropagation(n_neighbors=5, unlabeled=unlabeled, **PAPER).fit(X, given)
    assert model.classes_.tolist() == [-1, 1]
    assert (model.transduction_ == classes).all()
    assert (model.predict(X) == classes).all()
    assert model.score(X, classes) == 1
    nothing_alike = model.predict([[-1.0, -1.0]])
    assert nothing_alike.tolist() == [-1 if unlabeled is None else unlabeled]


def test_names_with_another_mark():
    X = [[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]]
    model = GraphLabelPropagation(n_neighbors=1, unlabeled="?", **PAPER)
    model.fit(X, ["cat", "?", "dog", "?"])
    assert model.transduction_.tolist() == ["cat", "cat", "dog", "dog"]
    assert model.predict([[-1.0, -1.0]]).tolist() == ["?"]
    with pytest.raises(ValueError, match=r"'\?' means unlabelled"):
        model.fit(X, ["?"] * 4)


def test_agrees_with_propagate(digits):
    X, _, few = digits
    model = GraphLabelPropagation(n_neighbors=10, alpha=0.99, **PAPER).fit(X, few)
    pseudo = propagate(
        torch.from_numpy(X), torch.from_numpy(few), k=10, max_iterations=100, tolerance=1e-4
    )
    assert (model.transduction_ == pseudo.labels.numpy()).all()
    np.testing.assert_allclose(model.label_distributions_, pseudo.probabilities, atol=1e-4)
    np.testing.assert_allclose(model.certainty_, pseudo.certainty, atol=1e-3)
    assert 1 <= model.n_iter_ <= 100
    assert (model.transduction_[few >= 0] == few[few >= 0]).all()


def test_the_default_gives_every_label_of_the_equations(digits):
    X, _, few = digits
    X, few = X[:600], few[:600]
    model = GraphLabelPropagation().fit(X, few)
    expected = label_quality.labels_by_default(X, few, 10)
    assert (model.transduction_[few < 0] == expected[few < 0]).all()
    assert model.label_distributions_.sum(axis=1) == pytest.approx(1)


def test_a_new_point_gets_the_label_it_would_have_had(digits):
    """Points seen again, and points left out: nearly all as if they had been there."""
    X, _, few = digits
    X, few = X[:900], few[:900]
    whole = GraphLabelPropagation().fit(X, few)
    again = whole.predict(X)
    assert (again == whole.transduction_).mean() > 0.97
    part = GraphLabelPropagation().fit(X[:600], few[:600])
    expected = GraphLabelPropagation().fit(X, np.append(few[:600], np.full(300, -1)))
    new = part.predict(X[600:])
    assert (new == expected.transduction_[600:]).mean() > 0.93
    assert part.predict_proba(X[600:]).sum(axis=1) == pytest.approx(1)
    # rows change by the training points' statistics, whichever rows come together
    np.testing.assert_array_equal(part.predict(X[600:610]), new[:10])


def test_copies_of_a_row_are_one_point(digits):
    X, _, few = digits
    X, few = X[:300], few[:300]
    alone = GraphLabelPropagation().fit(X, few)
    many = GraphLabelPropagation().fit(np.vstack([X, X[:50]]), np.append(few, np.full(50, -1)))
    assert (many.transduction_ == np.append(alone.transduction_, alone.transduction_[:50])).all()
    np.testing.assert_allclose(many.label_distributions_[:300], alone.label_distributions_)
    np.testing.assert_allclose(many.label_distributions_[300:], alone.label_distributions_[:50])
    np.testing.assert_allclose(many.predict_proba(X[60:90]), alone.predict_proba(X[60:90]))
    same = GraphLabelPropagation().fit(np.ones((4, 3)), [0, 1, -1, -1])
    assert same.predict_proba(np.ones((2, 3))).sum(axis=1) == pytest.approx(1)


@pytest.mark.commands
def test_importing_the_estimator_imports_scikit_learn_and_little_else():
    """`fit` imports the rest, of which torch takes longer than scikit-learn."""
    code = (
        "import sys, sklearn.base, sklearn.utils.multiclass, sklearn.utils.validation\n"
        "before = set(sys.modules); import dlp_plugins.sklearn\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    new = set(done.stdout.split())
    rooms = {name for name in new if name.startswith("dlp_plugins.")}
    assert {r.split(".")[1] for r in rooms} == {"component", "errors", "registry", "sklearn"}
    assert not new & {"torch", "faiss", "pydantic", "pandas", "safetensors", "typer"}
    assert len(new - rooms) < 40  # of the standard library


def test_more_accurate_than_label_spreading(digits):
    X, y, few = digits
    unlabeled = few < 0
    theirs = LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.2, max_iter=100).fit(X, few)
    ours = GraphLabelPropagation(refiner="none").fit(X, few)  # pixels: not what it is meant for
    accuracy = [(m.transduction_[unlabeled] == y[unlabeled]).mean() for m in (ours, theirs)]
    assert accuracy[0] > 0.96
    assert accuracy[0] >= accuracy[1]


def test_new_points_get_the_weighted_mean_of_their_neighbors(digits):
    X, y, few = digits
    train, new = X[:1200], X[1200:]
    model = GraphLabelPropagation(n_neighbors=8, gamma=2.0, **PAPER).fit(train, few[:1200])
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (new, train)]
    similarity = unit[0] @ unit[1].T
    near = np.argsort(-similarity, axis=1)[:, :8]
    weights = np.take_along_axis(similarity, near, axis=1) ** 2.0
    expected = np.einsum("mk,mkc->mc", weights, model.label_distributions_[near])
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(new), expected, atol=1e-5)
    assert (model.predict(new) == y[1200:]).mean() > 0.9


def test_new_points_under_an_affinity_that_looks_at_both_ends(digits):
    X, _, few = digits
    train, new = X[:1200], X[1200:]
    model = GraphLabelPropagation(affinity="local_scale", n_neighbors=8, **PAPER)
    model.fit(train, few[:1200])
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (new, train)]

    def distances(to_train, skip):
        near = np.argsort(-to_train, axis=1)[:, skip : skip + 8]
        s = np.take_along_axis(to_train, near, axis=1)
        return near, np.sqrt(2 - 2 * s)

    near, d = distances(unit[0] @ unit[1].T, 0)
    _, d_train = distances(unit[1] @ unit[1].T, 1)
    weights = np.exp(-(d**2) / (d[:, 6:7] * d_train[near, 6]))  # the scale: the 7th neighbour
    expected = np.einsum("mk,mkc->mc", weights, model.label_distributions_[near])
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(new), expected, atol=1e-4)


@pytest.mark.parametrize("mark", [-1, "-1"])
@pytest.mark.parametrize("container", [list, lambda y: np.array(y, object), pd.Series])
def test_names_with_minus_one(digits, container, mark):
    X, _, few = digits
    names = np.array([f"digit {i}" for i in range(10)])
    labels = container([str(names[i]) if i >= 0 else mark for i in few])
    model = GraphLabelPropagation(n_neighbors=10).fit(X, labels)
    assert model.classes_.tolist() == sorted(names)
    numbered = GraphLabelPropagation(n_neighbors=10).fit(X, few)
    assert (model.transduction_ == names[numbered.transduction_]).all()
    assert (model.predict(X[:50]) == names[numbered.predict(X[:50])]).all()
    assert model.score(X, labels) == pytest.approx(numbered.score(X, few))


def test_objects_other_than_names_are_refused():
    with pytest.raises(ValueError, match="every label must be a string"):
        GraphLabelPropagation().fit(np.eye(3), np.array(["a", 3, "b"], dtype=object))


FOUR = [[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]]


@pytest.mark.parametrize(
    "y",
    [
        ["cat", "", "dog", " "],
        np.array(["cat", "", "dog", ""]),
        ["cat", None, "dog", np.nan],
        np.array(["cat", None, "dog", ""], dtype=object),
        pd.Series(["cat", None, "dog", pd.NA]),
        pd.Series(["cat", None, "dog", None], dtype="string"),
    ],
)
def test_a_blank_name_is_no_label_as_in_a_file(y):
    """'' was a class of its own."""
    model = GraphLabelPropagation(n_neighbors=1).fit(FOUR, y)
    assert model.classes_.tolist() == ["cat", "dog"]
    assert model.transduction_.tolist() == ["cat", "cat", "dog", "dog"]
    assert model.score(FOUR, y) == 1


@pytest.mark.parametrize(
    "y",
    [
        [4, None, 7, np.nan],
        [4.0, np.nan, 7.0, np.nan],
        pd.Series([4, None, 7, None]),
        pd.Series([4, None, 7, None], dtype="Int64"),
    ],
)
def test_a_blank_number_is_no_label_as_in_a_file(y):
    model = GraphLabelPropagation(n_neighbors=1).fit(FOUR, y)
    assert model.transduction_.tolist() == [4, 4, 7, 7]
    assert model.score(FOUR, y) == 1


def test_one_class_and_blanks_are_not_two_classes():
    model = GraphLabelPropagation(n_neighbors=1).fit(FOUR, [1.0, np.nan, np.nan, 1.0])
    assert model.classes_.tolist() == [1]
    with pytest.raises(ValueError, match="point 1 is blank, but unlabeled=None"):
        GraphLabelPropagation(unlabeled=None).fit(FOUR, ["cat", "", "dog", "cat"])


def test_rows_of_any_length_keep_their_direction():
    """Rows near 1e-300 and 1e200, whose squares leave float64, were zero vectors or infinite."""
    X = np.array(FOUR) * np.array([[1e-300], [1e200], [1.0], [1e-30]])
    model = GraphLabelPropagation(n_neighbors=1).fit(X, [0, -1, 1, -1])
    assert model.transduction_.tolist() == [0, 0, 1, 1]
    assert model.predict(np.array([[1e-200, 0], [0, 1e300]])).tolist() == [0, 1]


@pytest.mark.parametrize("names", [None, np.array(["left", "right"])])
def test_what_no_label_reaches_gets_minus_one(names):
    # two opposite directions, each a component of its own; the second has no label
    X = np.vstack([make_blobs(10, centers=[[9, 0]], random_state=0)[0], [[-9, 0.1], [-9, -0.1]]])
    y = np.array([0, 1] + [-1] * 10)
    labels = y if names is None else np.where(y < 0, "-1", names[y])
    model = GraphLabelPropagation(n_neighbors=3, **PAPER).fit(X, labels)
    assert model.reached_.tolist() == [True] * 10 + [False] * 2
    assert model.transduction_[-2:].tolist() == [-1, -1]
    assert (model.transduction_[:10] != -1).all()
    assert model.certainty_[-2:].tolist() == [0, 0]
    assert not model.label_distributions_[-2:].any()
    new = np.array([[-5.0, 0.0], [5.0, 0.0], [0.0, 0.0]])
    assert (model.predict(new) == -1).tolist() == [True, False, True]
    assert model.predict_proba(new).sum(axis=1) == pytest.approx([0, 1, 0])


def test_pipeline_and_grid_search(digits):
    X, y, few = digits
    pipeline = make_pipeline(StandardScaler(), GraphLabelPropagation(refiner="none"))
    grid = {
        "graphlabelpropagation__alpha": np.array([0.0, 0.9]),
        "graphlabelpropagation__n_neighbors": np.array([5, 10]),  # NumPy's integers too
        "graphlabelpropagation__solver": ["cg", "closed_form"],
    }
    # with half of the labels held out, those of unlabelled points must not count as wrong
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, few)
    assert search.best_params_["graphlabelpropagation__alpha"] == 0.9
    assert search.best_score_ > 0.8
    assert (search.predict(X) == y).mean() > 0.9


def test_score_counts_the_labelled_alone(digits):
    X, _, few = digits
    model = GraphLabelPropagation(n_neighbors=10).fit(X, few)
    known = few >= 0
    right = model.predict(X[known]) == few[known]
    assert model.score(X, few) == pytest.approx(right.mean())
    weights = np.random.default_rng(0).random(len(few))
    weighted = np.average(right, weights=weights[known])
    assert model.score(X, few, sample_weight=weights) == pytest.approx(weighted)
    with pytest.raises(ValueError, match="nothing to score"):
        model.score(X, np.full(len(few), -1))


def test_components_may_be_objects(digits):
    X, _, few = digits
    graph, solver = Exact(k=10), ClosedForm(alpha=0.99)
    model = clone(GraphLabelPropagation(graph=graph, solver=solver, n_neighbors=3)).fit(X, few)
    assert model.n_iter_ == 0  # a direct solver
    named = GraphLabelPropagation(solver="closed_form", alpha=0.99).fit(X, few)
    np.testing.assert_allclose(model.label_distributions_, named.label_distributions_, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X[:9]), named.predict_proba(X[:9]), atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "error", "says"),
    [
        ({"alpha": 1.0}, ValueError, "alpha"),
        ({"n_neighbors": 0}, ValueError, "k"),
        ({"n_neighbors": 2.5}, TypeError, "float"),
        ({"tol": 0}, ValueError, "tolerance"),
        ({"solver": "conjugate"}, RegistryError, "Available"),
        ({"graph": 7}, TypeError, "graph must be a name or a GraphBuilder"),
    ],
)
def test_bad_parameters_are_refused_in_fit(parameters, error, says):
    model = GraphLabelPropagation(**parameters)
    with pytest.raises(error, match=says):
        model.fit(np.eye(4), [0, 1, -1, -1])


def test_no_label_at_all_is_refused():
    with pytest.raises(ValueError, match="No point is labelled"):
        GraphLabelPropagation().fit(np.eye(3), [-1, -1, -1])


def test_warns_when_not_converged(digits):
    X, _, few = digits
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        GraphLabelPropagation(n_neighbors=10, max_iter=2).fit(X, few)


@pytest.mark.filterwarnings("error")
def test_converges_silently_by_default(digits):
    GraphLabelPropagation().fit(digits[0], digits[2])


# -- weights, soft labels, prior scores -----------------------------------------------------------


def test_weights_and_soft_labels_give_what_propagate_gives(digits):
    X, _, few = digits
    X, few = X[:300], few[:300]
    rng = np.random.default_rng(0)
    shares = np.where(few[:, None] >= 0, 0.05, 0) + 0.5 * (few[:, None] == np.arange(10))
    weights, prior = rng.uniform(0.5, 2, 300), rng.random((300, 10))
    model = GraphLabelPropagation(
        transformation="rescale", prior_weight=0.2, calibrate=True, unknown=True
    )
    model.fit(X, shares, sample_weight=weights, prior=prior)
    found = propagate(
        X, shares, label_weights=weights, prior=prior, prior_weight=0.2, calibrated=True,
        unknown=True, transform="rescale", normalizer="class_mass", refiner="discriminant",
        k=10, alpha=0.9, max_iterations=100,
    )  # fmt: skip
    assert model.classes_.tolist() == list(range(10))
    assert model.transduction_.tolist() == found.labels.tolist()
    np.testing.assert_allclose(model.label_distributions_, found.probabilities, atol=1e-4)
    np.testing.assert_allclose(model.probability_, found.probability, atol=1e-4)
    np.testing.assert_allclose(model.unknown_, found.unknown, atol=1e-3)  # both to a residual
    assert model.temperature_ == pytest.approx(found.calibration.temperature)


def test_an_audit_knows_weights_as_that_of_files_does(digits, tmp_path):
    X, y, few = digits
    X, few = X[:300], few[:300].copy()
    few[np.flatnonzero(few < 0)[:60]] = y[:300][few < 0][:60]
    few[np.flatnonzero(few >= 0)[::3]] = 1  # most of these are wrong
    weights = np.random.default_rng(0).choice([0.01, 1, 5], 300)
    np.save(tmp_path / "x.npy", X.astype(np.float32))
    rows = [f"{i},{few[i]},{weights[i]}" for i in np.flatnonzero(few >= 0)]
    (tmp_path / "y.csv").write_text("\n".join(["index,label,weight", *rows]))
    expected = audit_file(tmp_path / "x.npy", tmp_path / "y.csv", tmp_path / "t.csv")
    model = GraphLabelPropagation(transformation="auto").fit(X, few, sample_weight=weights)
    found, plain = model.audit(), GraphLabelPropagation().fit(X, few).audit()
    doubt = dict(zip(found["points"].tolist(), found["doubt"], strict=True))
    wanted = dict(zip(expected.points.tolist(), expected.doubt, strict=True))
    assert doubt == pytest.approx(wanted, abs=1e-3, nan_ok=True)
    without = dict(zip(plain["points"].tolist(), plain["doubt"], strict=True))
    assert max(abs(doubt[i] - without[i]) for i in doubt) > 0.05


def test_soft_labels_may_be_sparse_and_one_hot_ones_are_plain_labels(digits):
    X, y, _ = digits
    X, few = X[:300], np.where(np.arange(300) % 10 < 2, y[:300], -1)
    plain = GraphLabelPropagation().fit(X, few, sample_weight=np.ones(300))
    one_hot = (few[:, None] == np.arange(10)).astype(float)
    soft = GraphLabelPropagation().fit(X, scipy.sparse.csr_array(one_hot))
    again = GraphLabelPropagation().fit(X, few)
    assert plain.classes_.tolist() == list(range(10))
    assert np.array_equal(plain.label_distributions_, again.label_distributions_)
    assert np.array_equal(soft.transduction_, plain.transduction_)
    assert np.array_equal(soft.label_distributions_, plain.label_distributions_)


@pytest.mark.parametrize(
    ("y", "weight", "sentence"),
    [
        (np.zeros((20, 3)), None, "No point is labelled"),
        (-np.ones((20, 3)), None, "at least 0"),
        (np.eye(19, 3), None, "inconsistent numbers of samples"),
        (np.arange(20) % 2, -np.ones(20), "Negative values"),
        (np.arange(20) % 2, np.zeros(20), "at least one non-zero|No point is labelled"),
    ],
)
def test_soft_labels_and_weights_that_are_refused(y, weight, sentence):
    X = np.random.default_rng(0).random((20, 3))
    with pytest.raises(ValueError, match=sentence):
        GraphLabelPropagation().fit(X, y, sample_weight=weight)
