"""`--save-index` and `dlp assign`: new points labelled as the old ones were; nothing but data."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from dlp_cli.app import app
from oracles.digits import digits, some_labels
from typer.testing import CliRunner

from dlp_plugins import registry
from dlp_plugins.embeddings import _index_file
from dlp_plugins.embeddings.assign import assign_file
from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.embeddings.fitted import FittedPropagation
from dlp_plugins.embeddings.index import load_index
from dlp_plugins.embeddings.memory import choose_chunks, estimate_memory
from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.run import prepare, propagate_file
from dlp_plugins.errors import DataError, FeatureError, SaveError, UsageError
from dlp_plugins.inputs import unit_rows
from dlp_plugins.propagation import Propagator
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.recipe.check import RecipeError
from dlp_plugins.refiners.contract import Refined, Refiner

pytestmark = pytest.mark.usefixtures("one_thread")
C, OLD = 10, 450
CLASSES = [f"digit {j}" for j in range(C)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """x.npy and y.csv (names of ten points per class), new.npy with what was held out, i."""
    folder = tmp_path_factory.mktemp("index")
    x, y = digits()
    np.save(folder / "x.npy", x[:OLD])
    np.save(folder / "new.npy", x[OLD:])
    few = some_labels(y[:OLD], 5)
    lines = [CLASSES[j] if j >= 0 else "" for j in few]
    (folder / "y.csv").write_text("label\n" + "\n".join(lines) + "\n")
    np.save(folder / "few.npy", few)
    save(folder, "i.safetensors")
    return folder


def save(folder: Path, name: str, *settings: str, **options):
    return propagate_file(
        folder / "x.npy", folder / "y.csv", folder / "out.csv", settings=settings, device="cpu",
        overwrite=True, save_index=folder / name, **options,
    )  # fmt: skip


def new_points(folder: Path) -> np.ndarray:
    return np.load(folder / "new.npy")


def fitted(folder: Path, *settings: str) -> FittedPropagation:
    """The same propagation by the estimator's path, with all scores in memory."""
    propagator = build_propagator(propagation_recipe(settings, OLD))
    unit = unit_rows(torch.from_numpy(np.load(folder / "x.npy"))).numpy()
    return FittedPropagation.of(propagator, unit, np.load(folder / "few.npy"), C)


@pytest.mark.parametrize("settings", [(), ("refiner=none", "affinity=local_scale", "graph.k=7")])
def test_a_file_labels_as_the_propagation_in_memory_does(folder, settings):
    save(folder, "same.safetensors", *settings)
    index = load_index(folder / "same.safetensors")
    assert index.classes == CLASSES
    labels, probabilities, certainty = index.assign(new_points(folder))
    expected = fitted(folder, *settings).index.assign(new_points(folder))
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=0.01)
    np.testing.assert_allclose(certainty, expected.certainty, atol=0.01)
    truth = digits()[1][OLD:]
    assert (labels == truth).mean() > 0.75


def test_saving_and_loading_changes_rounding_at_most(folder, tmp_path):
    index = fitted(folder).index
    index.save(tmp_path / "i.safetensors", "float32")
    expected, found = (
        i.assign(new_points(folder)) for i in (index, load_index(tmp_path / "i.safetensors"))
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)
    assert (tmp_path / "i.safetensors").stat().st_size < 1.5 * index.points.nbytes + 200_000


def test_half_precision_takes_half_the_space_and_changes_hardly_a_label(folder, tmp_path):
    index = fitted(folder).index
    index.save(tmp_path / "half.safetensors")
    index.save(tmp_path / "full.safetensors", "float32")
    half = load_index(tmp_path / "half.safetensors")
    assert half.points.dtype == half.distributions.dtype == np.float32
    found, expected = (i.assign(new_points(folder)) for i in (half, index))
    assert (found.labels == expected.labels).mean() > 0.99
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=0.05)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.75 * sizes[1]


def test_certainty_is_on_the_scale_of_the_old_points(folder):
    outcome = save(folder, "scale.safetensors")
    index = load_index(folder / "scale.safetensors")
    few = np.load(folder / "few.npy")
    again = index.assign(np.load(folder / "x.npy"))
    old = outcome.certainty.numpy()
    same = (again.labels == outcome.labels.numpy()) & (few < 0)
    assert same.sum() > 0.95 * (few < 0).sum()
    assert np.median(np.abs(again.certainty - old)[same]) < 0.05
    assert again.certainty.max() <= 1
    # unit vectors of two components: one without a label
    x = np.array([[1, 0.01], [1, 0.02], [1, 0.03], [-1, 0.01], [-1, 0.02], [-1, 0.03]])
    propagator = Propagator.default(k=2)
    index = FittedPropagation.of(propagator, x, np.array([0, 1, -1, -1, -1, -1]), 2).index
    found = index.assign([[1, 0.0], [-1, 0.0]])
    assert found.labels[1] == -1
    assert found.certainty[1] == 0
    assert found.probabilities[1].sum() == 0
    assert found.probabilities[0].sum() == pytest.approx(1)


