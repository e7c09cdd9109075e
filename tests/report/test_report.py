"""The page of `dlp report`: complete, of one file, escaped; figures only where there are data."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from dlp_cli.app import app
from typer.testing import CliRunner

from dlp_plugins.errors import DataError, MissingDependency, RunFolderError, UsageError
from dlp_plugins.report import page as page_module
from dlp_plugins.report.from_run import read_run
from dlp_plugins.report.from_table import read_table
from dlp_plugins.report.points import Absent
from dlp_plugins.report.run import TableFiles, write_report
from dlp_plugins.report.settings import summary_sheet

pytest.importorskip("matplotlib")
RUN_FIGURES = {
    "test-error", "loss", "pseudo-label-accuracy", "mean-certainty", "certainty-0",
    "pseudo-reliability-0", "pseudo-classes-0", "confusion-0", "classes-0", "reliability-0",
    "map-0", "images-0-0", "images-0-1",
}  # fmt: skip


class Parsed(HTMLParser):
    """Identifiers, addresses, tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value)
            if key in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.addresses.append(value)
            assert not key.startswith("on"), f"{tag} {key}"

    def handle_data(self, data):
        self.text += data


def report(targets, out, **options) -> tuple[Parsed, str]:
    """The page about the targets, checked for what holds of every page."""
    write_report(targets, out, device="cpu", **options)
    text = out.read_text(encoding="utf-8")
    parsed = Parsed(text)
    assert len(text.encode()) < 5_000_000
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert not parsed.tags & {"script", "iframe", "object", "embed", "base", "form"}
    assert all(a.startswith(("#", "data:")) for a in parsed.addresses), parsed.addresses
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert "@import" not in text
    assert "http://" not in text
    inside = [a[1:] for a in parsed.addresses if a.startswith("#")]
    assert set(inside) <= set(parsed.ids)
    assert set(re.findall(r"url\(#(.+?)\)", text)) <= set(parsed.ids)
    return parsed, text


def test_a_run_has_every_figure(finished, tmp_path):
    parsed, text = report([finished], tmp_path / "r.html")
    assert set(parsed.ids) >= RUN_FIGURES
    assert "Deep label propagation on handwritten digits" in parsed.text
    summary = json.loads((finished / "summary.json").read_text())
    assert f"{summary['test_error']:.2f}" in parsed.text
    assert (finished / "recipe.toml").read_text() in parsed.text
    assert "part-environment" in parsed.ids
    assert str(tmp_path) not in text


def test_a_run_of_stage_one_alone_has_no_error_with_label_propagation():
    figures = {"seed": 0, "seconds": 1.0, "supervised_test_error": 30.0, "test_error": 30.0}
    runs = [
        SimpleNamespace(name=str(two), summary={**figures, "epochs": {"propagation": two}})
        for two in (0, 5)
    ]
    both = {row[0]: row[1:] for row in summary_sheet(runs).rows}
    assert both["test error, labels alone, %"] == ["30.00", "30.00"]
    assert both["test error, with label propagation, %"] == ["-", "30.00"]
    assert "test error, with label propagation, %" not in {
        row[0] for row in summary_sheet(runs[:1]).rows
    }


def test_runs_stand_side_by_side(finished, tmp_path):
    other = shutil.copytree(finished, tmp_path / "other")
    text = (other / "recipe.toml").read_text()
    assert "alpha = 0.99" in text
    (other / "recipe.toml").write_text(text.replace("alpha = 0.99", "alpha = 0.9"))
    parsed, _ = report([finished, other], tmp_path / "r.html")
    both = {name.replace("-0", f"-{i}", 1) for name in RUN_FIGURES for i in (0, 1)}
    assert set(parsed.ids) >= both
    assert "solver.alpha0.990.9" in parsed.text  # the row of the recipes' only difference
    assert "graph.k5" not in parsed.text


def test_without_its_data_and_curves_a_run_is_still_reported(finished, tmp_path):
    other = shutil.copytree(finished, tmp_path / "other")
    (other / "metrics.jsonl").unlink()
    record = json.loads((other / "labeled_indices.json").read_text())
    record["data"]["training images"] = "of something else"
    (other / "labeled_indices.json").write_text(json.dumps(record))
    parsed, _ = report([other], tmp_path / "r.html")
    assert "is not the one that the run was trained on" in parsed.text
    assert "no run kept metrics.jsonl" in parsed.text
    assert "certainty-0" in parsed.ids
    assert not {"confusion-0", "test-error", "map-0"} & set(parsed.ids)


