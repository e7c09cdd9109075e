"""Ids of points: read from every format, matched with labels, refused where they are ambiguous."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.embeddings.ids import Ids, read_ids
from dlp_plugins.embeddings.labels import read_labels
from dlp_plugins.errors import DataError, LabelError

NAMES = ["a.jpg", "b, c.jpg", "007"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ids.txt").write_text("a.jpg\nb, c.jpg\n007\n")
    (tmp_path / "one.csv").write_text('a.jpg\n"b, c.jpg"\n007\n')
    (tmp_path / "ids.csv").write_text('x,id\n1,a.jpg\n2,"b, c.jpg"\n3,007\n')
    np.save(tmp_path / "ids.npy", np.array(NAMES))
    np.savez(tmp_path / "ids.npz", id=np.array(NAMES), other=np.arange(5))
    pq.write_table(pa.table({"id": NAMES, "other": [1, 2, 3]}), tmp_path / "ids.parquet")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["ids.txt", "one.csv", "ids.csv", "ids.npy", "ids.npz", "ids.parquet"]
)
def test_every_format(folder, name):
    assert read_ids(folder / name, 3).values == NAMES


def test_whole_numbers_stay_numbers(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([5, 2**63], np.uint64))
    assert read_ids(tmp_path / "ids.npy", 2).values == [5, 2**63]


def test_embeddings_bring_their_own(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.eye(3), id=np.array(NAMES))
    assert open_embeddings(tmp_path / "x.npz").ids.values == NAMES
    pq.write_table(pa.table({"v": np.eye(3).tolist(), "id": NAMES}), tmp_path / "x.parquet")
    assert open_embeddings(tmp_path / "x.parquet").ids.values == NAMES
    np.save(tmp_path / "x.npy", np.eye(3))
    assert open_embeddings(tmp_path / "x.npy").ids is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", "there are 3 points but 2 ids"),
        ("a\nb\na\n", "id 'a' occurs in rows 0 and 2"),
        ("a\n\nb\n", "the id of row 1 .* is blank"),
    ],
)
def test_ids_that_are_refused(tmp_path, text, message):
    (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_ids(tmp_path / "ids.txt", 3)


def test_ids_of_the_wrong_kind(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([0.5, 1.5]))
    with pytest.raises(DataError, match=r"must be text or whole numbers; found 0\.5"):
        read_ids(tmp_path / "ids.npy", 2)
    (tmp_path / "ids.csv").write_text("name,x\na,1\n")
    with pytest.raises(DataError, match="call the one of ids 'id'"):
        read_ids(tmp_path / "ids.csv", 1)


@pytest.mark.parametrize("name", ["y.csv", "y.parquet"])
def test_labels_are_matched_by_id_whatever_their_order(tmp_path, name):
    if name == "y.csv":
        (tmp_path / name).write_text("label,id\ndog,007\n,a.jpg\ncat,a.jpg\n")
        expected = [-1, -1, 1]
        with pytest.raises(LabelError, match="line 4: point 0 has two labels, '' and 'cat'"):
            read_labels(tmp_path / name, 3, ids=Ids(NAMES))
        (tmp_path / name).write_text("label,id\ndog,007\ncat,a.jpg\n")
    else:
        pq.write_table(pa.table({"id": ["007", "a.jpg"], "label": ["dog", "cat"]}), tmp_path / name)
    expected = [0, -1, 1]
    labels = read_labels(tmp_path / name, 3, ids=Ids(NAMES))
    assert labels.labels.tolist() == expected
    assert labels.classes == ["cat", "dog"]
    assert labels.ids.values == NAMES


def test_numbers_in_one_file_match_text_in_the_other(tmp_path):
    (tmp_path / "y.csv").write_text("id,label\n20,cat\n")
    assert read_labels(tmp_path / "y.csv", 2, ids=Ids([10, 20])).labels.tolist() == [-1, 0]


def test_an_unknown_id_is_an_error_with_its_line(tmp_path):
    (tmp_path / "y.csv").write_text("id,label\na.jpg,cat\nz.jpg,dog\n")
    with pytest.raises(LabelError, match=r"line 3: there is no point with id 'z\.jpg'"):
        read_labels(tmp_path / "y.csv", 3, ids=Ids(NAMES))


def test_ids_of_the_label_file_serve_where_the_embeddings_have_none(tmp_path):
    (tmp_path / "y.csv").write_text("id,label\na,cat\nb,\nc,dog\n")
    labels = read_labels(tmp_path / "y.csv", 3)
    assert labels.ids.values == ["a", "b", "c"]
    assert labels.labels.tolist() == [0, -1, 1]
    with pytest.raises(LabelError, match=r"for 4 points\. .*give them with --ids"):
        read_labels(tmp_path / "y.csv", 4)
