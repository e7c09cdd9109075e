"""Files of embeddings and labels: every format gives the same, every fault a sentence."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from dlp_plugins.embeddings import features
from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.embeddings.labels import read_labels
from dlp_plugins.errors import DataError, FeatureError, LabelError, UsageError
from dlp_plugins.units import format_bytes, format_seconds, parse_bytes, parse_count

N, D = 50, 4


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(features, "BLOCK_ROWS", 16)


@pytest.fixture
def x():
    """[N, D] float32, with a zero row."""
    x = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
    x[7] = 0
    return x


def save(path, x):
    """Write x in the format of the file's name."""
    kind = path.name
    if kind.endswith(".npy"):
        np.save(path, x)
    elif kind.endswith(".npz"):
        np.savez(path, vectors=x, labels=np.arange(len(x)))
    elif kind == "columns.parquet":
        pq.write_table(pa.table({f"f{i}": column for i, column in enumerate(x.T)}), path)
    elif kind == "list.parquet":
        table = {"id": [f"p{i}" for i in range(len(x))], "vector": list(x)}
        pq.write_table(pa.table(table), path)
    elif kind == "fixed.parquet":
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
        pq.write_table(pa.table({"vector": vectors}), path)
    else:
        save_file({"x": torch.from_numpy(x), "bias": torch.zeros(3)}, path)
    return path


KINDS = [
    "x.npy", "x.npz", "columns.parquet", "list.parquet", "fixed.parquet", "x.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_unit_rows(tmp_path, x, kind):
    features = open_embeddings(save(tmp_path / kind, x))
    assert (features.points, features.dim) == (N, D)
    reported = []
    unit = features.load(reported.append)
    norm = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(unit, x / np.where(norm, norm, 1), atol=1e-6)
    assert unit.dtype == torch.float32
    assert reported[-1] == N
    assert len(reported) > 1


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_other_real_types(tmp_path, dtype):
    x = np.arange(1, 13).reshape(3, 4).astype(dtype)
    unit = open_embeddings(save(tmp_path / "x.npy", x)).load()
    np.testing.assert_allclose(unit, x / np.linalg.norm(x.astype(float), axis=1)[:, None], 1e-6)


def test_norms_beyond_float32(tmp_path):
    x = np.array([[3e30, 4e30], [3e-30, 4e-30]])
    unit = open_embeddings(save(tmp_path / "x.npy", x)).load()
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0.6, 0.8]], rtol=1e-6)


def test_bfloat16(tmp_path):
    save_file({"x": torch.eye(3, dtype=torch.bfloat16)}, tmp_path / "x.safetensors")
    assert open_embeddings(tmp_path / "x.safetensors").load().tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity_name_the_first_row(tmp_path, x, kind, bad):
    x[[20, 45], 1] = bad
    features = open_embeddings(save(tmp_path / kind, x))
    with pytest.raises(FeatureError, match=r"2 of 50 rows hold NaN or infinity.*row 20 "):
        features.load()


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_file(tmp_path, x, kind):
    path = save(tmp_path / kind, x)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=f"{kind}: cannot be read as .*Is it whole"):
        open_embeddings(path).load()


