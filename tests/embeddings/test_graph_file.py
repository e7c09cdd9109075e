"""A neighbour graph as a file: the same labels as a search in the process, from any library."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from dlp_cli.app import app
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors, kneighbors_graph
from typer.testing import CliRunner

from dlp_plugins.embeddings.defaults import propagation_recipe
from dlp_plugins.embeddings.graph_file import build_graph_file, check_graph_file
from dlp_plugins.embeddings.run import propagate_file
from dlp_plugins.errors import DataError, ParameterError, UsageError
from dlp_plugins.graphs._list_file import read_lists, write_lists
from dlp_plugins.graphs.file import FileGraph, MatrixGraph
from dlp_plugins.sklearn import GraphLabelPropagation

K, N = 7, 300
PLAIN = ("transform=none", "graph.k=7")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with x.npy, unit rows with a duplicate among them, and labels.csv, 20 known."""
    folder = tmp_path_factory.mktemp("digits")
    x, y = load_digits(return_X_y=True)
    x, y = x[:N].astype(np.float32), y[:N]
    x[50] = x[3]
    np.save(folder / "x.npy", x / np.linalg.norm(x, axis=1, keepdims=True))
    rows = [f"{i},{y[i]}" for i in range(20)]
    (folder / "labels.csv").write_text("\n".join(["index,label", *rows]) + "\n")
    return folder


def labels(folder: Path, out: Path, *settings: str) -> list[str]:
    propagate_file(
        folder / "x.npy", folder / "labels.csv", out, settings=settings, calibrated=False
    )
    lines = out.read_text().splitlines()
    column = lines[0].split(",").index("label")
    return [line.split(",")[column] for line in lines[1:]]


def savez(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


def lists_of(library: str, folder: Path, path: Path) -> tuple[str, str]:
    """The lists of another library as a file, and what its values are."""
    x = np.load(folder / "x.npy")
    if library == "kneighbors_graph, cosine":
        found = kneighbors_graph(x, K, mode="distance", metric="cosine")
        scipy.sparse.save_npz(path, found)
        return str(path), "cosine_distance"
    if library == "kneighbors_graph, euclidean":
        scipy.sparse.save_npz(path, kneighbors_graph(x, K, mode="distance"))
        return str(path), "distance"
    near = NearestNeighbors(n_neighbors=K + 1).fit(x)  # each point among its own, as hnswlib
    distances, indices = near.kneighbors(x)
    if library == "lists, euclidean":
        return savez(path, indices=indices, distances=distances), "distance"
    return savez(path, indices=indices, similarities=1 - distances**2 / 2), "similarity"


@pytest.mark.parametrize(
    "library",
    ["kneighbors_graph, cosine", "kneighbors_graph, euclidean", "lists, euclidean", "lists"],
)
def test_lists_of_other_libraries_give_the_labels_of_a_search(
    library: str, digits: Path, tmp_path: Path
) -> None:
    file, holds = lists_of(library, digits, tmp_path / "g.npz")
    own = labels(digits, tmp_path / "own.csv", *PLAIN)
    found = labels(
        digits, tmp_path / "t.csv", *PLAIN, "graph=file", f"graph.path={file}",
        f"graph.holds={holds}", "graph.k=7",
    )  # fmt: skip
    # Points 3 and 50 are one for the search, and two that fill each other's lists here.
    assert np.mean([a == b for a, b in zip(own, found, strict=True)]) > 0.98


def test_a_graph_that_was_built_gives_the_labels_of_a_search(digits: Path, tmp_path: Path) -> None:
    x = np.delete(np.load(digits / "x.npy"), 50, axis=0)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "labels.csv").write_text((digits / "labels.csv").read_text())
    facts = build_graph_file(tmp_path / "x.npy", tmp_path / "g.npz")
    assert (facts.points, facts.neighbors) == (N - 1, (10, 10.0, 10))
    assert facts.settings == {"transform": "auto", "graph": "exact", "k": 10}
    own = labels(tmp_path, tmp_path / "own.csv")
    settings = ("graph=file", f"graph.path={tmp_path / 'g.npz'}")
    assert labels(tmp_path, tmp_path / "t.csv", *settings) == own
    found = check_graph_file(tmp_path / "g.npz", tmp_path / "x.npy")
    assert (found.points, found.recall) == (N - 1, 1.0)
    assert found.error < 1e-5


def test_a_file_gives_the_nearest_k_and_never_the_point_itself(tmp_path: Path) -> None:
    w = scipy.sparse.csr_matrix(
        np.array([[1, 0.2, 0.9, 0], [0, 1, 0, 0], [0.9, 0.1, 1, 0.5], [0, 0, 0.5, 1]])
    )
    scipy.sparse.save_npz(tmp_path / "w.npz", w)
    found = FileGraph(str(tmp_path / "w.npz"), k=2).neighbors(torch.eye(4))
    assert found.indices.tolist() == [[2, 1], [-1, -1], [0, 3], [2, -1]]
    assert found.similarities[2].tolist() == pytest.approx([0.9, 0.5])


