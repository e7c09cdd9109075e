"""A finished run's folder alone gives the classifier back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from dlp_plugins import errors, registry
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.training.load import load
from dlp_plugins.training.run import run

TINY = [
    "dataset.num_train=300", "dataset.num_test=100", "dataset.num_validation=40",
    "backbone.width=4", "consistency=mean_teacher", "training.stage_one_epochs=2",
    "training.stage_one_steps=4", "training.stage_two_epochs=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    run(load_recipe("digits", TINY), path)
    return path


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_a_loaded_network_makes_the_errors_that_the_run_measured(folder, network, monkeypatch):
    summary = json.loads((folder / "summary.json").read_text())
    key = "test_error" if network == "student" else "teacher_test_error"
    classifier = load(folder, network=network)
    from dlp_plugins.training import data

    prepared = data.prepare_data(load_recipe(folder / "recipe.toml"), torch.device("cpu"))
    images, labels = prepared.test.source.images, prepared.test_labels
    predicted = classifier.predict(images)
    wrong = [p != classifier.classes[i] for p, i in zip(predicted, labels, strict=True)]
    assert 100 * np.mean(wrong) == pytest.approx(summary[key])


def test_what_a_classifier_gives(folder):
    digits = registry.datasets.build("digits").test.images[:5]
    classifier = load(folder, weights="best")
    p = classifier.predict_proba(digits.numpy())
    assert p.shape == (5, 10)
    assert np.allclose(p.sum(axis=1), 1, atol=1e-5)
    assert classifier.describe(digits).ndim == 2
    assert classifier.predict(digits[0]) == classifier.predict(digits)[:1]
    assert set(classifier.predict(digits)) <= set(classifier.classes)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 1, 9, 9), np.uint8), np.zeros((2, 1, 8, 8), np.float32), np.zeros(3)]
)
def test_inputs_of_another_shape_or_type_are_refused_in_a_sentence(folder, images):
    with pytest.raises(errors.DataError):
        load(folder).predict(images)


def test_what_cannot_be_loaded_is_explained(folder, tmp_path):
    with pytest.raises(errors.RunFolderError):
        load(tmp_path)
    run(load_recipe("digits", [*TINY, "consistency=none", "dataset.num_validation=0"]),
        tmp_path / "run")  # fmt: skip
    with pytest.raises(errors.RunFolderError, match="kept no teacher"):
        load(tmp_path / "run", network="teacher")
    with pytest.raises(errors.RunFolderError, match="no validation split"):
        load(tmp_path / "run", weights="best")
    (tmp_path / "run" / "model.json").write_text("{}")
    with pytest.raises(errors.DataError, match=r"model\.json"):
        load(tmp_path / "run")
