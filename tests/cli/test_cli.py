"""The command line: exit codes, messages without a traceback, tables, interruption, quick start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from importlib.metadata import version
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from dlp_cli.app import main
from dlp_cli.commands.show import _example, _parameters
from dlp_cli.display.results import print_results
from dlp_cli.settings import tables
from places import ROOT

from dlp_plugins.doctor import EXTRAS, extras
from dlp_plugins.embeddings.suggest import build_selector
from dlp_plugins.environment import device_name
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.recipe.files import recipe_names
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.registry import KINDS, backbones, solvers
from dlp_plugins.units import counted

QUICK = [
    "--set", "training.stage_one_epochs=2", "--set", "training.stage_two_epochs=1",
    "--set", "dataset.num_train=120", "--set", "dataset.num_test=50", "--set", "backbone.width=4",
    "--set", "dataset.num_labeled=20", "--device", "cpu",
]  # fmt: skip


HALF = """
    from dlp_plugins.registry import weighters
    from dlp_plugins.weighters.contract import Weighter

    @weighters.register("half")
    class Half(Weighter):
        '''Certainty one half, always.'''
        def certainty(self, probabilities):
            return probabilities.new_full((len(probabilities),), 0.5)
"""


def subprocess_dlp(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dlp_cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


# -- start, help, version -------------------------------------------------------------------------


def test_help_and_list_do_not_import_what_is_heavy() -> None:
    script = dedent("""
        import sys
        from dlp_cli.app import main
        for words in (["--help"], ["run", "--help"], ["--version"], ["list"], ["list", "recipes"]):
            sys.argv = ["dlp", *words]
            try:
                main()
            except SystemExit as leaving:
                assert not leaving.code, words
            heavy = {"torch", "numpy", "faiss", "timm", "scipy", "sklearn"} & set(sys.modules)
            assert not heavy, (words, heavy)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_names_every_command(dlp: Any) -> None:
    done = dlp("--help")
    assert done.code == 0
    commands = [p.stem for p in (ROOT / "cli/dlp_cli/commands").glob("[a-z]*.py")]
    for name in commands:
        assert name in done.out
    assert {"run", "check", "show", "doctor"} <= set(commands)


def test_version(dlp: Any) -> None:
    assert dlp("--version").out == f"dlp-plugins {version('dlp-plugins')}\n"


def test_as_a_module() -> None:
    assert subprocess_dlp("--version").stdout.startswith("dlp-plugins ")


@pytest.mark.parametrize(
    "words",
    [["nope"], ["run"], ["run", "digits", "--seed", "x"], ["run", "digits", "--device", "tpu"]],
)
def test_wrong_options_leave_with_2(words: list[str], dlp: Any) -> None:
    done = dlp(*words)
    assert done.code == 2
    assert done.err


# -- recipe errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "error: There is no recipe 'nope'"),
        (["diigts"], "Did you mean 'digits'?"),
        (["digits", "--set", "solver=pwer"], "solver.name: There is no solvers component 'pwer'."),
        (
            ["digits", "--set", "solver.alpha=1"],
            "--set: solver.alpha: found 1; allowed: less than 1",
        ),
        (["digits", "--set", "solver.alpha"], "write key=value"),
        (["digits", "--set", "[bold]x[/bold]=1"], "[bold]x[/bold]: unknown key"),
        (["digits", "--plugin", "absent.py"], "--plugin absent.py: there is no such file"),
    ],
)
def test_bad_requests(command: str, words: list[str], message: str, dlp: Any) -> None:
    done = dlp(command, *words)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.out == ""