def test_the_estimator_takes_a_matrix(digits: Path) -> None:
    x = np.load(digits / "x.npy")
    y = np.where(np.arange(N) < 20, load_digits().target[:N], -1)
    settings = {"transformation": "none", "refiner": "none"}
    w = kneighbors_graph(x, K, mode="distance", metric="cosine")
    graph = MatrixGraph(w, "cosine_distance")
    found = GraphLabelPropagation(graph=graph, **settings).fit(x, y).transduction_
    own = GraphLabelPropagation(n_neighbors=K, **settings).fit(x, y).transduction_
    assert (found == own).mean() > 0.98
    with pytest.raises(DataError, match="neighbours of 300 points; there are 299"):
        GraphLabelPropagation(graph=graph).fit(x[1:], y[1:])


BAD = {
    "no archive": (lambda p: p.write_bytes(b"PK no"), "cannot be read as .npz"),
    "other arrays": (lambda p: savez(p, x=np.ones(3)), r"found the arrays x; expected"),
    "objects": (lambda p: savez(p, data=np.array([{}])), "cannot be read"),
    "distances": (
        lambda p: savez(p, indices=np.ones((N, 2), int), distances=np.ones((N, 2))),
        "Give graph.holds=cosine_distance",
    ),
    "index": (
        lambda p: savez(p, indices=np.full((N, 2), N), similarities=np.ones((N, 2))),
        "an index is 300",
    ),
    "nan": (
        lambda p: savez(p, indices=np.ones((N, 2), int), similarities=np.full((N, 2), np.nan)),
        "NaN",
    ),
    "points": (
        lambda p: savez(p, indices=np.zeros((9, 2), int), similarities=np.ones((9, 2))),
        "neighbours of 9 points; there are 300 embeddings",
    ),
    "csc": (
        lambda p: scipy.sparse.save_npz(p, scipy.sparse.eye(N, format="csc")), "another layout",
    ),
    "torn": (
        lambda p: savez(
            p, data=np.ones(3), indices=np.zeros(3, int), indptr=np.array([0, 9]),
            shape=np.array([N, N]),
        ),
        "no square sparse matrix",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_bad_files_are_refused_in_a_sentence(fault: str, digits: Path, tmp_path: Path) -> None:
    make, text = BAD[fault]
    path = tmp_path / "g.npz"
    make(path)
    with pytest.raises(DataError, match=text):
        labels(digits, tmp_path / "t.csv", "graph=file", f"graph.path={path}")


def test_an_archive_that_unpacks_to_more_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.npz"
    np.savez_compressed(path, data=np.zeros(10**6))
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10**6})())
    with pytest.raises(DataError, match=r"1\.0 MB of memory may be used"):
        read_lists(path)