def test_a_run_that_needs_a_plugin_names_it_and_is_still_reported(finished, tmp_path):
    other = shutil.copytree(finished, tmp_path / "other")
    text = (other / "recipe.toml").read_text()
    (other / "recipe.toml").write_text(text.replace('name = "digits"', 'name = "ours"'))
    parsed, _ = report([other], tmp_path / "r.html")
    assert "There is no datasets component 'ours'" in parsed.text
    assert "give that file with --plugin" in parsed.text
    assert "certainty-0" in parsed.ids


@pytest.mark.parametrize(
    ("name", "values"),
    [("labels", 10), ("labels", -2), ("index", 10**6), ("certainty", float("nan"))],
)
def test_damaged_pseudo_labels_are_left_out(finished, tmp_path, name, values):
    other = shutil.copytree(finished, tmp_path / "other")
    with np.load(other / "pseudo_labels.npz") as found:
        arrays = dict(found)
    arrays[name][5] = values
    np.savez(other / "pseudo_labels.npz", **arrays)
    reading = read_run(other, "other", "cpu")
    for part in (reading.pseudo, reading.embedded, reading.thumbnail):
        assert isinstance(part, Absent)
        assert "pseudo_labels.npz cannot be read" in part.reason


def test_half_a_character_and_numbers_that_are_none(finished, tmp_path):
    other = shutil.copytree(finished, tmp_path / "other")
    lines = '{"stage": "a\\ud800", "loss_\\ud800": Infinity, "test_error": NaN}\n'
    (other / "metrics.jsonl").write_text(lines)
    (other / "environment.json").write_text('{"packages": {}, "format": 2, "device": "\\ud800"}')
    parsed, _ = report([other], tmp_path / "r.html")
    assert "Test error: no run measured it." in parsed.text


def test_a_bench_folder(bench, tmp_path):
    parsed, text = report([bench], tmp_path / "r.html")
    assert {"bars-test-error", "bars-seconds"} <= set(parsed.ids)
    assert "5.00 ± 1.41" in parsed.text  # mean and deviation of 4 and 6
    assert "seed 1: <i>out of memory</i>" in parsed.text
    assert "<b>" not in text.replace("<b></b>", "")


def test_bars_are_means_with_deviations(bench):
    from matplotlib.figure import Figure

    from dlp_plugins.report.bars import bar_figures
    from dlp_plugins.report.from_bench import read_bench

    axes = Figure().add_subplot()
    bar_figures(read_bench(bench).rows)[0].paint(axes)
    assert [bar.get_width() for bar in axes.patches] == [5.0, 8.0]
    (deviation,) = axes.collections[0].get_segments()
    np.testing.assert_allclose(deviation[:, 0], [5 - 2**0.5, 5 + 2**0.5])


def test_a_table_alone(table, tmp_path):
    parsed, _ = report([table["t"]], tmp_path / "r.html")
    assert "certainty" in parsed.ids
    assert not {"confusion", "reliability", "map", "suspicious"} & set(parsed.ids)
    for option in ("--embeddings", "--images"):
        assert f"with {option}" in parsed.text


def test_a_table_with_its_files(table, tmp_path):
    files = TableFiles(table["x"], images=table["images"], labels=table["y"], truth=table["truth"])
    parsed, text = report([table["t"]], tmp_path / "r.html", files=files)
    assert {"certainty", "confusion", "classes", "reliability", "map", "suspicious"} <= set(
        parsed.ids
    )
    # 60 points without a given label; points 4 and 44 of the six wrong ones have one
    assert "93.3 % of 60" in parsed.text
    assert "wrong 0.30" in parsed.text
    assert "00.png" in parsed.text  # its label was given wrongly: suspicious
    assert "<script>alert(1)</script>" in parsed.text  # as text
    assert "<script" not in text
    assert "$\\frac$ & dog" in parsed.text
    assert text.count("data:image/jpeg;base64,") >= 24


def test_a_probability_goes_before_a_certainty(table, tmp_path):
    header, *rows = table["t"].read_text().splitlines()
    text = "\n".join([f"{header},probability", *(f"{row},0.25" for row in rows)])
    (tmp_path / "p.csv").write_text(text)
    points = read_table(tmp_path / "p.csv").points
    assert points.certainty_name == "probability"
    assert set(points.certainty) == {0.25}