def test_all_problems_of_a_recipe_at_once(dlp: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("sede = 1\n[solver]\nalpha = 2.0\n[training]\nbatch_size = 'x'\n")
    done = dlp("check", path, "--set", "graph.k=0")
    assert done.code == 2
    assert done.err.startswith("error: 4 problems:\n")
    for text in (f"{path}: sede", f"{path}: solver.alpha", "batch_size", "--set: graph.k"):
        assert text in done.err
    assert len(done.err.splitlines()) == 5  # no problem is broken over lines


@pytest.mark.parametrize("text", ["", "x = [", 'extends = "bad.toml"'])
def test_empty_broken_and_circular_recipes(text: str, dlp: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    done = dlp("run", path)
    assert done.code == 2
    assert done.err.startswith(f"error: {path}: ")


# -- check ----------------------------------------------------------------------------------------


def test_check_prints_every_setting_on_a_line_of_its_own(dlp: Any) -> None:
    done = dlp("check", "digits", "--set", "solver.alpha=0.5")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[-1] == "OK: digits is valid."
    for line in ('solver.name = "cg"', "solver.alpha = 0.5", "solver.max_iterations = 20"):
        assert line in lines
    assert max(map(len, lines)) < 100


def test_what_check_prints_is_what_set_takes(dlp: Any) -> None:
    lines = dlp("check", "digits", "--set", "solver.alpha=0.5").out.splitlines()[:-1]
    again = [word for line in lines for word in ("--set", line)]
    assert dlp("check", "lp_cifar10", *again).out.splitlines()[:-1] == lines


def test_check_reports_missing_packages(dlp: Any, plugin: Any) -> None:
    path = plugin(HALF.replace('register("half")', 'register("half", requires=("nowhere",))'))
    done = dlp("check", "digits", "--plugin", path, "--set", "weighter=half")
    assert done.code == 2
    assert "needs nowhere: not installed. Run: pip install nowhere" in done.err


# -- list and show --------------------------------------------------------------------------------


def test_list_names_everything(dlp: Any) -> None:
    out = dlp("list").out
    for kind in KINDS:
        assert kind.kind in out
        assert all(name in out for name in kind.names())
    assert all(name in out for name in recipe_names())


def test_list_and_show_take_a_plugin(dlp: Any, plugin: Any) -> None:
    path = plugin(HALF)
    assert "half" in dlp("list", "--plugin", path).out
    row = next(
        line
        for line in dlp("list", "weighters", "--plugin", path).out.splitlines()
        if line.startswith("half ")
    )
    assert str(path) in row
    assert "Certainty one half, always." in dlp("show", "weighter", "half", "--plugin", path).out


def test_an_unknown_component_may_be_that_of_a_plugin_not_given(dlp: Any) -> None:
    done = dlp("run", "digits", "--set", "solver=neumann")
    assert done.code == 2
    assert "If a file of your own registers it, give that file with --plugin FILE." in done.err


def test_tables_on_a_pipe_end_where_their_text_ends(dlp: Any) -> None:
    for words in (
        ["list"],
        ["list", "solvers"],
        ["list", "recipes"],
        ["doctor"],
        ["show", "settings"],
    ):
        lines = dlp(*words).out.splitlines()
        assert not [line for line in lines if line != line.rstrip()], words


def test_no_escape_sequence_of_a_file_reaches_the_terminal(dlp: Any, plugin: Any) -> None:
    path = plugin(HALF.replace("Certainty one half", r"\x1b[2J\x1b]0;owned\x07Half"))
    for words in (["list", "weighters"], ["show", "weighter", "half"]):
        out = dlp(*words, "--plugin", path).out
        assert r"\x1b[2J\x1b]0;owned\x07Half" in out
        assert "\x1b" not in out
    done = dlp("run", "\x1b[2J.toml")
    assert r"There is no recipe '\x1b[2J.toml'" in done.err
    assert "\x1b" not in done.err


def test_list_of_one_kind(dlp: Any) -> None:
    done = dlp("list", "solvers")
    assert done.code == 0
    row = next(line for line in done.out.splitlines() if line.split()[:1] == ["cg"])
    assert solvers.get("cg").summary in row
    assert row.split()[-2:] == ["dlp-plugins", "ok"]
    assert dlp("list", "solver").out == done.out


@pytest.mark.commands
def test_a_broken_plugin_does_not_break_the_listing(dlp: Any, tmp_path: Path) -> None:
    (tmp_path / "broken_plugin.py").write_text("raise ValueError('no luck')")
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[dlp_plugins.weighters]\nbad = broken_plugin:X\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess_dlp("list", "weighters", env=env)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.split()}
    assert "broken: weighters 'bad' from broken fails at import: ValueError: no luck" in rows["bad"]
    assert rows["entropy"].split()[-1] == "ok"


def test_list_shows_what_a_component_needs(dlp: Any, plugin: Any) -> None:
    from dlp_plugins.registry import load_plugin_file

    load_plugin_file(
        plugin(HALF.replace('("half")', '("half", requires=("nowhere",), extra="amg")'))
    )
    row = next(r for r in dlp("list", "weighters").out.splitlines() if r.split()[:1] == ["half"])
    assert "needs: pip install 'pyamg>=5.2'" in row
    assert "Certainty one half, always." in row


def test_list_recipes_and_unknown_kinds(dlp: Any) -> None:
    assert "handwritten digits" in dlp("list", "recipes").out
    done = dlp("list", "slovers")
    assert done.code == 2
    assert "Did you mean 'solvers'?" in done.err


def test_show(dlp: Any) -> None:
    out = dlp("show", "solvers", "cg").out
    row = next(line for line in out.splitlines() if line.split()[:1] == ["alpha"])
    for text in ("number", ">= 0, < 1", "0.99", "how far labels spread"):
        assert text in row
    assert "Iscen et al." in out
    assert "from: dlp-plugins" in out
    assert "--set solver.alpha=" in out


def test_show_includes_what_all_of_a_kind_have(dlp: Any) -> None:
    out = dlp("show", "datasets", "digits").out
    row = next(line for line in out.splitlines() if line.split()[:1] == ["num_labeled"])
    assert "whole number" in row
    assert ">= 1" in row


def test_show_a_component_without_parameters(dlp: Any) -> None:
    assert "--set weighter=entropy" in dlp("show", "weighter", "entropy").out


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_what_show_prints_for_the_command_line_is_valid(kind: Any) -> None:
    table = next((t for t in tables() if t.kind == kind.kind), None)
    for name in kind.names():
        component = kind.find(name)
        if component.missing() or (component.family and not component.members()):
            continue
        words = _example(component, name, table, _parameters(component, table))
        if table is None:
            named, *settings = words[1::2]
            assert words[::2] == ["--selector", *["--set"] * len(settings)]
            build_selector(named, settings)
        else:
            assert set(words[::2]) == {"--set"}
            recipe = load_recipe("digits", words[1::2])
            found = getattr(recipe, table.key)
            (part,) = found if table.repeated else [found]
            assert part.name.partition(":")[0] == name


def test_show_filters_the_members_of_a_family_alone(dlp: Any) -> None:
    for words in (["solvers", "cg"], ["settings"], ["recipe", "digits"], ["solvers"]):
        done = dlp("show", *words, "--filter", "x")
        assert done.code == 2
        assert f"{' '.join(words)} is none. Leave it out." in done.err


def test_a_recipe_that_is_no_text_is_a_sentence(dlp: Any, tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'description = "caf\xe9"')
    done = dlp("show", "recipe", tmp_path / "latin.toml")
    assert done.code == 2
    assert "latin.toml: not valid TOML: 'utf-8' codec" in done.err


def test_show_a_recipe(dlp: Any) -> None:
    assert tomllib.loads(dlp("show", "recipes", "digits").out)["dataset"]["name"] == "digits"


def described(schema: dict[str, Any], node: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Keys and meanings by pydantic's own schema, without a component's name and parameters."""
    found = {}
    for key, value in node["properties"].items():
        kinds = [value, *value.get("anyOf", ()), *value.get("allOf", ()), value.get("items", {})]
        inner = next((k["$ref"].rpartition("/")[2] for k in kinds if "$ref" in k), None)
        if inner:
            found |= described(schema, schema["$defs"][inner], f"{prefix}{key}.")
        elif key not in ("name", "params"):
            found[prefix + key] = value.get("description", "")
    return found


def test_show_settings_gives_every_key_of_a_recipe_its_meaning(dlp: Any) -> None:
    rows = {line.split()[0]: line for line in dlp("show", "settings").out.splitlines()}
    schema = Recipe.model_json_schema()
    known = described(schema, schema)
    assert {"seed", "dataset.num_labeled", "training.batch_size"} <= set(known)
    for key, meaning in known.items():
        assert meaning, f"{key} has no description"
        assert rows[key].endswith(meaning)
    assert "< 2147483648" in rows["seed"]
    assert "recipe to start from" in rows["extends"]
    assert "power" in rows["solver.name"]


def test_show_settings_of_one_table_has_its_components(dlp: Any) -> None:
    out = dlp("show", "settings", "solver").out
    assert "with chebyshev" in out
    assert any(line.startswith("solver.max_iterations ") for line in out.splitlines())
    done = dlp("show", "settings", "slover")
    assert done.code == 2
    assert "Did you mean 'solver'?" in done.err


def test_show_without_a_name(dlp: Any) -> None:
    done = dlp("show", "solvers")
    assert done.code == 2
    assert "dlp list solvers" in done.err


def test_show_unknown_names(dlp: Any) -> None:
    done = dlp("show", "solvers", "cgg")
    assert done.code == 2
    assert "Did you mean 'cg'?" in done.err


def test_show_a_family(dlp: Any, plugin: Any) -> None:
    from dlp_plugins.registry import load_plugin_file

    path = plugin("""
        from dlp_plugins.registry import backbones

        @backbones.register("zoo", family=True)
        class Zoo(backbones.base):
            '''Many networks.'''
            def __init__(self, name: str, depth: int = 3) -> None: ...
            @staticmethod
            def members():
                return [f"net{i}" for i in range(30)]
    """)
    load_plugin_file(path)
    out = dlp("show", "backbones", "zoo").out
    assert "A family of 30: write zoo:<name>." in out
    assert "zoo:net19\n" in out
    assert "zoo:net20" not in out
    assert "and 10 more" in out
    assert out.count("depth") >= 1
    few = dlp("show", "backbones", "zoo", "--filter", "net2").out
    assert few.count("zoo:net2") == 11
    assert "none has 'x9'" in dlp("show", "backbones", "zoo", "--filter", "x9").out
    assert "A family" not in dlp("show", "backbones", "zoo:net1").out
    assert dlp("show", "backbones", "zoo:nope").code == 2
    assert "zoo:<name>" in dlp("list", "backbones").out
    assert "zoo" in backbones.names()


# -- doctor ---------------------------------------------------------------------------------------


def test_doctor(dlp: Any) -> None:
    out = dlp("doctor").out
    assert torch.__version__.partition("+")[0] in out
    assert "FAISS on GPU" in out
    for extra in extras():
        row = next(line for line in out.splitlines() if line.split()[:1] == [extra.name])
        assert ("installed" in row) if extra.works else (extra.command in row)


def test_one_thread_is_a_thread(one_thread: None, dlp: Any) -> None:
    assert "torch uses 1 thread\n" in dlp("doctor").out
    assert device_name(torch.device("cpu")) == "CPU, 1 thread"
    assert [counted(n, "class", "classes") for n in (0, 1, 2000)] == [
        "0 classes", "1 class", "2,000 classes",
    ]  # fmt: skip


def test_doctor_knows_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"test", "docs", "browser"}
    commands = {e.name: e.command for e in extras()}
    assert commands["torch-sparse"] == (
        "pip install --no-build-isolation 'torch-scatter>=2.1.2' 'torch-sparse>=0.6.18'"
    )
    assert commands["gpu"].startswith("pip uninstall faiss-cpu && pip install")


# -- run ------------------------------------------------------------------------------------------


def test_resume_of_a_damaged_folder(dlp: Any, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"packages": {}, "format": 2}')
    (tmp_path / "recipe.toml").write_text("x = [")
    done = dlp("run", "digits", "--resume", "--out", tmp_path)
    assert done.code == 2
    assert f"{tmp_path / 'recipe.toml'}: not valid TOML" in done.err


def test_run_with_a_plugin_prints_both_errors_and_leaves_a_folder(
    dlp: Any, plugin: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    words = [
        *QUICK, "--plugin", plugin(HALF), "--set", "weighter=half", "--seed", "3",
        "--set", "solver.alpha=0.9",
    ]  # fmt: skip
    done = dlp("run", "digits", *words, "--out", folder)
    assert done.code == 0, done.err
    summary = json.loads((folder / "summary.json").read_text())
    lines = done.out.splitlines()
    assert sum(bool(re.match(r"(supervised|propagation) \d/\d: ", line)) for line in lines) == 3
    rows = [" ".join(line.split()) for line in lines]
    assert f"supervised alone {summary['supervised_test_error']:.2f} %" in rows
    assert f"with label propagation {summary['test_error']:.2f} %" in rows
    assert str(folder) in done.out
    for text in ("--set weighter=half", "--plugin", "mine.py", "--device cpu"):
        assert all(text in line for line in lines if line.startswith("  dlp run "))
    assert sum(line.startswith("  dlp run ") for line in lines) == 2
    (other_solver,) = (line for line in lines if line.endswith("--out runs/power"))
    assert "solver.alpha" not in other_solver
    assert any(line.endswith("--seed 4") for line in lines)
    assert "seed=3" not in done.out
    (plugin_used,) = json.loads((folder / "environment.json").read_text())["plugins"]
    assert plugin_used["path"].endswith("mine.py")
    without = [w for w in words if w not in ("--plugin", words[words.index("--plugin") + 1])]
    asked = dlp("run", "digits", *without, "--out", folder, "--resume")
    assert asked.code == 2
    assert f"Add --plugin {plugin_used['path']}" in asked.err
    assert "\x1b" not in done.out
    recipe = tomllib.loads((folder / "recipe.toml").read_text())
    assert (recipe["seed"], recipe["weighter"]["name"]) == (3, "half")
    assert "mine.py" not in (folder / "recipe.toml").read_text()  # a recipe names no code


def test_the_folder_is_named_after_recipe_and_seed_and_kept(
    dlp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('extends = "digits"\nseed = 7\n')
    words = ["run", "mine.toml", *QUICK, "--set", "training.stage_two_epochs=0"]
    assert dlp(*words).code == 0
    summary = Path("runs/mine-seed7/summary.json")
    first = summary.read_text()
    card = Path("runs/mine-seed7/README.md").read_text()
    assert "| labels alone |" in card
    assert "with label propagation" not in card  # there was none
    again = dlp(*words)
    assert again.code == 2
    for option in ("--resume", "--overwrite", "--out"):
        assert option in again.err
    assert summary.read_text() == first
    assert dlp(*words, "--resume").code == 0  # it is complete: nothing is trained again
    assert summary.read_text() == first
    assert dlp(*words, "--overwrite").code == 0
    assert summary.read_text() != first  # the time it took is another


def test_resume_and_overwrite_exclude_each_other(dlp: Any) -> None:
    done = dlp("run", "digits", "--resume", "--overwrite")
    assert done.code == 2
    assert "choose one" in done.err


def test_resume_of_nothing(dlp: Any, tmp_path: Path) -> None:
    done = dlp("run", "digits", "--resume", "--out", tmp_path / "absent")
    assert done.code == 2
    assert "holds no run to resume" in done.err


def test_an_error_of_the_data_leaves_with_1_and_no_folder(dlp: Any, tmp_path: Path) -> None:
    done = dlp("run", "digits", "--set", "dataset.num_labeled=5000", "--out", tmp_path / "out")
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.commands
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "my out"
    words = ["run", "digits", *QUICK, "--set", "training.stage_one_epochs=100000", "--out", folder]
    child = subprocess.Popen(
        [sys.executable, "-m", "dlp_cli", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("supervised "):
            break
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert err == ""
    command = out.splitlines()[-1].strip()
    assert command.startswith("dlp run digits --set training.stage_one_epochs=2 --set ")
    assert command.endswith(f"--device cpu --out '{folder}' --resume")
    assert (folder / "checkpoint/training.safetensors").is_file()


def test_interrupted_before_anything_is_saved(
    dlp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dlp_plugins.training.run.train", interrupted)
    folder = tmp_path / "x"
    words = ["run", "digits", "--seed", "2", "--out", folder]
    command = f"dlp run digits --set seed=2 --out {folder}"
    for option, again in (([], command), (["--overwrite"], f"{command} --overwrite")):
        done = dlp(*words, *option)
        assert done.code == 130
        assert "before anything was saved" in done.out
        assert done.out.splitlines()[-1].strip() == again


def test_interrupted_before_the_first_checkpoint_it_says_what_works(
    dlp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "x"
    words = ["run", "digits", *QUICK, "--out", str(folder)]
    with monkeypatch.context() as patch:
        patch.setattr("dlp_plugins.training.trainer.Trainer.run", interrupted)
        done = dlp(*words)
    assert "before anything was saved" in done.out
    command = done.out.splitlines()[-1].strip()
    assert command.endswith(f"--out {folder} --resume")
    assert dlp(*command.split()[1:]).code == 0

    with monkeypatch.context() as patch:  # the former run is there, and is not the new one
        patch.setattr("dlp_plugins.training.run.prepare_data", interrupted)
        done = dlp(*words, "--overwrite")
    assert "before anything was saved" in done.out
    assert done.out.splitlines()[-1].strip().endswith(f"--out {folder} --overwrite")


def test_a_seed_is_given_once_and_blamed_on_its_option(dlp: Any) -> None:
    done = dlp("run", "digits", "--set", "seed = 3", "--seed", "4")
    assert (done.code, done.err) == (
        2, "error: --seed and --set seed both give the seed: leave one out.\n",
    )  # fmt: skip
    for seed in ("-1", str(2**31)):
        done = dlp("run", "digits", "--seed", seed)
        assert done.code == 2
        assert "'--seed'" in done.err
        assert "--set" not in done.err


def test_results_name_the_teacher_and_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {
        "supervised_test_error": 30.0, "supervised_teacher_test_error": 29.0, "test_error": 20.0,
        "teacher_test_error": 19.0, "best_test_error": 18.0, "best_teacher_test_error": 17.5,
        "seconds": 65.0, "images_per_second": 1000.0, "peak_memory_mb": 500.0, "seed": 0,
        "epochs": {"supervised": 5, "propagation": 5},
    }  # fmt: skip
    print_results(summary, Path("runs/x"), "dlp run 'my recipe.toml'", "mean_teacher", "dlp run x")
    out = capsys.readouterr().out
    assert "  dlp run x --set solver=power" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["mean_teacher", "alone", "30.00", "%", "29.00", "%"] in rows
    assert ["with", "label", "propagation", "20.00", "%", "19.00", "%"] in rows
    assert ["best", "by", "validation", "18.00", "%", "17.50", "%"] in rows
    assert "dlp run 'my recipe.toml' --seed 1" in out


def test_results_of_stage_one_alone_do_not_speak_of_propagation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary = {
        "supervised_test_error": 30.0, "test_error": 30.0, "supervised_teacher_test_error": 29.0,
        "teacher_test_error": 29.0, "seconds": 65.0, "images_per_second": 1000.0,
        "peak_memory_mb": 500.0, "seed": 0, "epochs": {"supervised": 5, "propagation": 0},
    }  # fmt: skip
    print_results(summary, Path("runs/x"), "x")
    out = capsys.readouterr().out
    assert "supervised alone" in out
    assert "29.00 %" in out
    assert "propagation" not in out


def test_results_say_once_that_the_last_labels_may_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary = {
        "supervised_test_error": 30.0, "test_error": 20.0, "seconds": 65.0,
        "images_per_second": 1000.0, "peak_memory_mb": 500.0, "seed": 0,
        "epochs": {"supervised": 5, "propagation": 5}, "residual": 0.035,
    }  # fmt: skip
    for changes, times in ((True, 1), (False, 0)):
        print_results(summary | {"labels_may_change": changes}, Path("runs/x"), "x")
        out = " ".join(capsys.readouterr().out.split())
        assert out.count("residual of 3.5e-02") == out.count("solver.max_iterations") == times


# -- pipes ----------------------------------------------------------------------------------------


def test_a_closed_pipe_is_quiet() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "dlp_cli", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    time.sleep(0.1)
    assert child.stderr.read() == b""
    child.wait(timeout=60)


SHORT = ["run", "digits", *QUICK, "--set", "training.checkpoint_seconds=0"]


@pytest.mark.commands
def test_a_closed_pipe_does_not_stop_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-m", "dlp_cli", *SHORT, "--out", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()  # as `| head -1`
    child.stdout.close()
    assert child.stderr is not None
    err = child.stderr.read()
    assert child.wait(timeout=60) == 0, err
    assert (folder / "summary.json").is_file()
    assert err.startswith("warning: PlainLines failed and gets no more events; the run goes on.")
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_does_not_stop_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["dlp", *SHORT, "--out", str(folder)])
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit, match=r"^0$"):
            main()
    assert (folder / "summary.json").is_file()
    warning, note = capsys.readouterr().err.splitlines()
    assert "No space left on device" in warning
    assert note.endswith(f"they are in {folder}/summary.json.")


def test_a_standard_output_that_was_closed_from_the_start(tmp_path: Path) -> None:
    command = f"{sys.executable} -m dlp_cli list recipes >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_without_unicode() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess_dlp("list", env=env)
    assert done.returncode == 0, done.stderr
    assert "solvers" in done.stdout


# -- the rooms ----------------------------------------------------------------------------------


DROPPED = """
import time
from dlp_cli import app as cli

class Dropping:
    def __del__(self):
        raise KeyboardInterrupt

def command():
    Dropping()  # Python drops what a __del__ raises
    time.sleep(10)

cli.app = command
cli.main()
"""


def test_ctrl_c_that_a_library_drops_comes_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


LOADING = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "dlp_cli.app":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from dlp_cli.__main__ import main
main()
"""


def test_ctrl_c_while_the_commands_load_prints_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADING], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


ENDING = """
import os, signal
from dlp_cli import app
from dlp_cli.__main__ import main

def command():
    {command}

app.main = command
main()
os.kill(os.getpid(), signal.SIGINT)
print("ended")
"""


@pytest.mark.parametrize(
    ("command", "code", "out"), [("pass", 0, "ended\n"), ("raise KeyboardInterrupt", 130, "")]
)
def test_ctrl_c_at_the_end_prints_no_traceback(command: str, code: int, out: str) -> None:
    script = ENDING.format(command=command)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, out, "")


SPINNING = """
import os
from dlp_cli import app
from dlp_cli.__main__ import main

app.main = lambda: print(os.environ.get("GOMP_SPINCOUNT"))
main()
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_that_wait_leave_the_core_soon(given: dict[str, str], expected: str) -> None:
    kept = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", SPINNING], capture_output=True, text=True, env={**kept, **given}
    )
    assert done.stdout == f"{expected}\n"
