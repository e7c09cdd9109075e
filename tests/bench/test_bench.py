"""Suites: combinations, sharing of stage one, resuming, failures, the table."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest
from dlp_cli.app import app
from places import ROOT
from typer.testing import CliRunner

from dlp_plugins.bench import table
from dlp_plugins.bench.runner import TrialStarted, run_suite
from dlp_plugins.bench.running import STAGE_TWO, stage_one_alone
from dlp_plugins.bench.suite import find_suite, load_suite, suite_of_recipe
from dlp_plugins.errors import DataError, RunFolderError, UsageError
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.recipe.model import Recipe
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
    assert len(suite.trials) == 8
    works: list[str] = []
    stages: list[str] = []

    def watch(event):
        if isinstance(event, TrialStarted):
            works.append(event.work)
        if isinstance(event, events.StageStarted):
            stages.append(event.stage)

    rows = table.collect(run_suite(suite, tmp_path, listeners=[watch]))
    assert sum("shared" in work for work in works) == 2
    assert stages.count("supervised") == 2
    assert stages.count("propagation") == 8
    assert [row.row for row in rows] == [
        "solver=cg weighter=entropy", "solver=cg weighter=uniform",
        "solver=power weighter=entropy", "solver=power weighter=uniform",
    ]  # fmt: skip
    assert all(row.runs == 2 and not row.failures for row in rows)
    # the same stage one for all, and so the same error at its end
    assert len({tuple(row.values["supervised_test_error"]) for row in rows}) == 1


def test_what_changes_stage_one_does_not_share_it(tmp_path):
    suite = suite_of_recipe("digits", ["consistency=none,pi_model"], TINY)
    works: list[str] = []
    run_suite(
        suite, tmp_path, listeners=[lambda e: isinstance(e, TrialStarted) and works.append(e.work)]
    )
    assert works == ["consistency=none", "consistency=pi_model"]


def test_a_second_call_trains_nothing_and_gives_the_same_table(tmp_path):
    suite = suite_of_recipe("digits", ["solver=cg,power"], TINY)
    first = table.to_markdown(table.collect(run_suite(suite, tmp_path)))
    steps: list[events.Event] = []

    def watch(event):
        if isinstance(event, events.EpochStarted):
            steps.append(event)

    again = table.to_markdown(table.collect(run_suite(suite, tmp_path, listeners=[watch])))
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
        run_suite(suite, tmp_path / "broken", listeners=[break_off])
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
    rows = table.collect(run_suite(suite, tmp_path))
    (failure,) = rows[0].failures
    assert failure.startswith("seed 0: weighters 'failing' (")
    assert "raised ZeroDivisionError: on purpose" in failure
    assert rows[1].runs == 1
    text = table.to_markdown(rows)
    assert "failed" in text
    assert "on purpose" in text


def test_an_other_suite_in_the_same_folder_is_refused_not_mixed(tmp_path):
    run_suite(suite_of_recipe("digits", [], TINY), tmp_path)
    other = suite_of_recipe("digits", [], [*TINY, "solver.alpha=0.5"])
    (result,) = run_suite(other, tmp_path)
    assert "another recipe" in (result.failure or "")
    assert "--out" in (result.failure or "")


def row_result(row: str, *errors: float, published=None) -> table.RowResult:
    return table.RowResult(row, published, {"test_error": list(errors)})


def test_figures_are_mean_and_sample_deviation():
    rows = [row_result("a", 1.0, 2.0, 4.5, published=(2.0, 0.5)), row_result("b", 3.0)]
    assert table.header(rows) == ["row", "runs", "error", "published"]
    assert table.row_texts(rows[0], rows) == ["a", "3", "2.50 ± 1.80", "2.00 ± 0.50"]
    assert table.row_texts(rows[1], rows) == ["b", "1", "3.00", "-"]
    (first, second) = csv.DictReader(io.StringIO(table.to_csv(rows)))
    assert float(first["test_error_std"]) == pytest.approx(1.8027756)
    assert second["test_error_std"] == ""


def test_the_table_is_written_in_three_forms(tmp_path):
    paths = table.write(tmp_path, [row_result("a", 1.0)], {"command": "dlp bench x"})
    assert [p.name for p in paths] == ["results.md", "results.csv", "results.json"]
    assert "dlp bench x" in paths[2].read_text()


@pytest.mark.parametrize("name", ["results.md", "results.csv"])
def test_a_file_of_ones_own_is_not_taken_for_the_table(name, tmp_path):
    (tmp_path / name).write_text("mine")
    suite = suite_of_recipe("digits", [], TINY)
    for check in (
        lambda: table.check_covers(tmp_path, suite),
        lambda: table.write(tmp_path, [row_result("a", 1.0)], {}),
    ):
        with pytest.raises(RunFolderError, match=rf"holds {name} but no results\.json.*--out"):
            check()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    (tmp_path / name).unlink()
    for _ in range(2):  # our own is replaced
        table.write(tmp_path, [row_result("a", 1.0)], {})


def test_no_sign_of_a_name_or_a_failure_breaks_the_table():
    row = table.RowResult("a|b\nc\\", None, {"test_error": [1.0]}, ["2 problems:\n  x\n  y"])
    lines = table.to_markdown([row]).splitlines()
    assert lines[2] == r"| a\|b c\\ | 1 | 1.00 |"
    assert lines[3:] == ["", "Failed:", "", r"- a|b c\, 2 problems: x y"]


def old_table(folder, *rows: table.RowResult) -> str:
    table.write(folder, rows, {})
    return (folder / "results.json").read_text()


def test_a_suite_that_lacks_rows_or_seeds_of_the_old_table_is_refused_before_it_runs(tmp_path):
    old_table(tmp_path, row_result("solver=cg", 1.0, 2.0), row_result("solver=power", 3.0))
    fewer_rows = suite_of_recipe("digits", ["solver=cg"], TINY, 2)
    with pytest.raises(RunFolderError, match="more runs of 'solver=power' than this suite"):
        table.check_covers(tmp_path, fewer_rows)
    fewer_seeds = suite_of_recipe("digits", ["solver=cg,power"], TINY, 1)
    with pytest.raises(RunFolderError, match="more runs of 'solver=cg' than this suite"):
        table.check_covers(tmp_path, fewer_seeds)
    table.check_covers(tmp_path, suite_of_recipe("digits", ["solver=cg,power,amg"], TINY, 2))
    table.check_covers(tmp_path / "new", fewer_rows)


def test_a_table_is_never_replaced_by_one_with_fewer_runs(tmp_path):
    before = old_table(tmp_path, row_result("a", 1.0, 2.0), row_result("b", 3.0))
    refused = table.RowResult("a", None, {}, ["seed 0: was started from another recipe"])
    with pytest.raises(RunFolderError, match="left as it was: it holds more runs of 'a'"):
        table.write(tmp_path, [refused, row_result("b", 4.0)], {})
    assert (tmp_path / "results.json").read_text() == before
    table.write(tmp_path, [row_result("a", 1.0, 2.0), row_result("b", 3.0, 4.0)], {})
    assert (tmp_path / "results.json").read_text() != before


@pytest.mark.parametrize("text", ["{half", "[]", "{}", '{"rows": [{"row": "a"}]}'])
def test_a_table_that_cannot_be_read_is_not_replaced(text, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(DataError, match=r"results\.json cannot be read"):
        table.write(tmp_path, [row_result("a", 1.0)], {})
    assert (tmp_path / "results.json").read_text() == text


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"test_error": "low"}', "{half"])
def test_a_damaged_summary_is_a_failure_of_its_row_alone(text, two_rows, tmp_path):
    suite, folder = two_rows
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / suite.trials[0].folder / "summary.json").write_text(text)
    first, second = table.collect(run_suite(suite, copy))
    assert "summary.json cannot be read" in first.failures[0]
    assert second.runs == 1
    assert "failed" in table.to_markdown([first, second])


@pytest.fixture(scope="module")
def two_rows(tmp_path_factory):
    """A suite of two rows with a shared stage one, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("suite")
    suite = suite_of_recipe("digits", ["solver=cg,power"], TINY)
    assert all(result.summary for result in run_suite(suite, folder))
    return suite, folder