@pytest.mark.parametrize("kind", KINDS)
def test_empty_file(tmp_path, kind):
    (tmp_path / kind).touch()
    with pytest.raises(DataError, match="the file is empty"):
        open_embeddings(tmp_path / kind)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), "must be"),
        (np.zeros((0, 3)), "0 points of 3 numbers"),
        (np.zeros((3, 0)), "3 points of 0 numbers"),
        (np.zeros((1, 3)), "two points of one number"),
        (np.zeros((2, 2), complex), "real numbers"),
        (np.array([["a", "b"]] * 2), "real numbers"),
    ],
)
def test_arrays_that_are_not_features(tmp_path, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(FeatureError, match=message):
        open_embeddings(tmp_path / "x.npy")


def test_files_that_hold_something_else(tmp_path, x):
    with pytest.raises(DataError, match="no such file"):
        open_embeddings(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"read from \.npy, \.npz"):
        open_embeddings(tmp_path / "x.txt")
    np.savez(tmp_path / "two.npz", a=x, b=x)
    with pytest.raises(DataError, match=r"2 arrays of 2 dimensions.*a \[50, 4\], b.*--key"):
        open_embeddings(tmp_path / "two.npz")
    pq.write_table(pa.table({"f0": [1.0, 2.0], "name": ["a", "b"]}), tmp_path / "x.parquet")
    with pytest.raises(FeatureError, match="found also name"):
        open_embeddings(tmp_path / "x.parquet")
    pq.write_table(pa.table({"v": [[1.0, 2.0], [1.0]]}), tmp_path / "ragged.parquet")
    with pytest.raises(FeatureError, match="row 1 of column 'v' holds 1 numbers"):
        open_embeddings(tmp_path / "ragged.parquet").load()
    pq.write_table(pa.table({"v": [[1.0, 2.0], None]}), tmp_path / "empty.parquet")
    with pytest.raises(FeatureError, match="row 1 of column 'v' is empty"):
        open_embeddings(tmp_path / "empty.parquet").load()
    pq.write_table(pa.table({"v": [[1.0, 2.0], [1.0, None]]}), tmp_path / "cell.parquet")
    with pytest.raises(FeatureError, match="1 of 2 rows hold NaN or infinity"):
        open_embeddings(tmp_path / "cell.parquet").load()


def test_one_of_several_arrays_by_its_key(tmp_path, x):
    np.savez(tmp_path / "two.npz", a=x, b=2 * x[:9, :3])
    save_file({"a": torch.eye(3), "b": torch.ones(2, 5)}, tmp_path / "two.safetensors")
    lists = {"a": list(x), "b": list(x[:, :2])}
    pq.write_table(pa.table(lists), tmp_path / "two.parquet")
    found = {
        name: open_embeddings(tmp_path / name, "b").load().shape
        for name in ("two.npz", "two.safetensors", "two.parquet")
    }
    assert list(found.values()) == [(9, 3), (2, 5), (N, 2)]
    for name in found:
        with pytest.raises(DataError, match=r"'c'.* a\b"):
            open_embeddings(tmp_path / name, "c")
        with pytest.raises(DataError, match="--key"):
            open_embeddings(tmp_path / name)
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="holds one array, without a name"):
        open_embeddings(tmp_path / "x.npy", "b")


def test_columns_that_are_no_numbers_of_an_embedding(tmp_path, x):
    """An integer id, a position, a label: they were taken for features."""
    columns = {f"f{i}": column for i, column in enumerate(x.T)}
    more = {"id": np.arange(N) * 7, "index": np.arange(N), "label": np.arange(N) % 3}
    pq.write_table(pa.table({**more, **columns}), tmp_path / "x.parquet")
    file = open_embeddings(tmp_path / "x.parquet")
    assert file.dim == D
    assert file.ids.values == (np.arange(N) * 7).tolist()
    expected = open_embeddings(save(tmp_path / "x.npy", x)).load()
    assert torch.equal(file.load(), expected)


# -- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "classes", "index"),
    [
        ("3\n-1\n\n5\n3\n", [3, 5], [0, -1, -1, 1, 0]),
        ("label\n3\n-1\n\n5\n3\n", [3, 5], [0, -1, -1, 1, 0]),
        ("3.0\n\n\n5.0\n3.0\n", [3, 5], [0, -1, -1, 1, 0]),  # as pandas writes integers with gaps
        ("cat\n\n-1\ndog\n cat \n", ["cat", "dog"], [0, -1, -1, 1, 0]),
        ('label\n"cat, tabby"\n\n\ndog\n\n', ["cat, tabby", "dog"], [0, -1, -1, 1, -1]),
        ("index,label\n4,cat\n1,dog\n0,\n", ["cat", "dog"], [-1, 1, -1, -1, 0]),
        ("4,cat\n1,dog\n\n", ["cat", "dog"], [-1, 1, -1, -1, 0]),
        ("file,label\na,1\nb,\nc,0\nd,\ne,1\n", [0, 1], [1, -1, 0, -1, 1]),
        ("\ufefflabel\n1\n\n\n\n0\n", [0, 1], [1, -1, -1, -1, 0]),
        ("label\r\n1\r\n\r\n\r\n\r\n0\r\n", [0, 1], [1, -1, -1, -1, 0]),
    ],
)
def test_csv_labels(tmp_path, text, classes, index):
    path = tmp_path / "y.csv"
    path.write_bytes(text.encode())
    labels = read_labels(path, 5)
    assert labels.classes == classes
    assert labels.labels.tolist() == index


BIG = [9007199254740993, 9007199254740992, 2**63, 2**64 - 1]  # beyond float64, int64


def write_labels(path, values):
    """Values, None for no label, in the format of the file's name."""
    if path.suffix == ".csv":
        path.write_text("label\n" + "\n".join("" if v is None else str(v) for v in values) + "\n")
    elif path.suffix == ".npy":
        np.save(path, np.array(values, dtype=np.uint64 if values[0] is not None else object))
    else:
        kind = pa.uint64() if isinstance(values[0], int) else None
        pq.write_table(pa.table({"label": pa.array(values, kind)}), path)
    return path


