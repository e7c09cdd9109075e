"""`dlp audit` and `dlp explain`: what they print, and what they refuse."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from dlp_cli.app import app
from typer.testing import CliRunner

from dlp_plugins.embeddings.explain import explain_file

C, EACH, WRONG = 3, 40, 2


@pytest.fixture
def data(tmp_path):
    """Three blobs, eight labels each; that of row 2 is wrong, and 'd' has a single label."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(C, 16))
    x = np.repeat(centers, EACH, 0) + 0.5 * random.normal(size=(C * EACH, 16))
    np.save(tmp_path / "x.npy", x)
    labels = {j * EACH + i: "abc"[j] for j in range(C) for i in range(8)}
    labels[WRONG], labels[119] = "b", "d"
    lines = [f"{i},{label}" for i, label in labels.items()]
    (tmp_path / "y.csv").write_text("index,label\n" + "\n".join(lines))
    return tmp_path


def dlp(folder, command, *options):
    files = [str(folder / "x.npy"), "--labels", str(folder / "y.csv"), "--device", "cpu"]
    done = CliRunner().invoke(app, [command, *files, *options])
    assert done.exception is None, done.exception
    return done.stdout


def test_audit_writes_a_table_and_a_summary(data):
    out = data / "t.csv"
    printed = dlp(data, "audit", "--out", str(out))
    assert "1 of 25 labels are likely wrong: doubt at least 0." in printed
    assert "1 label is the only one of its class" in printed
    row = next(line for line in printed.splitlines() if line.startswith(f"{WRONG} "))
    assert row.split()[1:3] == ["b", "a"]
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "suggested", "doubt", "against", "note"]
    assert (rows[0]["index"], rows[0]["suggested"]) == (str(WRONG), "a")
    assert (rows[-1]["doubt"], rows[-1]["note"]) == ("", "the only label of its class")


def test_a_precision_that_nothing_reaches(data):
    printed = dlp(data, "audit", "--out", str(data / "t.csv"), "--precision", "1")
    assert "0 of 25 labels are likely wrong. Of all" in printed


def test_explain_shows_shares_and_paths(data):
    printed = dlp(data, "explain", "--point", "20")
    assert "Point 20 (row 20): a" in printed
    assert "Labelled points that make its score of a:" in printed
    assert " - 20" in printed


def test_explain_as_json(data):
    found = json.loads(dlp(data, "explain", "--point", "20", "--json"))
    assert (found["index"], found["label"], found["given"]) == (20, "a", None)
    shares = found["graph"]["shares"]
    assert sum(s["share"] for s in shares) == pytest.approx(1)
    assert shares[0]["path"][0] == shares[0]["index"]
    assert shares[0]["path"][-1] == 20
    assert found["refined"]["nearest_centers"][0]["label"] == "a"


def test_explain_says_why_the_refined_label_is_another(data):
    other = next(i for i in range(C * EACH) if differs(data, i))
    printed = dlp(data, "explain", "--point", str(other))
    assert "The refined label is " in printed
    assert "The nearest class centres:" in printed


def differs(data, point):
    found, _ = explain_file(data / "x.npy", data / "y.csv", point)
    return found.refined_label != found.graph_label
