"""The page of `dlp report` in Chromium, offline: no error in the console, every figure drawn."""

from __future__ import annotations

import pytest
from label_page import Browser, write_digits

from dlp_plugins.embeddings.run import propagate_file
from dlp_plugins.report.run import TableFiles, write_report
from dlp_plugins.training.run import run

pytest.importorskip("selenium")
pytestmark = pytest.mark.browser

DRAWN = """
return [...document.querySelectorAll('.plot svg, .gallery img')].map(e => {
  const box = e.getBoundingClientRect();
  const marks = e.tagName == 'IMG' ? e.naturalWidth : e.querySelectorAll('path, use, image').length;
  return [e.closest('[id]').id, Math.round(box.width), Math.round(box.height), marks];
})"""
REQUESTS = "return performance.getEntriesByType('resource').filter(e => !/^data:/.test(e.name))"


@pytest.fixture(scope="module")
def table_page(tmp_path_factory):
    """Of scikit-learn's digits with 40 labels, four of them wrong."""
    folder = tmp_path_factory.mktemp("digits")
    truth = write_digits(folder)
    wrong = {0: 9, 90: 5, 180: 3, 270: 1}
    labels = "".join(f"{i},{wrong.get(i, truth[i])}\n" for i in range(0, 1797, 45))
    (folder / "y.csv").write_text("index,label\n" + labels)
    propagate_file(folder / "x.npy", folder / "y.csv", folder / "t.csv")
    out = folder / "report.html"
    files = TableFiles(
        folder / "x.npy", images=folder / "digits", labels=folder / "y.csv",
        truth=folder / "truth.csv",
    )  # fmt: skip
    write_report([folder / "t.csv"], out, files=files)
    return out


@pytest.fixture(scope="module")
def run_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    short = {"training.stage_one_epochs": 2, "training.stage_two_epochs": 2}
    for seed in (0, 1):
        run("digits", folder / f"seed{seed}", device="cpu", seed=seed, **short)
    out = folder / "report.html"
    write_report([folder / "seed0", folder / "seed1"], out, device="cpu")
    return out


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("page", ["table_page", "run_page"])
def test_every_figure_is_drawn_within_the_width(page, width, request):
    path = request.getfixturevalue(page)
    browser = Browser(path.as_uri(), width=width)
    try:
        drawn = browser.js(DRAWN)
        names = {name for name, *_ in drawn}
        expected = {"certainty", "confusion", "classes", "reliability", "map", "images-0"}
        if page == "run_page":
            both = ("certainty", "confusion", "classes", "reliability", "map", "pseudo-classes")
            expected = {f"{name}-{i}" for name in both for i in (0, 1)}
            expected |= {"test-error", "loss", "pseudo-label-accuracy", "mean-certainty"}
        assert expected <= names
        for name, wide, high, marks in drawn:
            assert marks > 3, name
            assert 40 < wide <= width, name
            assert high > 40, name
        assert browser.js("return document.documentElement.scrollWidth") == width
        assert browser.js(REQUESTS) == []
        assert browser.problems() == []
    finally:
        browser.close()
