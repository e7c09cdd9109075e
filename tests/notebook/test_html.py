"""What notebooks show: short, escaped tables with the numbers of the result."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import torch

from dlp_plugins import propagate
from dlp_plugins.bench.table import RowResult, Table
from dlp_plugins.embeddings.audit import Audit
from dlp_plugins.notebook.html import MOST_ROWS, table
from dlp_plugins.propagation.comparison import Comparison, Method, Row
from dlp_plugins.propagation.multi_label import MultiLabels
from dlp_plugins.propagation.propagator import Propagator
from dlp_plugins.sklearn import GraphLabelPropagation
from dlp_plugins.training.summary import Summary

TRUTH = np.repeat([0, 1], 20)
X = 4 * np.eye(4)[TRUTH] + np.random.default_rng(0).normal(size=(40, 4))
Y = np.where(np.arange(40) % 4 == 0, TRUTH, -1)
SHORT = 3000  # characters


class Reader(HTMLParser):
    """Texts of cells and paragraphs; every tag must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def texts(result: object) -> list[str]:
    html = result._repr_html_()  # type: ignore[attr-defined]
    assert len(html) < SHORT
    return Reader(html).texts


def test_names_are_escaped_and_long_tables_cut() -> None:
    evil = "<script>alert('x')</script>"
    html = table(evil, [(evil, evil)] * 50, (evil, "b"), evil)
    assert "<script" not in html
    found = Reader(html).texts
    assert found.count(evil) == 3 + 2 * MOST_ROWS
    assert "and 30 more" in found
    assert len(table("", [("x" * 10_000,)])) < SHORT


def test_pseudo_labels() -> None:
    found = propagate(X, Y, k=5)
    shown = texts(found)
    assert "Labels of 40 points, 2 classes" in shown
    assert shown[shown.index("points per class") + 1] == "0: 20, 1: 20"
    assert shown[shown.index("solver") + 1] == found.health.convergence.describe()
    printed = repr(found)
    assert printed.startswith("<PseudoLabels: 40 points, 40 of them with a label, 2 classes; ")
    assert "\n" not in printed
    many = propagate(np.eye(30), np.arange(30), k=3)
    assert "from 1 to 1, median 1" in texts(many)


def test_several_labels() -> None:
    labels = torch.tensor([[True, True], [True, False], [False, False]])
    found = MultiLabels(labels, labels.float(), torch.ones(2), labels.any(dim=1))
    shown = texts(found)
    assert shown[shown.index("labels per point") + 1] == "1.00, at most 2"
    assert shown[shown.index("points no label reaches") + 1] == "1"


def test_the_summary_of_a_run_is_still_a_dictionary() -> None:
    summary = Summary(
        test_error=12.345, seed=3, epochs={"supervised": 2, "propagation": 1}, seconds=4.0,
        residual=1.5e-5, labels_may_change=False, num_labeled=5000,
    )  # fmt: skip
    assert json.loads(json.dumps(summary)) == summary == dict(summary)
    shown = texts(summary)
    assert shown[0] == "Run with seed 3: 4 s"
    for name, value in {
        "test error": "12.35 %", "epochs": "supervised 2, propagation 1", "residual": "1.5e-05",
        "labels may change": "False", "num labeled": "5,000",
    }.items():  # fmt: skip
        assert shown[shown.index(name) + 1] == value


def test_an_audit_and_that_of_the_estimator() -> None:
    names = np.array(["a", "<b>"])
    labels = np.where(Y < 0, "", names[Y.clip(0)])
    labels[4] = "<b>"
    model = GraphLabelPropagation(n_neighbors=5).fit(X, labels)
    shown = texts(model.audit())
    assert shown[0] == "1 of 10 labels are likely wrong"
    at = shown.index("4")
    assert shown[at : at + 3] == ["4", "<b>", "a"]
    doubt = np.array([0.2, np.nan, 0.9])
    audit = Audit(
        np.array([5, 6, 7]), np.array([0, 1, 1]), np.array([0, -1, 0]), doubt,
        np.full((3, 3), -1), 0.25,
    )  # fmt: skip
    assert texts(audit)[5:] == [
        "7",
        "1",
        "0",
        "0.90",
        "Of all labels an estimated 25.0% are wrong.",
    ]
    many = Audit(*(np.arange(30) for _ in range(3)), np.full(30, 0.8), np.full((30, 3), -1), 0.5)
    assert "and 20 more. Of all labels an estimated 50.0% are wrong." in texts(many)


def test_a_comparison() -> None:
    chosen = Method("default", Propagator.default(k=5))
    rows = [Row("default", 0.8, 0.01, 0.0, 0.0), Row("other", 0.81, 0.01, 0.01, 0.02)]
    shown = texts(Comparison(rows, chosen, 40, 2))
    assert "80.0 ± 1.0" in shown
    assert "The default is kept: other is not clearly better (1.0 ± 2.0)." in shown


def test_the_table_of_a_bench() -> None:
    rows = Table(
        [
            RowResult("<a>", None, {"test_error": [10.0, 12.0]}),
            RowResult("b", None, {}, ["seed 0: <no data>"]),
        ]
    )
    shown = texts(rows)
    assert shown[:4] == ["2 runs", "row", "runs", "error"]
    assert shown[4:7] == ["<a>", "2", "11.00 ± 1.41"]
    assert shown[-1] == "Failed: b, seed 0: <no data>"
    assert isinstance(rows, list)