@pytest.mark.parametrize("name", ["y.csv", "y.npy", "y.parquet"])
def test_integers_are_exact_up_to_uint64(tmp_path, name):
    """2^53 + 1 and 2^53 became one class, 2^63 a negative number."""
    labels = read_labels(write_labels(tmp_path / name, BIG), 4)
    assert labels.classes == sorted(BIG)
    assert [labels.classes[i] for i in labels.labels.tolist()] == BIG
    if name != "y.npy":
        gaps = read_labels(write_labels(tmp_path / name, [BIG[0], None, BIG[1], BIG[2]]), 4)
        assert gaps.classes == sorted(BIG[:3])
        assert gaps.labels.tolist()[1] == -1


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["007", "7", "10", "8"], ["007", "10", "7", "8"]),
        (["1_0", "10", "1e1", "+10"], ["+10", "10", "1_0", "1e1"]),
        (["3", "3.0", "4", "5"], ["3", "3.0", "4", "5"]),
        (["3", "3.", "4", "5"], ["3", "3.", "4", "5"]),
        (["1", "2", "3", str(2**64)], ["1", str(2**64), "2", "3"]),
        (["9007199254740993.0", "1.0", "2.0", "3.0"], ["1.0", "2.0", "3.0", "9007199254740993.0"]),
        (["nan", "ciabatta", "bun", "pita"], ["bun", "ciabatta", "nan", "pita"]),
        (["1", "nan", "2", "nan"], [1, 2]),
        (["1.0", "nan", "2.0", "-1.0"], [1, 2]),
        (["10", "9", "8", "7"], [7, 8, 9, 10]),
        (["0", "-1", "2", ""], [0, 2]),
    ],
)
@pytest.mark.parametrize("name", ["y.csv", "y.parquet"])
def test_text_is_a_number_only_if_every_cell_reads_back_the_same(tmp_path, name, cells, classes):
    labels = read_labels(write_labels(tmp_path / name, cells), 4)
    assert labels.classes == classes
    found = [labels.classes[i] if i >= 0 else None for i in labels.labels.tolist()]
    if isinstance(classes[0], str):
        assert found == cells


def test_truth_values_are_classes_0_and_1(tmp_path):
    np.save(tmp_path / "y.npy", np.array([True, False, True]))
    assert read_labels(tmp_path / "y.npy", 3).classes == [0, 1]
    pq.write_table(pa.table({"label": [True, None, False]}), tmp_path / "y.parquet")
    labels = read_labels(tmp_path / "y.parquet", 3)
    assert (labels.classes, labels.labels.tolist()) == ([0, 1], [1, -1, 0])


def test_the_array_called_label_among_several(tmp_path):
    np.savez(tmp_path / "y.npz", label=np.array([0, -1]), other=np.array([5, 6]))
    assert read_labels(tmp_path / "y.npz", 2).classes == [0]
    np.savez(tmp_path / "two.npz", a=np.array([0, -1]), b=np.array([5, 6]))
    with pytest.raises(DataError, match=r"2 arrays of 1 dimension .*call it 'label'"):
        read_labels(tmp_path / "two.npz", 2)


def test_a_parquet_column_of_lists_is_no_label(tmp_path):
    pq.write_table(pa.table({"label": [[1], [2]]}), tmp_path / "y.parquet")
    with pytest.raises(DataError, match="column 'label' must hold numbers or text"):
        read_labels(tmp_path / "y.parquet", 2)


def test_an_index_in_parquet(tmp_path):
    table = pa.table({"index": [3, 0], "label": ["b", "a"]})
    pq.write_table(table, tmp_path / "y.parquet")
    labels = read_labels(tmp_path / "y.parquet", 5)
    assert labels.labels.tolist() == [0, -1, -1, 1, -1]


def test_array_labels(tmp_path):
    expected = [0, -1, 1, -1]

    def read(name):
        labels = read_labels(tmp_path / name, 4)
        assert labels.labels.tolist() == expected
        return labels.classes

    np.save(tmp_path / "y.npy", np.array([2, -1, 7, -1]))
    assert read("y.npy") == [2, 7]
    np.save(tmp_path / "f.npy", np.array([2, np.nan, 7, -1]))
    assert read("f.npy") == [2, 7]
    np.savez(tmp_path / "y.npz", x=np.eye(4), y=np.array(["a", "", "b", "-1"]))
    assert read("y.npz") == ["a", "b"]
    pq.write_table(pa.table({"id": range(4), "label": [2, None, 7, -1]}), tmp_path / "y.parquet")
    assert read("y.parquet") == [2, 7]
    pq.write_table(pa.table({"class": ["a", None, "b", ""]}), tmp_path / "s.parquet")
    assert read("s.parquet") == ["a", "b"]


