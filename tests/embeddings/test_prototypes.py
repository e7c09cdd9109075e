"""Prototypes against a plain NumPy port of the published equations, and through the command."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import prototypes as oracle
from places import ROOT

from dlp_plugins.embeddings.prototypes import propagate_prototypes
from dlp_plugins.embeddings.run import propagate_file
from dlp_plugins.errors import DlpError, FeatureError, LabelError

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox"]
WHURS = ROOT.parent / "shared" / "data" / "embeddings" / "whurs19_clip.npz"


def made(n: int = 120, c: int = 6, d: int = 16):
    """Images around their class means, and prototypes away from these, as text is from images."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((c, d))
    y = np.arange(n) % c
    x = means[y] + 0.8 * rng.standard_normal((n, d)) + 1.0
    return x, means + 0.9 * rng.standard_normal((c, d)) - 0.2, y


@pytest.mark.parametrize("labeled", [0, 9])
def test_labels_equal_the_equations(labeled) -> None:
    x, t, y = made()
    labels = np.where(np.arange(len(y)) < labeled, y, -1)
    z = oracle.scores(x, t, labels)
    found = propagate_prototypes(x, t, labels)
    torch.testing.assert_close(found.scores, torch.from_numpy(z).float(), atol=1e-6, rtol=1e-4)
    wanted = np.where(labels >= 0, labels, z.argmax(axis=1))
    assert np.array_equal(found.labels.numpy(), wanted)
    assert found.labels.shape == found.certainty.shape == found.reached.shape == (120,)
    assert found.health.empty_classes == 0


@pytest.mark.skipif(not WHURS.is_file(), reason="needs ../shared/data")
def test_aerial_scenes_equal_the_equations_and_beat_the_nearest_prototype() -> None:
    with np.load(WHURS) as file:
        x, t, y = file["x"], file["text"], file["y"]
    z = oracle.scores(x, t, np.full(len(x), -1))
    found = propagate_prototypes(x, t)
    assert np.array_equal(found.labels.numpy(), z.argmax(axis=1))
    nearest = (oracle.unit(x) @ oracle.unit(t).T).argmax(axis=1)
    assert (found.labels.numpy() == y).mean() > (nearest == y).mean() + 0.01


def test_classes_without_an_image_are_counted() -> None:
    x, t, _ = made()
    found = propagate_prototypes(x, np.concatenate([t, -10 * np.ones((1, t.shape[1]))]))
    assert found.health.empty_classes == 1


def test_what_cannot_be_used() -> None:
    x, t, _ = made()
    with pytest.raises(FeatureError, match="Prototypes have 15 numbers each and descriptors 16"):
        propagate_prototypes(x, t[:, 1:])
    with pytest.raises(LabelError, match=r"outside 0\.\.5"):
        propagate_prototypes(x, t, np.full(len(x), 6))
    with pytest.raises(LabelError, match="labels of shape"):
        propagate_prototypes(x, t, np.full(len(x) - 1, -1))


@pytest.fixture
def folder(tmp_path):
    x, t, y = made()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "t.npy", t)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    rows = [f"{i},{NAMES[y[i]]}" for i in range(9)]
    (tmp_path / "y.csv").write_text("\n".join(["index,label", *rows]))
    return tmp_path


def run(folder, labels=None, **options):
    labels = None if labels is None else folder / labels
    return propagate_file(folder / "x.npy", labels, folder / "out.csv", overwrite=True, **options)


@pytest.mark.parametrize("labels", [None, "y.csv"])
def test_the_file_path_gives_the_same(folder, labels) -> None:
    x, t, y = made()
    given = np.where(np.arange(len(y)) < (0 if labels is None else 9), y, -1)
    own = propagate_prototypes(x, t, given)
    names = folder / "names.txt"
    outcome = run(folder, labels, prototypes=folder / "t.npy", names=names)
    assert torch.equal(outcome.labels, own.labels)
    torch.testing.assert_close(outcome.certainty, own.certainty, atol=1e-4, rtol=0)
    assert outcome.counts.sum() == len(y)
    table = (folder / "out.csv").read_text().splitlines()
    assert len(table) == len(y) + 1
    wanted = names.read_text().split()[int(own.labels[0])]
    assert table[1].split(",")[:2] == ["0", wanted]
    if labels is None:  # without names, the prototypes' row numbers
        assert torch.equal(run(folder, prototypes=folder / "t.npy").labels, own.labels)
        assert (folder / "out.csv").read_text().splitlines()[1].split(",")[1] == str(
            int(own.labels[0])
        )


def test_weights_of_labels_go_with_prototypes(folder) -> None:
    (folder / "y.csv").write_text("index,label,weight\n0,ant,1\n1,bee,0.5\n")
    outcome = run(folder, "y.csv", prototypes=folder / "t.npy", names=folder / "names.txt")
    assert outcome.labels[:2].tolist() == [0, 1]


def test_labels_of_weight_one_are_plain_labels(folder) -> None:
    options = {"prototypes": folder / "t.npy", "names": folder / "names.txt"}
    plain = run(folder, "y.csv", **options)
    rows = [f"{i},{NAMES[made()[2][i]]},1" for i in range(9)]
    (folder / "y.csv").write_text("\n".join(["index,label,weight", *rows]))
    weighted = run(folder, "y.csv", **options)
    assert torch.equal(weighted.labels, plain.labels)
    torch.testing.assert_close(weighted.certainty, plain.certainty, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "Give --labels FILE or --prototypes FILE"),
        ({"labels": "y.csv", "names": "names.txt"}, "Give --prototypes FILE"),
        ({"labels": "y.csv", "prototypes": "t.npy"}, "label 'ant' is no prototype's name"),
        ({"prototypes": "t.npy", "classes": 3}, "--classes does not go with --prototypes"),
        ({"prototypes": "t.npy", "save_index": "i.safetensors"}, "--save-index does not go"),
        ({"prototypes": "t.npy", "prior": "p.npy"}, "--prior does not go with --prototypes"),
        ({"prototypes": "t.npy", "start": "sklearn"}, "--start does not go with --prototypes"),
        ({"prototypes": "t.npy", "auto": True}, "--auto does not go with --prototypes"),
        ({"prototypes": "t.npy", "settings": ["refiner=discriminant"]}, "need refiner=none"),
        ({"prototypes": "other.npy"}, "7 numbers each and the embeddings 16"),
        ({"prototypes": "t.npy", "names": "few.txt"}, "names are needed of 6 prototypes"),
    ],
)
def test_what_does_not_go_together(folder, options, sentence) -> None:
    np.save(folder / "other.npy", np.ones((3, 7)))
    (folder / "few.txt").write_text("ant\nbee\n")
    paths = {
        k: folder / v if k in ("prototypes", "names", "save_index") else v
        for k, v in options.items()
    }
    with pytest.raises(DlpError, match=sentence):
        run(folder, **paths)