def test_the_largest_certainty_is_that_of_the_propagation(folder):
    index = fitted(folder).index
    few = torch.from_numpy(np.load(folder / "few.npy"))
    raw = index.propagator.best_class(torch.from_numpy(index.distributions))[1]
    assert index.largest_certainty == pytest.approx(float(raw[few < 0].max()), rel=1e-5)


# -- the command --------------------------------------------------------------------------------


def dlp(*arguments) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_writes_the_table(folder, tmp_path):
    ids = [f"new/{i}" for i in range(150)]
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    out = tmp_path / "new.csv"
    text = dlp(
        "assign", folder / "i.safetensors", folder / "new.npy", "--out", out,
        "--ids", tmp_path / "ids.txt", "--probabilities",
    )  # fmt: skip
    assert "150 new points of 64 numbers" in text
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["index", "id", "label", "certainty", "margin", "probability", "reached"]
    assert list(rows[0]) == columns + [f"probability_{c}" for c in CLASSES]
    assert [r["id"] for r in rows] == ids
    found = load_index(folder / "i.safetensors").assign(new_points(folder))
    assert [r["label"] for r in rows] == [CLASSES[j] for j in found.labels]
    p = np.array([[float(r[f"probability_{c}"]) for c in CLASSES] for r in rows])
    np.testing.assert_allclose(p, found.probabilities, atol=1e-5)
    best = np.sort(p, axis=1)
    temperature = load_index(folder / "i.safetensors").temperature
    assert temperature > 1.5  # the refiner's rows are too sure
    largest = np.sort(found.probabilities, axis=1)[:, :-4:-1] ** (1 / temperature)
    probability = [float(r["probability"]) for r in rows]
    np.testing.assert_allclose(probability, largest[:, 0] / largest.sum(axis=1), atol=1e-4)
    margin = [float(r["margin"]) for r in rows]
    np.testing.assert_allclose(margin, best[:, -1] - best[:, -2], atol=1e-5)
    with pytest.raises(UsageError, match="exists already"):
        dlp("assign", folder / "i.safetensors", folder / "new.npy", "--out", out)


def test_an_index_that_was_not_calibrated_writes_no_probability(folder, tmp_path):
    save(folder, "raw.safetensors", calibrated=False)
    assert load_index(folder / "raw.safetensors").temperature is None
    assign_file(folder / "raw.safetensors", folder / "new.npy", tmp_path / "o.csv")
    header = (tmp_path / "o.csv").read_text().splitlines()[0]
    assert header == "index,label,certainty,margin,reached"


def test_propagate_names_what_it_wrote(folder, tmp_path):
    index = tmp_path / "i.safetensors"
    arguments = [
        "propagate", folder / "x.npy", "--labels", folder / "y.csv", "--out", tmp_path / "o.csv",
        "--save-index", index, "--device", "cpu",
    ]  # fmt: skip
    assert f"wrote {tmp_path / 'o.csv'} and {index}" in dlp(*arguments)
    with pytest.raises(UsageError, match=r"i\.safetensors: exists already"):
        dlp(*arguments[:4], "--out", tmp_path / "p.csv", *arguments[6:])
    with pytest.raises(UsageError, match=r"the index is written as \.safetensors"):
        dlp(*arguments[:4], "--out", tmp_path / "p.csv", "--save-index", tmp_path / "i.npz")


def test_one_new_point_is_enough(folder, tmp_path):
    np.save(tmp_path / "one.npy", new_points(folder)[:1])
    found = assign_file(folder / "i.safetensors", tmp_path / "one.npy", tmp_path / "o.csv")
    assert (
        found.labels[0] == load_index(folder / "i.safetensors").assign(new_points(folder)).labels[0]
    )


# -- what is refused ----------------------------------------------------------------------------


def test_other_embeddings_are_refused(folder, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 5)))
    with pytest.raises(FeatureError, match=r"x\.npy: holds 5 numbers .* the index was made of 64"):
        assign_file(folder / "i.safetensors", tmp_path / "x.npy", tmp_path / "o.csv")
    with pytest.raises(FeatureError, match="New points have 5 numbers each; the old ones have 64"):
        load_index(folder / "i.safetensors").assign(np.ones((3, 5)))


def test_a_file_that_is_no_index_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        load_index(tmp_path / "none.safetensors")
    with pytest.raises(DataError, match=r"indexes are read from \.safetensors"):
        load_index(folder / "x.npy")
    safetensors.numpy.save_file({"x": np.ones(3)}, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="is no index"):
        load_index(tmp_path / "x.safetensors")
    (tmp_path / "text.safetensors").write_text("not at all")
    with pytest.raises(DataError, match="cannot be read as"):
        load_index(tmp_path / "text.safetensors")