def test_a_table_of_parquet_is_read_as_one_of_csv(table, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.read_csv(table["t"]).to_parquet(tmp_path / "t.parquet")
    a, b = (read_table(p, labels=table["y"]).points for p in (table["t"], tmp_path / "t.parquet"))
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.certainty, b.certainty)
    assert (a.classes, a.names, a.given.sum()) == (b.classes, b.names, 20)


def test_pictures_go_where_the_page_would_be_too_large(table, tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_BYTES", 60_000)
    parsed, text = report(
        [table["t"]], tmp_path / "r.html", files=TableFiles(images=table["images"])
    )
    assert len(text.encode()) <= 60_000
    assert "The images are left out" in parsed.text
    assert "certainty" in set(parsed.ids)


def test_png_files_lie_beside_the_page(table, tmp_path):
    written = write_report([table["t"]], tmp_path / "r.html", png=True)
    assert written == [tmp_path / "r.html", tmp_path / "r_figures" / "certainty.png"]
    assert written[1].read_bytes().startswith(b"\x89PNG")


def test_a_page_is_the_same_again(table, tmp_path):
    for name in ("a.html", "b.html"):
        write_report([table["t"]], tmp_path / name, files=TableFiles(table["x"]))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def refused(error, match, targets, out, **options):
    with pytest.raises(error, match=match):
        write_report(targets, out, **options)
    assert not out.exists()


def test_what_cannot_be_reported_is_refused_in_a_sentence(finished, bench, table, tmp_path):
    out = tmp_path / "r.html"
    empty, unfinished = tmp_path / "empty", shutil.copytree(finished, tmp_path / "unfinished")
    empty.mkdir()
    (unfinished / "summary.json").unlink()
    broken = tmp_path / "broken"
    (broken / "a" / "seed0").mkdir(parents=True)
    (broken / "a" / "seed0" / "recipe.toml").write_text("")
    refused(DataError, "there is no such file or folder", [tmp_path / "none"], out)
    refused(DataError, "neither a run", [empty], out)
    known = json.loads((unfinished / "environment.json").read_text())
    known["plugins"] = [{"path": "/my plug.py", "sha256": "0"}]
    (unfinished / "environment.json").write_text(json.dumps(known))
    command = f"dlp run {unfinished}/recipe.toml --out {unfinished} --resume --plugin '/my plug.py'"
    refused(RunFolderError, re.escape(f"Finish it first: {command}"), [unfinished], out)
    tuned = tmp_path / "tuned"
    (tuned / "_stage_one").mkdir(parents=True)
    (tuned / "study.db").touch()
    refused(DataError, r"is the folder of a `dlp tune`.*tuned/trials\.csv", [tuned], out)
    refused(UsageError, "--key names an array", [table["t"]], out, files=TableFiles(key="x"))
    refused(DataError, "it is unfinished. Give the same", [broken], out)
    refused(UsageError, "same run is given twice", [finished, finished], out)
    refused(UsageError, "One page shows", [finished, bench], out)
    refused(UsageError, "belong to a table", [finished], out, files=TableFiles(table["x"]))
    refused(DataError, "needs rows, a column 'label'", [table["y"]], out)
    refused(UsageError, "written as .html", [finished], tmp_path / "r.pdf")
    (bench / "results.json").write_text("{}")
    refused(DataError, "results.json cannot be read", [bench], out)
    np.save(tmp_path / "short.npy", np.ones((3, 2)))
    files = TableFiles(tmp_path / "short.npy")
    refused(DataError, "holds 3 points, but the table has 80 rows", [table["t"]], out, files=files)


def test_a_missing_matplotlib_is_named_with_the_command(monkeypatch, table, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    refused(MissingDependency, "pip install", [table["t"]], tmp_path / "r.html")


def test_the_command(table, tmp_path):
    out = tmp_path / "r.html"
    words = ["report", str(table["t"]), "--out", str(out), "--truth", str(table["truth"])]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert f"wrote {out}" in result.output
    again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, UsageError)
    assert "exists already. Add --overwrite" in str(again.exception)


@pytest.mark.parametrize("line", ["a", "a,0.5,more"])
def test_a_first_line_of_another_length_is_named(tmp_path, line):
    (tmp_path / "t.csv").write_text(f"label,certainty\n{line}\nb,0.5\n")
    refused(
        DataError, r"t\.csv, line 2: \d cells?, not 2", [tmp_path / "t.csv"], tmp_path / "r.html"
    )