def test_a_number_of_classes_makes_room_for_those_without_a_label(tmp_path):
    np.save(tmp_path / "y.npy", np.array([2, -1, 0]))
    assert read_labels(tmp_path / "y.npy", 3).classes == [0, 2]
    labels = read_labels(tmp_path / "y.npy", 3, num_classes=5)
    assert labels.classes == [0, 1, 2, 3, 4]
    assert labels.labels.tolist() == [2, -1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\n", "holds 2 labels for 3 points"),
        ("class\n1\n\n2\n", "If the first line, 'class', is a header, call that column 'label'"),
        ("1\n-2\n1\n", "label -2 of point 1 is not among whole numbers from 0"),
        ("1\n0.5\n1\n", "label 0.5 of point 1"),
        ("1\ninf\n1\n", "label inf of point 1"),
        ("\n-1\n\n", "no point is labelled"),
        ("index,label\n3,a\n", "line 2: index 3 is outside 0..2"),
        ("0,a\n1,b\n0,b\n", "line 3: point 0 has two labels, 'a' and 'b'"),
        ("id,name\n0,a\n", "line 1: 'id' is not an index. If it is a header"),
        ("index,label\n1_0,a\n", "line 2: '1_0' is not an index"),
        ("index,label\ninf,a\n", "line 2: 'inf' is not an index"),
        ("0,a\n1\n", "line 2: expected index and label, found '1'"),
        ("a,b,c\n", "has 3 columns; name the one of labels 'label'"),
        ("label\n", "holds 0 labels for 3 points"),
    ],
)
def test_bad_csv_labels(tmp_path, text, message):
    path = tmp_path / "y.csv"
    path.write_text(text)
    with pytest.raises(LabelError, match=message):
        read_labels(path, 3)


def test_labels_outside_the_range_that_is_asked_for(tmp_path):
    np.save(tmp_path / "y.npy", np.array([0, 5, -1]))
    with pytest.raises(LabelError, match=r"label 5 of point 1 is not among 0\.\.4"):
        read_labels(tmp_path / "y.npy", 3, num_classes=5)
    np.save(tmp_path / "s.npy", np.array(["a", "", "b"]))
    with pytest.raises(LabelError, match="numbered classes only"):
        read_labels(tmp_path / "s.npy", 3, num_classes=2)


def test_label_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match="the file is empty"):
        read_labels(tmp_path / "empty.csv", 3)
    (tmp_path / "latin.csv").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"cannot be read as \.csv"):
        read_labels(tmp_path / "latin.csv", 1)
    (tmp_path / "o.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"cannot be read as \.npy"):
        read_labels(tmp_path / "o.npy", 1)
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "two.parquet")
    with pytest.raises(DataError, match="name the column of labels 'label'; it has a, b"):
        read_labels(tmp_path / "two.parquet", 1)


# -- sizes and counts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("4 GiB", 2**32), ("1.5m", 1_500_000), ("512kb", 512_000), ("77", 77)],
)
def test_bytes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(("text", "count"), [("100M", 10**8), ("1.5k", 1500), ("2B", 2 * 10**9)])
def test_counts(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "4 apples", "0", "1e9", "nan"])
def test_what_is_not_a_size(text):
    with pytest.raises(UsageError, match="is not a size such as 4GB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["1" * 400, "2000000000T", "1" * 30])
def test_what_is_beyond_all_machines(text):
    for parse in (parse_count, parse_bytes):
        with pytest.raises(UsageError, match="is too large: at most 1e\\+18") as caught:
            parse(text)
        assert len(str(caught.value)) < 100


def test_readable_sizes_and_times():
    assert format_bytes(4.2e9) == "4.2 GB"
    assert format_bytes(999) == "999 B"
    assert format_seconds(0.25) == "0.25 s"
    assert format_seconds(90) == "90 s"
    assert format_seconds(300) == "5.0 min"
    assert format_seconds(7200) == "2.0 h"
    assert format_seconds(86400 * 10) == "10.0 days"


@pytest.mark.parametrize("index", [0.9, float("inf")])
def test_an_index_that_is_not_whole(tmp_path, index):
    path = tmp_path / "y.parquet"
    pq.write_table(pa.table({"index": [0.0, index], "label": ["a", "b"]}), path)
    with pytest.raises(LabelError, match=f"'{index}' is not an index"):
        read_labels(path, 3)


@pytest.mark.parametrize("name", ["y.npy", "y.npz"])
def test_an_array_of_objects_says_how_to_save_it(tmp_path, name):
    array = np.array(["a", None, "b"], dtype=object)
    (np.save if name.endswith("y") else np.savez)(tmp_path / name, array)
    with pytest.raises(DataError, match=r"holds Python objects.*\.astype\(str\)"):
        read_labels(tmp_path / name, 3)