def test_every_damage_is_noticed(folder, tmp_path):
    whole = (folder / "i.safetensors").read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "i.safetensors"
    places = [0, 8, 9, 100, *random.integers(0, len(whole), 40), len(whole) - 1]
    for at in places:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(DataError):
            load_index(path)
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load_index(path)


@pytest.mark.parametrize("drop", ["points", "indices", "distributions", "classifier.factors"])
def test_an_index_with_a_part_missing_is_refused(folder, tmp_path, drop):
    arrays, about = _index_file.read(folder / "i.safetensors")
    del arrays[drop]
    _index_file.write(tmp_path / "i.safetensors", arrays, about)
    with pytest.raises(DataError, match="cannot be used"):
        load_index(tmp_path / "i.safetensors")


def test_another_format_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(_index_file, "FORMAT", 99)
    arrays, about = {"x": np.ones(1)}, {}
    _index_file.write(tmp_path / "i.safetensors", arrays, about)
    monkeypatch.undo()
    with pytest.raises(DataError, match="format 99; this version reads 1"):
        load_index(tmp_path / "i.safetensors")


def test_nothing_is_left_where_writing_fails(folder, tmp_path, monkeypatch):
    index = load_index(folder / "i.safetensors")
    (tmp_path / "i.safetensors").write_bytes(b"old")

    def full(*_):
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(SaveError, match="No space left on device"):
        index.save(tmp_path / "i.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["i.safetensors"]
    assert (tmp_path / "i.safetensors").read_bytes() == b"old"


def test_a_component_that_is_not_registered_cannot_be_saved(folder, tmp_path):
    class Mine(Refiner):
        def refine(self, descriptors, graph, probabilities, given, shares):
            return Refined(probabilities)

    index = load_index(folder / "i.safetensors")
    mine = replace(index, propagator=replace(index.propagator, refiner=Mine()))
    with pytest.raises(registry.RegistryError, match="register its class among refiners"):
        mine.save(tmp_path / "i.safetensors")


def test_what_is_not_registered_here_is_named(folder, tmp_path):
    arrays, about = _index_file.read(folder / "i.safetensors")
    about["parts"]["affinity"]["name"] = "mine"
    _index_file.write(tmp_path / "i.safetensors", arrays, about)
    with pytest.raises(registry.RegistryError, match=r"no affinities component 'mine'.*--plugin"):
        load_index(tmp_path / "i.safetensors")


def test_the_memory_of_an_index_is_counted(folder):
    need = estimate_memory(10_000, 100, 10, Propagator.default().solver)
    kept = need.with_index(10_000, 100, 10)
    plain, indexed = (choose_chunks(m, 10_000, 50, 1e9) for m in (need, kept))
    assert indexed.peak >= plain.peak
    assert kept.held == 4e6 + 8e5
    with pytest.raises(Exception, match=r"leave the index out \(--save-index\)"):
        choose_chunks(kept, 10_000, 5000, 3e8)
    job = prepare(Options(
        folder / "x.npy", folder / "y.csv", folder / "o.csv", save_index=folder / "j.safetensors",
        device="cpu", memory="1GB",
    ))  # fmt: skip
    assert job.chunks.peak < 1e9


def test_metadata_is_json_that_names_components(folder):
    with safetensors.safe_open(folder / "i.safetensors", framework="numpy") as file:
        about = json.loads(file.metadata()["dlp_index"])
    assert about["parts"]["refiner"] == {"name": "discriminant", "params": {"steps": 8}}
    assert about["classes"] == CLASSES
    assert about["format"] == 1


def test_no_setting_of_an_index_escapes_its_range(folder, tmp_path):
    arrays, about = _index_file.read(folder / "i.safetensors")
    about["parts"]["affinity"]["params"]["gamma"] = -1
    _index_file.write(tmp_path / "i.safetensors", arrays, about)
    with pytest.raises((DataError, RecipeError, ValueError), match="gamma"):
        load_index(tmp_path / "i.safetensors")


def test_weights_of_new_points_need_their_neighbors_lists_alone() -> None:
    rows, seen = np.random.default_rng(0).standard_normal((200, 5)), []
    labels = np.full(200, -1)
    labels[:4] = [0, 1, 0, 1]
    index = FittedPropagation.of(Propagator.default(k=4), rows, labels, 2).index

    class Watched(type(index.propagator.affinity)):
        def weights(self, neighbors):
            seen.append(neighbors.num_nodes)
            return super().weights(neighbors)

    watched = replace(index, propagator=replace(index.propagator, affinity=Watched()))
    new = np.random.default_rng(1).standard_normal((3, 5))
    np.testing.assert_array_equal(watched.predict(new)[0], index.predict(new)[0])
    assert seen[0] <= 3 * 4 + 1 + 3
