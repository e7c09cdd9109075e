"""Labels that the rest contradicts count less: accuracy rises where many of them are wrong."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from dlp_cli.app import app
from typer.testing import CliRunner

from dlp_plugins.embeddings.built import Built
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.robust import LEAST, trusted_beliefs
from dlp_plugins.embeddings.run import prepare
from dlp_plugins.errors import UsageError
from dlp_plugins.propagation.beliefs import Beliefs
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.refiners.contract import Given
from dlp_plugins.sklearn import GraphLabelPropagation

C, EACH, LABELED, WRONG = 6, 40, 8, 3


def data():
    """Overlapping classes; eight labels each, of which three are those of other classes."""
    random = np.random.default_rng(0)
    x = np.repeat(random.normal(size=(C, 16)), EACH, 0) + random.normal(size=(C * EACH, 16))
    truth = np.repeat(np.arange(C), EACH)
    labels = np.full(C * EACH, -1)
    for j in range(C):
        at = j * EACH + np.arange(LABELED)
        labels[at] = j
        labels[at[:WRONG]] = (j + 1 + np.arange(WRONG)) % C
    return torch.from_numpy(x).float(), torch.from_numpy(truth), torch.from_numpy(labels)


def weights(**more):
    x, truth, labels = data()
    propagator = build_propagator(propagation_recipe([]))
    built = Built.of(propagator, x)
    found = trusted_beliefs(built.graph, labels, C, built.distinct, **more)
    wrong = (labels != truth)[found.given.points]
    return found, wrong


def test_wrong_labels_count_less():
    found, wrong = weights()
    assert found.given.weights[wrong].mean() < found.given.weights[~wrong].mean() / 2
    assert found.given.weights.min() >= LEAST


def test_weights_of_labels_are_kept():
    _, _, labels = data()
    plain, _ = weights()
    given = Given.from_labels(labels, C)
    doubled = Beliefs(Given(given.points, given.distributions, 2 * given.weights))
    found, _ = weights(beliefs=doubled)
    torch.testing.assert_close(found.given.weights, 2 * plain.given.weights)


def test_the_estimator_is_more_accurate():
    x, truth, labels = data()
    accuracy = []
    for robust in (False, True):
        model = GraphLabelPropagation(robust=robust).fit(x, labels)
        accuracy.append((model.transduction_ == truth.numpy())[labels.numpy() < 0].mean())
    assert accuracy[1] > accuracy[0] + 0.03


@pytest.mark.parametrize("copies", [False, True])
def test_the_command_gives_the_labels_of_the_estimator(tmp_path, copies):
    x, _, labels = data()
    if copies:
        x, labels = torch.cat([x, x[[0, 1, 20]]]), torch.cat([labels, torch.tensor([0, -1, -1])])
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", labels)
    files = [str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy")]
    options = ["--out", str(tmp_path / "t.csv"), "--device", "cpu", "--robust"]
    done = CliRunner().invoke(app, ["propagate", *files, *options])
    assert done.exception is None, done.exception
    with (tmp_path / "t.csv").open(newline="") as file:
        found = [int(row["label"]) for row in csv.DictReader(file)]
    model = GraphLabelPropagation(robust=True).fit(x, labels)
    assert found == model.transduction_.tolist()


def test_the_estimator_audits_its_labels():
    x, truth, labels = data()
    found = GraphLabelPropagation().fit(x, labels).audit()
    assert (found.labels == labels.numpy()[found.points]).all()
    assert (np.diff(found.doubt) <= 0).all()
    wrong = truth.numpy()[found.points] != found.labels
    assert wrong[:C].mean() > 2 * wrong.mean()
    assert found.against.shape == (C * LABELED, 3)


def test_it_goes_with_no_other_source_of_labels(tmp_path):
    x, _, labels = data()
    with pytest.raises(ValueError, match="goes with neither start nor auto"):
        GraphLabelPropagation(robust=True, auto=True).fit(x, labels)
    with pytest.raises(UsageError, match="--robust goes with neither"):
        prepare(Options(tmp_path / "x.npy", tmp_path / "y.npy", None, robust=True, auto=True))
