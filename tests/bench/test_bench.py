"""Suites: combinations, sharing of stage one, resuming, failures, the table."""

from __future__ import annotations

import csv
import io

import pytest
from places import ROOT

from dlp_plugins.bench import table
from dlp_plugins.bench.runner import CellStarted, run_suite
from dlp_plugins.bench.suite import find_suite, load_suite, suite_of_recipe
from dlp_plugins.errors import UsageError
from dlp_plugins.registry import weighters
from dlp_plugins.training import events
from dlp_plugins.weighters import Weighter

TINY = [
    "dataset.num_train=300", "dataset.num_test=100", "backbone.width=4",
    "training.stage_one_epochs=2", "training.stage_one_steps=3", "training.stage_two_epochs=1",
]  # fmt: skip
SUITES = ROOT / "recipes" / "suites"


def test_every_combination_is_a_row_and_stage_one_is_trained_once_a_seed(tmp_path):
    suite = suite_of_recipe("digits", ["solver=cg,power", "weighter=entropy,uniform"], TINY, 2)
    assert len(suite.cells) == 8
    works: list[str] = []
    stages: list[str] = []

    def watch(event):
        if isinstance(event, CellStarted):
            works.append(event.work)
        if isinstance(event, events.StageStarted):
            stages.append(event.stage)

    lines = table.collect(run_suite(suite, tmp_path, watchers=[watch]))
    assert sum("shared" in work for work in works) == 2
    assert stages.count("supervised") == 2
    assert stages.count("propagation") == 8
    assert [x.row for x in lines] == [
        "solver=cg weighter=entropy", "solver=cg weighter=uniform",
        "solver=power weighter=entropy", "solver=power weighter=uniform",
    ]  # fmt: skip
    assert all(x.runs == 2 and not x.failures for x in lines)
    # the same stage one for all, and so the same error at its end
    assert len({tuple(x.values["supervised_test_error"]) for x in lines}) == 1


def test_what_changes_stage_one_does_not_share_it(tmp_path):
    suite = suite_of_recipe("digits", ["consistency=none,pi_model"], TINY)
    works: list[str] = []
    run_suite(
        suite, tmp_path, watchers=[lambda e: isinstance(e, CellStarted) and works.append(e.work)]
    )
    assert works == ["consistency=none", "consistency=pi_model"]


def test_a_second_call_trains_nothing_and_gives_the_same_table(tmp_path):
    suite = suite_of_recipe("digits", ["solver=cg,power"], TINY)
    first = table.to_markdown(table.collect(run_suite(suite, tmp_path)))
    steps: list[events.Event] = []

    def watch(event):
        if isinstance(event, events.EpochStarted):
            steps.append(event)

    again = table.to_markdown(table.collect(run_suite(suite, tmp_path, watchers=[watch])))
    assert first == again
    assert steps == []


class BreakOffError(BaseException):
    """Like a kill: not even the runner's own net catches it."""


def test_a_broken_off_suite_goes_on_where_it_was(tmp_path):
    suite = suite_of_recipe("digits", ["solver=cg,power"], [*TINY, "training.checkpoint_seconds=0"])

    def break_off(event):
        if isinstance(event, events.CheckpointSaved) and "power" in str(event.path):
            raise BreakOffError

    with pytest.raises(BreakOffError):
        run_suite(suite, tmp_path / "broken", watchers=[break_off])
    ours = table.collect(run_suite(suite, tmp_path / "broken"))
    whole = table.collect(run_suite(suite, tmp_path / "whole"))
    for one, other in zip(ours, whole, strict=True):
        assert one.values["test_error"] == other.values["test_error"]


@pytest.fixture
def failing_weighter():
    @weighters.register("failing")
    class Failing(Weighter):
        def certainty(self, probabilities):
            raise ZeroDivisionError("on purpose")

    yield
    weighters.unregister("failing")


def test_a_failed_combination_is_shown_and_the_others_go_on(tmp_path, failing_weighter):
    suite = suite_of_recipe("digits", ["weighter=failing,entropy"], TINY)
    lines = table.collect(run_suite(suite, tmp_path))
    assert lines[0].failures == ["seed 0: ZeroDivisionError: on purpose"]
    assert lines[1].runs == 1
    text = table.to_markdown(lines)
    assert "failed" in text
    assert "on purpose" in text


def test_an_other_suite_in_the_same_folder_is_refused_not_mixed(tmp_path):
    run_suite(suite_of_recipe("digits", [], TINY), tmp_path)
    other = suite_of_recipe("digits", [], [*TINY, "solver.alpha=0.5"])
    (result,) = run_suite(other, tmp_path)
    assert "another recipe" in (result.failure or "")
    assert "--out" in (result.failure or "")


def line(row: str, *errors: float, published=None) -> table.Line:
    return table.Line(row, published, {"test_error": list(errors)})


def test_figures_are_mean_and_sample_deviation():
    lines = [line("a", 1.0, 2.0, 4.5, published=(2.0, 0.5)), line("b", 3.0)]
    assert table.header(lines) == ["row", "runs", "error", "published"]
    assert table.cells(lines[0], lines) == ["a", "3", "2.50 ± 1.80", "2.00 ± 0.50"]
    assert table.cells(lines[1], lines) == ["b", "1", "3.00", "-"]
    (first, second) = csv.DictReader(io.StringIO(table.to_csv(lines)))
    assert float(first["test_error_std"]) == pytest.approx(1.8027756)
    assert second["test_error_std"] == ""


def test_the_table_is_written_in_three_forms(tmp_path):
    paths = table.write(tmp_path, [line("a", 1.0)], {"command": "dlp bench x"})
    assert [p.name for p in paths] == ["results.md", "results.csv", "results.json"]
    assert "dlp bench x" in paths[2].read_text()


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.toml")), ids=lambda p: p.stem)
def test_every_suite_that_comes_with_the_project_is_valid(path):
    suite = load_suite(path)
    assert suite.cells
    assert find_suite(path.stem) == find_suite(str(path))


def test_the_components_suite_is_what_the_issue_asks_for():
    cells = load_suite(SUITES / "components.toml").cells
    for factor, least in {"solver": 3, "weighter": 3, "consistency": 2}.items():
        assert len({c.factors[factor] for c in cells}) >= least


def test_the_paper_table_holds_every_published_figure_of_the_methods():
    cells = load_suite(SUITES / "paper_table.toml", seeds=1).cells
    assert len(cells) == 4 * 5 + 2 * 4 + 2 * 4
    assert all(c.published for c in cells)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = 'digits'\nsedes = 3", "seeds"),
        ("recipe = 'digits'\n[vary]\nsolver = ['cgg']", "cg"),
        ("recipe = 'digits'\nrows = [{name='a'}, {name='a'}]", "two rows"),
        ("rows = [{name='a'}]", "names no recipe"),
        ("recipe = 'digits", "cannot be read"),
        ("recipe = 'digits'\nseeds = 0", "greater than or equal to 1"),
    ],
)
def test_a_bad_suite_is_a_clear_error_before_anything_runs(text, message, tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_suite(path)


@pytest.mark.parametrize("vary", ["solver", "solver=", "=cg", "solver=cg,"])
def test_a_malformed_vary_is_refused(vary):
    with pytest.raises(UsageError, match="--vary"):
        suite_of_recipe("digits", [vary])