def test_as_commands(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def dlp(*words: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, [str(w) for w in words])
        assert done.exit_code == code, done.output
        return done.output if code == 0 else str(done.exception)

    x = digits / "x.npy"
    assert "wrote g.npz" in dlp("graph", "build", x, "--out", "g.npz")
    assert "10 to 10, 10.0 on average" in dlp("graph", "info", "g.npz")
    assert "has 100.0% of the true neighbours" in dlp("graph", "check", "g.npz", x)
    dlp(
        "propagate", x, "--labels", digits / "labels.csv", "--out", "t.csv", "--graph", "g.npz",
        "--no-calibrate",
    )  # fmt: skip
    words = ["propagate", x, "--labels", digits / "labels.csv", "--out", "u.csv"]
    for setting in ("graph=cells", "graph.name=exact", "graph.path=h.npz"):
        said = dlp(*words, "--graph", "g.npz", "--set", setting, code=1)
        assert "--graph g.npz is in place of a search" in said
    scipy.sparse.save_npz("h.npz", kneighbors_graph(np.load(x), 60, mode="distance"))
    from_file = ["--graph", "h.npz", "--set", "graph.holds=distance"]
    said = dlp(*words, "--no-calibrate", *from_file)
    assert "h.npz holds up to 60 neighbours of a point, of which the nearest 50 count" in said
    savez(Path("d.npz"), indices=np.ones((N, 2), int), distances=np.ones((N, 2)))
    savez(Path("e.npz"), indices=np.ones((N, 2), int), distances=np.full((N, 2), 9))
    plug = ["--plugin", "none.py"]
    Path("none.py").touch()
    for file, said in (("d.npz", "Give --holds cosine_distance"), ("e.npz", "--holds similarity,")):
        holds = ["--holds", "distance"] if file == "e.npz" else []
        assert said in dlp("graph", "info", file, *holds, code=1)
        assert said in dlp("graph", "check", file, x, *holds, *plug, code=1)
    shuffled = io.BytesIO()
    np.save(shuffled, np.load(x)[::-1])
    Path("other.npy").write_bytes(shuffled.getvalue())
    assert "their order are others" in dlp("graph", "check", "g.npz", "other.npy", code=1)


def test_a_neighbour_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    indices = np.array([[1, 1, 2], [2, 0, 2], [0, 1, 0]])
    np.savez(path, indices=indices, similarities=np.array([[0.5, 0.9, 0.2]] * 3))
    found, values = read_lists(path).padded()
    assert found.tolist() == [[1, 2], [0, 2], [1, 0]]
    np.testing.assert_allclose(values, [[0.9, 0.2], [0.9, 0.5], [0.9, 0.5]])


def test_the_refiner_sees_the_descriptors_that_the_lists_were_found_among(
    digits: Path, tmp_path: Path
) -> None:
    """A graph of embeddings as they are; by default they are rescaled."""
    path = tmp_path / "g.npz"
    build_graph_file(digits / "x.npy", path, settings=["transform=none"])
    plain = labels(digits, tmp_path / "a.csv", "transform=none")
    from_file = ("graph=file", f"graph.path={path}", "graph.k=10")
    assert labels(digits, tmp_path / "b.csv", *from_file) == plain
    other = labels(digits, tmp_path / "c.csv", *from_file, "transform=rescale")
    assert other != plain


def test_the_parameters_of_the_transform_are_kept(digits: Path, tmp_path: Path) -> None:
    path, settings = tmp_path / "g.npz", ("transform=power", "transform.exponent=0.25")
    facts = build_graph_file(digits / "x.npy", path, settings=settings)
    assert facts.settings == {
        "transform": "power", "transform.exponent": 0.25, "graph": "exact", "k": 10,
    }  # fmt: skip
    assert check_graph_file(path, digits / "x.npy").error < 1e-5
    recipe = propagation_recipe(["graph=file", f"graph.path={path}"], N)
    assert (recipe.transform.name, recipe.transform.params) == ("power", {"exponent": 0.25})
    other = propagation_recipe(["graph=file", f"graph.path={path}", "transform=rescale"], N)
    assert other.transform.name == "rescale"
    lists = read_lists(path)  # as a file of before held them
    write_lists(path, replace(lists, settings={"transform": "power", "graph": "exact", "k": 10}))
    recipe = propagation_recipe(["graph=file", f"graph.path={path}"], N)
    assert recipe.transform.params == {"exponent": 0.5}


def test_as_many_neighbours_as_the_file_holds(digits: Path, tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    from_file = ["graph=file", f"graph.path={path}"]

    def k(*settings: str) -> int:
        return propagation_recipe([*from_file, *settings], N).graph.params["k"]

    build_graph_file(digits / "x.npy", path, settings=["graph.k=60"])
    assert (k(), k("graph.k=12")) == (60, 12)
    x = np.load(digits / "x.npy")
    for most, expected in ((20, 20), (60, 50)):  # another library's: perhaps a whole matrix
        scipy.sparse.save_npz(path, kneighbors_graph(x, most))
        assert k() == expected
        savez(path, indices=np.zeros((N, most), int), similarities=np.ones((N, most)))
        assert k() == expected


def test_settings_that_concern_no_neighbours_are_refused(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--set solver: does not concern.*transform, graph"):
        build_graph_file(digits / "x.npy", tmp_path / "g.npz", settings=["solver.alpha=0.5"])
    build_graph_file(digits / "x.npy", tmp_path / "g.npz")
    with pytest.raises(UsageError, match=r"--set graph: does not concern.*Known here: transform"):
        check_graph_file(tmp_path / "g.npz", digits / "x.npy", settings=["graph.k=5"])


def test_values_that_cannot_be_cosines_are_refused(digits: Path, tmp_path: Path) -> None:
    x = 30 * np.load(digits / "x.npy")  # distances between rows that are not of unit length
    scipy.sparse.save_npz(tmp_path / "g.npz", kneighbors_graph(x, K, mode="distance"))
    for holds in ("similarity", "distance", "cosine_distance"):
        with pytest.raises(DataError, match=f"are no {holds} of rows of unit length"):
            read_lists(tmp_path / "g.npz", holds)


def test_a_matrix_is_sparse_and_what_it_holds_is_known() -> None:
    with pytest.raises(ParameterError, match="matrix must be sparse"):
        MatrixGraph(np.eye(3))
    with pytest.raises(ParameterError, match="holds must be one of"):
        MatrixGraph(scipy.sparse.eye(3).tocsr(), holds="cosine")
