"""`propagate_file`, what `dlp propagate` does: ids in and out, the table, what is refused."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlp_plugins.embeddings.options import Options
from dlp_plugins.embeddings.run import prepare, propagate_file
from dlp_plugins.embeddings.table import harmless
from dlp_plugins.errors import DataError, UsageError
from dlp_plugins.recipe.files import RecipeError

NAMES = [f"img/{i}.jpg" for i in range(6)]
X = np.array([[1, 0.1], [1, 0.2], [1, 0.3], [0.1, 1], [0.2, 1], [0.3, 1]])


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "x.npz", embedding=X, id=np.array(NAMES))
    (tmp_path / "y.csv").write_text(f"id,label\n{NAMES[4]},dog\n{NAMES[0]},cat\n")
    return tmp_path


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(folder, out="out.csv", **options):
    options = {"settings": ["graph.k=2"], "device": "cpu", **options}
    embeddings, labels = options.pop("embeddings", "x.npz"), options.pop("labels", "y.csv")
    return propagate_file(folder / embeddings, folder / labels, folder / out, **options)


def test_ids_go_in_and_come_out(folder):
    outcome = run(folder)
    rows = read(folder / "out.csv")
    assert list(rows[0]) == [
        "index", "id", "label", "certainty", "margin", "probability", "reached"
    ]  # fmt: skip
    assert [r["index"] for r in rows] == list("012345")
    assert [r["id"] for r in rows] == NAMES
    assert [r["label"] for r in rows] == ["cat"] * 3 + ["dog"] * 3
    assert outcome.labels.tolist() == [0, 0, 0, 1, 1, 1]
    run(folder, "out.parquet")
    assert pq.read_table(folder / "out.parquet").to_pydict()["id"] == NAMES


def test_ids_from_a_file_of_their_own_go_first(folder):
    (folder / "ids.txt").write_text("\n".join("abcdef") + "\n")
    (folder / "y.csv").write_text("id,label\ne,1\na,0\n")
    run(folder, ids=folder / "ids.txt")
    assert [r["id"] for r in read(folder / "out.csv")] == list("abcdef")


def test_no_column_of_ids_where_there_are_none(folder):
    np.save(folder / "x.npy", X)
    (folder / "y.csv").write_text("0\n\n\n\n1\n\n")
    run(folder, embeddings="x.npy")
    assert list(read(folder / "out.csv")[0]) == [
        "index", "label", "certainty", "margin", "probability", "reached"
    ]  # fmt: skip


def test_large_numbers_come_out_as_they_went_in(folder):
    big = [2**63, 9007199254740993]
    (folder / "y.csv").write_text(f"index,label\n0,{big[0]}\n4,{big[1]}\n")
    pq.write_table(
        pa.table({"v": X.tolist(), "id": pa.array([2**64 - 1 - i for i in range(6)], pa.uint64())}),
        folder / "x.parquet",
    )
    for out in ("out.csv", "out.parquet"):
        run(folder, out, embeddings="x.parquet")
    expected = [big[0]] * 3 + [big[1]] * 3
    assert [int(r["label"]) for r in read(folder / "out.csv")] == expected
    table = pq.read_table(folder / "out.parquet").to_pydict()
    assert table["label"] == expected
    assert table["id"] == [2**64 - 1 - i for i in range(6)]
    assert table["index"] == list(range(6))


def test_a_name_is_no_formula_in_a_spreadsheet(folder):
    (folder / "y.csv").write_text("index,label\n0,=cmd|' /C calc'!A0\n4,@sum\n")
    run(folder, probabilities=True)
    rows = read(folder / "out.csv")
    assert [rows[0]["label"], rows[4]["label"]] == ["'=cmd|' /C calc'!A0", "'@sum"]
    assert "probability_=cmd|' /C calc'!A0" in rows[0]
    run(folder, "out.parquet")
    assert pq.read_table(folder / "out.parquet")["label"][0].as_py() == "=cmd|' /C calc'!A0"
    assert [harmless(t) for t in ("-5", "+1.5", "a=b", "-x", "=5")] == [
        "-5", "+1.5", "a=b", "'-x", "'=5"
    ]  # fmt: skip


def test_everything_is_checked_before_the_embeddings_are_read(folder):
    job = prepare(Options(folder / "x.npz", folder / "y.csv", folder / "out.csv", memory="1GB"))
    assert (job.source.points, job.source.dim, job.given.classes) == (6, 2, ["cat", "dog"])
    assert 0 < job.chunks.peak < job.budget == 1e9
    assert not (folder / "out.csv").exists()
    for options, error in (
        ({"settings": ["training.momentum=0"]}, UsageError),
        ({"settings": ["balancer=none"]}, UsageError),
        ({"settings": ["pseudo_labels.warm_start=true"]}, UsageError),
        ({"settings": ["solver.alpha=2"]}, RecipeError),
        ({"key": "vectors"}, DataError),
        ({"device": "tpu"}, UsageError),
    ):
        with pytest.raises(error):
            run(folder, **options)
    assert sorted(p.name for p in folder.iterdir()) == ["x.npz", "y.csv"]


def test_certainty_is_scaled_as_the_authors_do_where_asked(folder):
    x = np.random.default_rng(0).standard_normal((6, 4))
    np.save(folder / "x.npy", x)
    (folder / "y.csv").write_text("0\n\n\n\n1\n\n")
    scale = "pseudo_labels.certainty_scale=all"
    certainty = [
        run(folder, f"{i}.csv", embeddings="x.npy", settings=["graph.k=4", *more]).certainty
        for i, more in enumerate(([], [scale]))
    ]
    unlabeled = [1, 2, 3, 5]
    assert certainty[0][unlabeled].max() == 1
    assert certainty[1][unlabeled].max() < 1