def works_of(suite, folder) -> list[str]:
    works: list[str] = []
    results = run_suite(
        suite, folder, listeners=[lambda e: isinstance(e, TrialStarted) and works.append(e.work)]
    )
    assert all(result.summary for result in results), results
    return works


def test_a_shared_stage_one_is_the_same_for_rows_in_any_order(two_rows, tmp_path):
    copy = Path(shutil.copytree(two_rows[1], tmp_path / "copy"))
    turned = suite_of_recipe("digits", ["solver=power,cg"], TINY)
    assert works_of(turned, copy) == ["solver=power", "solver=cg"]  # stage one is found
    ours, theirs = (stage_one_alone(suite.trials[0].recipe) for suite in (turned, two_rows[0]))
    assert ours == theirs


def test_a_shared_stage_one_whose_file_is_gone_is_trained_again(two_rows, tmp_path):
    suite, folder = two_rows
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (stage_one,) = copy.glob("_stage_one/*/checkpoint/stage_one.safetensors")
    stage_one.unlink()
    (copy / suite.trials[1].folder / "summary.json").unlink()
    assert works_of(suite, copy)[0] == "stage one, shared by 2 runs"
    assert stage_one.is_file()


def test_what_stage_one_does_not_depend_on_are_keys_of_a_recipe():
    assert set(STAGE_TWO) <= Recipe.model_fields.keys()


