"""`--start` and `--auto` of `dlp propagate`, and of the estimator."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from dlp_cli.app import app
from sklearn.linear_model import LogisticRegression
from typer.testing import CliRunner

from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.run import prepare, propagate_file
from dlp_plugins.embeddings.starts import STARTS, build_start
from dlp_plugins.errors import ParameterError, UsageError
from dlp_plugins.sklearn import GraphLabelPropagation

pytestmark = pytest.mark.usefixtures("one_thread")
TRUTH = np.repeat([0, 1, 2], [30, 20, 20])
X = 3 * np.eye(3, 6)[TRUTH] + np.random.default_rng(0).normal(size=(70, 6))
SKLEARN = "sklearn.linear_model.LogisticRegression"


@pytest.fixture
def files(tmp_path):
    """Embeddings and four labels per class."""
    labels = np.full(70, -1)
    for start in (0, 30, 50):
        labels[start : start + 4] = TRUTH[start]
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", labels)
    return tmp_path


def run(files, *words):
    paths = [str(files / name) for name in ("x.npy", "y.npy", "t.csv")]
    return CliRunner().invoke(
        app, ["propagate", paths[0], "--labels", paths[1], "--out", paths[2], *words]
    )


def table_labels(files):
    with (files / "t.csv").open(newline="") as file:
        return [int(row["label"]) for row in csv.DictReader(file)]


def test_a_start_by_name_is_that_of_the_estimator(files):
    assert run(files, "--start", SKLEARN).exit_code == 0
    model = GraphLabelPropagation(start=LogisticRegression(**STARTS[SKLEARN]))
    model.fit(X, np.load(files / "y.npy"))
    assert table_labels(files) == model.transduction_.tolist()
    assert (model.transduction_ == TRUTH).mean() > 0.8


def test_alpha_is_lower_with_a_start_unless_it_is_given(files):
    names = (files / name for name in ("x.npy", "y.npy", "t.csv"))
    x, y, out = names
    assert prepare(Options(x, y, out)).propagator.solver.alpha == 0.9
    assert prepare(Options(x, y, out, start=SKLEARN)).propagator.solver.alpha == 0.8
    settings = ["solver.alpha=0.5"]
    assert (
        prepare(Options(x, y, out, start=SKLEARN, settings=settings)).propagator.solver.alpha == 0.5
    )
    components = GraphLabelPropagation(start=LogisticRegression(), alpha=0.7)._components(70)
    assert components.solver.alpha == 0.7


@pytest.mark.parametrize("path", STARTS)
def test_every_start_of_the_list_works(files, path):
    outcome = propagate_file(
        files / "x.npy", files / "y.npy", files / "t.csv", start=path, overwrite=True,
        settings=["refiner=none"],
    )  # fmt: skip
    assert (outcome.labels.numpy() == TRUTH).mean() > 0.75


def test_starts_that_are_not_in_the_list_are_refused(files):
    with pytest.raises(UsageError, match=r"not among those .* Did you mean 'sklearn\.linear"):
        build_start("sklearn.linear_model.LogisticRegresion")
    assert run(files, "--start", "os.system").exit_code != 0
    with pytest.raises(ParameterError, match="is a class, not an object"):
        GraphLabelPropagation(start=LogisticRegression).fit(X, np.load(files / "y.npy"))


def test_soft_or_weighted_labels_are_refused(files):
    (files / "w.csv").write_text("index,label,weight\n0,0,0.5\n30,1,1\n50,2,1\n")
    for option in ({"auto": True}, {"start": SKLEARN}):
        with pytest.raises(UsageError, match="need plain labels"):
            prepare(Options(files / "x.npy", files / "w.csv", files / "t.csv", **option))


def test_auto_reports_every_method_and_what_is_taken(files):
    done = run(files, "--auto")
    assert done.exit_code == 0, done.output
    for method in ("default", "class mass alone", "started from logistic", "logistic regression"):
        assert method in done.output
    assert "Cross-validation on 12 labels, 3 times; ± is one standard error." in done.output
    assert "The default is kept" in done.output
    kept = table_labels(files)
    assert run(files, "--overwrite").exit_code == 0
    assert table_labels(files) == kept


def test_auto_with_one_label_per_class_keeps_the_default_and_says_why(files):
    np.save(files / "y.npy", np.where(np.isin(np.arange(70), [0, 30, 50]), TRUTH, -1))
    done = run(files, "--auto")
    assert done.exit_code == 0, done.output
    assert "needs a class with at least two labels. The default is kept." in done.output


def test_the_estimator_takes_what_is_clearly_better():
    # two halves of each class on opposite sides: no cluster, so the discriminant finds nothing
    rng = np.random.default_rng(0)
    side, truth = rng.choice([-1, 1], 200), np.arange(200) % 2
    x = np.zeros((200, 4))
    x[np.arange(200), truth] = 3 * side
    x += rng.normal(size=x.shape) / 3
    y = np.where(np.arange(200) < 80, truth, -1)
    model = GraphLabelPropagation(auto=True, unlabeled=-1).fit(x, y)
    assert model.comparison_.chosen.name == "class mass alone"
    default = GraphLabelPropagation(unlabeled=-1).fit(x, y)
    found, without = (model.transduction_ == truth).mean(), (default.transduction_ == truth).mean()
    assert found > max(0.99, without)
    assert (model.predict(x) == truth).mean() > 0.95
