"""`dlp suggest` from files: the table, ids, labels, copies, and what is refused."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from dlp_cli.app import app
from typer.testing import CliRunner

from dlp_plugins.embeddings.suggest import build_selector, suggest_file
from dlp_plugins.errors import LabelError, RegistryError, UsageError
from dlp_plugins.selectors.typiclust import TypiClust

pytestmark = pytest.mark.usefixtures("one_thread")
SIZES = (30, 20, 12)


@pytest.fixture
def x(tmp_path):
    """Three clusters in a file."""
    rng = np.random.default_rng(0)
    rows = 3 * np.eye(3, 6).repeat(SIZES, axis=0) + rng.normal(size=(62, 6)) / 2
    np.save(tmp_path / "x.npy", rows)
    return rows


def cluster(points: list[int]) -> list[int]:
    return np.repeat([0, 1, 2], SIZES)[points].tolist()


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_points_best_first_from_no_label_at_all(x, tmp_path):
    out = tmp_path / "t.csv"
    done = CliRunner().invoke(
        app, ["suggest", str(tmp_path / "x.npy"), "--count", "3", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "3 of 62 points, 0 labelled before" in done.output
    points = [int(row["index"]) for row in rows_of(out)]
    assert rows_of(out)[0].keys() == {"index"}
    assert sorted(cluster(points)) == [0, 1, 2]


@pytest.mark.parametrize("selector", ["coverage", "margin", "random", "typiclust", "v_opt"])
def test_points_with_a_label_are_not_chosen_again_and_ids_are_written(x, tmp_path, selector):
    (tmp_path / "ids.txt").write_text("\n".join(f"p{i}" for i in range(62)))
    (tmp_path / "y.csv").write_text("id,label\np3,cat\np4,cat\np35,dog\n")
    found = suggest_file(
        tmp_path / "x.npy", tmp_path / "t.csv", count=59, selector=selector,
        labels=tmp_path / "y.csv", ids=tmp_path / "ids.txt",
    ).tolist()  # fmt: skip
    assert sorted(found) == [i for i in range(62) if i not in (3, 4, 35)]
    assert rows_of(tmp_path / "t.csv") == [{"index": str(i), "id": f"p{i}"} for i in found]


def test_of_copies_the_first_is_chosen_and_none_if_one_has_a_label(x, tmp_path):
    np.save(tmp_path / "twice.npy", np.concatenate([x, x]))
    labels = np.full(124, -1)
    labels[62 + 5] = 0
    np.save(tmp_path / "y.npy", labels)
    files = tmp_path / "twice.npy", tmp_path / "t.parquet"
    found = suggest_file(*files, count=61, labels=tmp_path / "y.npy")
    assert sorted(found.tolist()) == [i for i in range(62) if i != 5]
    with pytest.raises(LabelError, match="62 points are asked for, but 61 have no label, points"):
        suggest_file(*files, count=62, labels=tmp_path / "y.npy", overwrite=True)


def test_margin_without_a_label_is_refused(x, tmp_path):
    with pytest.raises(LabelError, match="needs some labels to start from"):
        suggest_file(tmp_path / "x.npy", tmp_path / "t.csv", count=1, selector="margin")


def test_a_selector_and_its_parameters_by_settings():
    assert build_selector(None, ["selector=typiclust", "selector.seed=3"]) == TypiClust(seed=3)
    assert build_selector("typiclust", ["selector.seed=4"]) == TypiClust(seed=4)
    with pytest.raises(UsageError, match="--selector random and --set selector=margin name two"):
        build_selector("random", ["selector=margin"])
    assert build_selector("typiclust", ["selector=typiclust"]) == TypiClust()
    with pytest.raises(UsageError, match=r"has no such parameter\. Did you mean 'seed'"):
        build_selector("random", ["selector.sed=1"])
    with pytest.raises(UsageError, match="seed: found 'x'"):
        build_selector("random", ["selector.seed=x"])
    with pytest.raises(RegistryError, match="There is no selectors component 'rand'"):
        build_selector("rand")


def test_settings_of_the_graph_are_taken(x, tmp_path):
    with pytest.raises(UsageError, match="unknown here"):
        suggest_file(tmp_path / "x.npy", tmp_path / "t.csv", count=1, settings=["dataset.size=3"])
    settings = ["graph.k=5", "selector=coverage", "selector.alpha=0.5"]
    found = suggest_file(tmp_path / "x.npy", tmp_path / "t.csv", count=3, settings=settings)
    assert sorted(cluster(found.tolist())) == [0, 1, 2]
    assert found.dtype == torch.int64