def test_stage_one_does_not_depend_on_how_stage_two_trains():
    other = load_recipe("digits", ["training.soft_labels=true", "training.stage_two_steps=3"])
    assert stage_one_alone(other) == stage_one_alone(load_recipe("digits"))


def test_a_listener_that_fails_does_not_stop_a_suite(two_rows):
    def broken(event):
        raise OSError(28, "No space left on device")

    suite, folder = two_rows
    with pytest.warns(UserWarning, match="No space left on device"):
        results = run_suite(suite, folder, listeners=[broken])
    assert all(result.summary for result in results)


@pytest.mark.parametrize("name", ["..", "results.md", "x" * 201, "é" * 101])
def test_a_row_that_cannot_name_a_folder_is_refused(name, tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(f"recipe = 'digits'\nrows = [{{name='{name}'}}]", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot name a folder"):
        load_suite(path)


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.toml")), ids=lambda p: p.stem)
def test_every_suite_that_comes_with_the_project_is_valid(path):
    suite = load_suite(path)
    assert suite.trials
    assert find_suite(path.stem) == find_suite(str(path))


def test_the_components_suite_is_what_the_issue_asks_for():
    trials = load_suite(SUITES / "components.toml").trials
    for factor, least in {"solver": 3, "weighter": 3, "consistency": 2}.items():
        assert len({t.factors[factor] for t in trials}) >= least


def test_the_paper_table_holds_every_published_figure_of_the_methods():
    trials = load_suite(SUITES / "paper_table.toml", seeds=1).trials
    assert len(trials) == 4 * 5 + 2 * 4 + 2 * 4
    assert all(t.published for t in trials)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe = 'digits'\nsedes = 3", "seeds"),
        ("recipe = 'digits'\n[vary]\nsolver = ['cgg']", r"suite.toml, row 'solver=cgg': .*'cg'"),
        (
            "recipe = 'digits'\nrows = [{name='a', set=['graph.kk=5']}]",
            r"suite.toml, row 'a': graph.kk: unknown key",
        ),
        ("recipe = 'digits'\nrows = [{name='a'}, {name='a'}]", "two rows"),
        ("rows = [{name='a'}]", "names no recipe"),
        ("recipe = 'digits'\n[vary]\nseed = [0, 1]", "Give their number as `seeds`"),
        ("recipe = 'digits'\nset = ['seed=3']", "Give their number as `seeds`"),
        ("recipe = 'digits'\n[vary]\nsolver = []", "there is no value to try"),
        ("rows = [{name='a', recepi='x'}]", "unknown key .*Did you mean 'recipe'"),
        ("recipe = 'digits", "not valid TOML"),
        ("recipe = 'digits'\nseeds = 0", "greater than or equal to 1"),
    ],
)
def test_a_bad_suite_is_a_clear_error_before_anything_runs(text, message, tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_suite(path)


def write_suite(folder, text):
    path = folder / "suite.toml"
    path.write_text(text)
    return path


def test_a_suite_of_one_recipe_alone_has_a_row_of_its_name(tmp_path):
    (trial,) = load_suite(write_suite(tmp_path, "recipe = 'digits.toml'")).trials
    assert trial.row == "digits"


ROWS = "recipe = 'digits'\nset = ['graph.k=5']\nrows = [{}]\n"
NEAR = "{name='near', set=['solver.alpha=0.5', 'graph.k=6']}"
FAR = "{name='far', set=['solver.alpha=0.9', 'graph.k=7']}"


def test_the_command_line_wins_over_a_suite_and_its_rows(tmp_path):
    path = write_suite(tmp_path, ROWS.format(f"{NEAR}, {FAR}"))
    trials = load_suite(path, ["graph.k=8", "training.batch_size=60"]).trials
    assert [t.recipe.graph.params["k"] for t in trials] == [8, 8]
    assert [t.recipe.solver.params["alpha"] for t in trials] == [0.5, 0.9]


def test_settings_that_make_rows_the_same_are_refused(tmp_path):
    path = write_suite(tmp_path, ROWS.format(f"{NEAR}, {FAR.replace('=7', '=6')}"))
    with pytest.raises(UsageError, match=r"--set: rows 'near' and 'far' of .* would be the same"):
        load_suite(path, ["solver.alpha=0.7"])
    same = write_suite(tmp_path, ROWS.format("{name='a'}, {name='b'}"))  # as its author wants it
    assert len(load_suite(same, ["solver.alpha=0.7"]).trials) == 2


@pytest.mark.parametrize("setting", ["solver=power", "solver.name=power", "solver={name='power'}"])
def test_a_setting_of_what_is_varied_is_refused(setting, tmp_path):
    path = write_suite(tmp_path, "recipe = 'digits'\n[vary]\nsolver = ['cg', 'amg']")
    with pytest.raises(UsageError, match="the rows vary that key"):
        load_suite(path, [setting])
    with pytest.raises(UsageError, match="the rows vary that key"):
        suite_of_recipe("digits", ["solver=cg"], [setting])
    assert len(load_suite(path, ["solver.alpha=0.5"]).trials) == 2


def test_a_suite_by_path_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_suite("components.toml") == find_suite("components") == SUITES / "components.toml"
    assert find_suite("./components.toml") is find_suite("nowhere/components") is None
    Path("components.toml").write_text("seed = 3")  # a recipe of one's own
    assert find_suite("components.toml") is None


def test_vary_belongs_to_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", "components", "--vary", "solver=cg,power"])
    assert "components is a suite, and --vary belongs to a recipe" in str(done.exception)


@pytest.mark.parametrize("vary", ["solver", "solver=", "=cg", "solver=cg,"])
def test_a_malformed_vary_is_refused(vary):
    with pytest.raises(UsageError, match="--vary"):
        suite_of_recipe("digits", [vary])


def test_a_value_that_is_varied_and_wrong_names_its_row_and_options():
    with pytest.raises(UsageError, match=r"--set or --vary, row 'graph.k=many': graph\.k: found"):
        suite_of_recipe("digits", ["graph.k=5,many"])


def test_a_key_that_is_varied_twice_is_refused():
    with pytest.raises(UsageError, match="is given twice"):
        suite_of_recipe("digits", ["solver.alpha=0.5", "solver.alpha=0.9"])
