"""Recipes: layers, overrides, and every problem at once with file, key, found, allowed, nearest."""

from __future__ import annotations

import inspect
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from dlp_plugins.errors import DlpError, MissingDependency, UsageError
from dlp_plugins.recipe import files as recipe_files
from dlp_plugins.recipe.check import check_dependencies, load_recipe
from dlp_plugins.recipe.files import RecipeError, find_recipe, recipe_names
from dlp_plugins.recipe.model import PARTS, Recipe
from dlp_plugins.registry import Registry, of_kind, solvers

Write = Any


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes a recipe file and gives its path."""

    def write_(text: str, name: str = "mine.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_


def problems(recipe: Path, *overrides: str) -> str:
    """The message of the error that this recipe gives."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{recipe.parent}/", "")


# -- what is right --------------------------------------------------------------------------------


def test_defaults_are_the_papers(write: Write) -> None:
    recipe = load_recipe(write("seed = 3"))
    assert recipe.seed == 3
    assert recipe.solver.name == "cg"
    assert recipe.solver.params == {"alpha": 0.99, "max_iterations": 20, "tolerance": 1e-6}
    assert recipe.graph.params["k"] == 50
    assert recipe.affinity.params["gamma"] == 3.0
    t = recipe.training
    assert (t.stage_one_epochs, t.stage_two_epochs) == (180, 180)
    assert (t.batch_size, t.labeled_per_batch) == (100, 50)
    sgd = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 2e-4, "nesterov": True}
    assert recipe.optimizer.params == sgd
    assert recipe.schedule.name == "cosine"


def test_component_by_name_alone_and_by_table(write: Write) -> None:
    short = load_recipe(write('solver = "power"'))
    long = load_recipe(write('[solver]\nname = "power"'))
    assert short == long
    assert short.solver.name == "power"


def test_whole_number_where_a_number_is_wanted(write: Write) -> None:
    assert (
        load_recipe(write("[optimizer]\nlearning_rate = 1")).optimizer.params["learning_rate"]
        == 1.0
    )
    assert load_recipe(write("[affinity]\ngamma = 2")).affinity.params["gamma"] == 2.0


@pytest.mark.parametrize("name", recipe_names())
def test_a_resolved_recipe_reads_as_the_same_recipe(name: str, write: Write) -> None:
    recipe = load_recipe(name)
    again = load_recipe(write(recipe.to_toml()))
    assert again == recipe
    assert again.to_toml() == recipe.to_toml()
    assert "extends" not in tomllib.loads(recipe.to_toml())


@pytest.mark.parametrize("key", PARTS)
def test_every_components_defaults_survive_the_round_trip(key: str, write: Write) -> None:
    kind, tried = of_kind(key), 0
    for name in kind.names():
        component = kind.find(name)
        if component.family or any(p.required for p in component.parameters):
            continue
        recipe = load_recipe(write(f"[{key}]\nname = '{name}'"))
        assert load_recipe(write(recipe.to_toml())) == recipe
        tried += 1
    assert tried


def test_an_inherited_key_can_be_unset(write: Write) -> None:
    write(
        "seed = 7\n[dataset]\nnum_labeled = 50\nsplit_seed = 3\n[solver]\nalpha = 0.5", "base.toml"
    )
    text = (
        'extends = "base.toml"\nseed = "unset"\nsolver = "unset"\n[dataset]\nnum_labeled = "all"\n'
    )
    recipe = load_recipe(write(text + 'split_seed = "unset"'))
    assert recipe.seed == 0
    assert recipe.solver.params["alpha"] == 0.99
    assert recipe.dataset.num_labeled == "all"
    assert recipe.dataset.split_seed is None
    assert load_recipe("digits", ["dataset.num_labeled=all"]).dataset.num_labeled == "all"


def test_trackers_may_be_several_and_later_layers_replace_them(write: Write) -> None:
    write('[[tracker]]\nname = "jsonl"\n[[tracker]]\nname = "jsonl"', "base.toml")
    assert len(load_recipe(write('extends = "base.toml"')).tracker) == 2
    assert load_recipe(write('extends = "base.toml"\ntracker = []')).tracker == []
    assert [p.name for p in load_recipe(write('tracker = "jsonl"')).tracker] == ["jsonl"]
    assert "Did you mean 'jsonl'?" in problems(write('[[tracker]]\nname = "jsonll"'))
    assert "unknown key" in problems(write('[[tracker]]\nname = "jsonl"\nx = 1'))


# -- extends --------------------------------------------------------------------------------------


def test_extends_a_chain_the_nearest_file_wins(write: Write) -> None:
    write("seed = 1\n[solver]\nalpha = 0.5\nmax_iterations = 7", "base.toml")
    write('extends = "base.toml"\nseed = 2\n[solver]\nalpha = 0.6', "middle.toml")
    recipe = load_recipe(write('extends = "middle.toml"\n[solver]\nalpha = 0.7'))
    assert recipe.seed == 2
    assert recipe.solver.params == {"alpha": 0.7, "max_iterations": 7, "tolerance": 1e-6}


def test_extends_a_file_beside_it_or_a_recipe_of_the_project(write: Write, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write("seed = 9", "deep/base.toml")
    assert load_recipe(write('extends = "deep/base.toml"')).seed == 9
    for base in ("digits", "digits.toml"):
        own = {"description": load_recipe("digits").description}  # is not inherited
        extended = load_recipe(write(f'extends = "{base}"'))
        assert extended.description == ""
        assert extended.model_copy(update=own) == load_recipe("digits")


def test_a_path_that_is_not_there_is_no_recipe_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "digits.toml"):
        assert find_recipe(name) == ROOT / "recipes/digits.toml"
    for name in ("./digits.toml", "./digits", "suites/components", f"{tmp_path}/digits.toml"):
        with pytest.raises(UsageError, match=r"no such file\."):
            find_recipe(name)
    Path("digits.toml").write_text("seed = 3")
    assert find_recipe("./digits.toml") == Path("digits.toml")


def test_extends_in_a_circle(write: Write) -> None:
    write('extends = "a.toml"', "b.toml")
    message = problems(write('extends = "b.toml"', "a.toml"))
    assert "circle: a.toml -> b.toml -> a.toml" in message
    assert "circle" in problems(write('extends = "mine.toml"'))


def test_extends_what_is_not_there(write: Write) -> None:
    message = problems(write('extends = "diigts.toml"'))
    assert "mine.toml: extends: found 'diigts.toml'" in message
    assert "Did you mean 'digits'?" in message


def test_extends_must_be_text(write: Write) -> None:
    assert "mine.toml: extends: found 3" in problems(write("extends = 3"))


def test_a_problem_names_the_file_it_stands_in(write: Write) -> None:
    write("[solver]\nalpha = 2.0", "base.toml")
    path = write('extends = "base.toml"\n[solver]\nmax_iterations = 0')
    message = problems(path, "graph.k=0")
    assert "base.toml: solver.alpha: found 2.0" in message
    assert "mine.toml: solver.max_iterations: found 0" in message
    assert "--set: graph.k: found 0" in message


# -- choosing another component -------------------------------------------------------------------


def test_another_component_drops_the_formers_parameters(write: Write) -> None:
    path = write('[solver]\nname = "cg"\nalpha = 0.9\nmax_iterations = 5')
    recipe = load_recipe(path, ["solver=closed_form"])
    assert recipe.solver.params == {"alpha": 0.9}  # both know alpha
    power = load_recipe(path, ["solver=power"])
    assert power.solver.params["max_iterations"] == 5


def test_another_component_keeps_what_all_of_its_kind_have(write: Write) -> None:
    path = write("[dataset]\nname = 'digits'\nnum_labeled = 40")
    text = "[graph]\nmutual = true\nk = 5"
    assert load_recipe(path).dataset.num_labeled == 40
    recipe = load_recipe(write(text), ["graph=exact", "graph.k=7"])
    assert recipe.graph.mutual
    assert recipe.graph.params["k"] == 7


def test_another_component_does_not_hide_a_misspelt_key(write: Write) -> None:
    path = write('[solver]\nname = "cg"\nalhpa = 0.9')
    assert "mine.toml: solver.alhpa: unknown key" in problems(path, "solver=power")


# -- --set ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        ["solver=power", "solver.alpha=0.9"],
        ["solver.alpha=0.9", "solver=power"],
        ["solver.name=power", "solver.alpha = 0.9"],
        ['solver="power"', "solver.alpha=0.9"],
        ["solver={name = 'power', alpha = 0.9}"],
    ],
)
def test_set_in_any_order_and_form(overrides: list[str]) -> None:
    recipe = load_recipe("digits", overrides)
    assert (recipe.solver.name, recipe.solver.params["alpha"]) == ("power", 0.9)


def test_set_values_are_toml_or_else_text() -> None:
    recipe = load_recipe(
        "digits",
        [
            "description=two words, no quotes",
            "training.channels_last=true",
            "training.batch_size=64",
        ],
    )
    assert recipe.description == "two words, no quotes"
    assert recipe.training.channels_last is True
    assert recipe.training.batch_size == 64


def test_the_last_set_wins() -> None:
    assert load_recipe("digits", ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize("text", ["solver", "=3", ".alpha=3", "solver.=3", "solver..alpha=1", ""])
def test_malformed_set(text: str) -> None:
    with pytest.raises(RecipeError, match="write key=value, for example --set solver.alpha=0.9"):  # noqa: RUF043
        load_recipe("digits", [text])


def test_set_a_key_of_a_plain_value(write: Write) -> None:
    assert "--set: seed: a key of it is set, but mine.toml says 1" in problems(
        write("seed = 1"), "seed.x=1"
    )
    with pytest.raises(RecipeError, match="'seed' was given a plain value before"):
        load_recipe("digits", ["seed=1", "seed.x=1"])


# -- what is wrong --------------------------------------------------------------------------------

WRONG = {
    "seed = -1": "seed: found -1; allowed: greater than or equal to 0",
    "seed = 1.5": "seed: found 1.5; allowed: a valid integer",
    "seed = true": "seed: found true",
    'seed = "1"': 'seed: found "1"',
    "sede = 1": "sede: unknown key (found 1). Did you mean 'seed'?",
    "params = 1": "params: unknown key",
    "solver = 3": "solver: found 3; allowed: a component's name, or a table",
    "training = 3": "training: found 3; allowed: a table",
    "[trainning]\nx = 1": "Did you mean 'training'?",
    "[optimizer]\nlearning_rat = 1": "Did you mean 'learning_rate'?",
    "[optimizer]\nlearning_rate = inf": "optimizer.learning_rate: found Infinity; allowed: a fin",
    "[optimizer]\nlearning_rate = nan": "optimizer.learning_rate: found NaN",
    "[optimizer]\nlearning_rate = 0": "optimizer.learning_rate: found 0",
    "[optimizer]\nmomentum = 1.0": "optimizer.momentum: found 1.0; allowed: less than 1",
    "[training]\nchannels_last = 1": "training.channels_last: found 1",
    "[training]\ncompile = 'fast'": "allowed: a valid boolean or 'reduce-overhead'",
    "[training]\nprecision = 'float23'": "(did you mean 'float32'?)",
    "[training]\nbatch_size = 10\nlabeled_per_batch = 10": "must be less than batch_size (10)",
    "[source]\nname = 'grpah'": "Did you mean 'graph'?",
    "[augmentation]\ntranslat = 1": "Did you mean 'translate'?",
    "[dataset]\nname = 'digist'": "Did you mean 'digits'?",
    "[dataset]\nnum_labeled = 0": "dataset.num_labeled: found 0",
    "[dataset]\nnum_labelled = 5": "Did you mean 'num_labeled'?",
    "[solver]\nname = 'cgg'": "solver.name: There is no solvers component 'cgg'. Did you mean 'cg'",
    "[solver]\nname = 'cg:x'": "takes no ':x'",
    "[solver]\nname = 3": "solver.name: found 3",
    "[solver]\nname = ''": "There is no solvers component ''",
    "[solver]\nalpha = 1.0": "solver.alpha: found 1.0; allowed: less than 1",
    "[solver]\nalpha = '0.9'": 'solver.alpha: found "0.9"; allowed: a valid number',
    "[solver]\nalpha = inf": "solver.alpha: found",
    "[solver]\nalpha = [1, 2]": "solver.alpha: found [1, 2]",
    "[solver]\nalpha = 1979-05-27": "solver.alpha: found",
    "[solver.alpha]\nx = 1": "solver.alpha: found",
    "[solver]\ntolerence = 1": "Did you mean 'tolerance'?",
    "[solver]\nparams = {}": "solver.params: unknown key",
    "[[solver]]\nalpha = 0.9": "solver: found",
}


@pytest.mark.parametrize("text", WRONG)
def test_one_problem_names_file_key_found_and_allowed(text: str, write: Write) -> None:
    message = problems(write(text))
    assert message.startswith("mine.toml: ")
    assert WRONG[text] in message
    assert "\n" not in message


def test_an_unknown_key_lists_all_that_are_allowed(write: Write) -> None:
    message = problems(write("[solver]\nx = 1"))
    assert message.endswith("Allowed: alpha, max_iterations, name, tolerance.")
    top = problems(write("x = 1"))
    assert all(key in top for key in Recipe.model_fields)


def test_all_problems_at_once(write: Write) -> None:
    path = write(
        "sede = 1\n"
        "[dataset]\nname = 'digist'\n"
        "[solver]\nalpha = 1.5\nmax_iterations = 'many'\nfoo = 1\n"
        "[training]\nbatch_size = 0\nprecision = 'half'\n"
    )
    message = problems(path, "graph.k=0", "weighter=entrpy")
    assert message.startswith("9 problems:")
    for key in (
        "sede", "dataset.name", "solver.alpha", "solver.max_iterations", "solver.foo",
        "training.batch_size", "training.precision", "graph.k", "weighter.name",
    ):  # fmt: skip
        assert f" {key}: " in message


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_empty_file(text: str, write: Write) -> None:
    message = problems(write(text))
    assert "mine.toml: the recipe is empty" in message
    assert 'extends = "digits.toml"' in message


def test_not_toml(write: Write, tmp_path: Path) -> None:
    assert "mine.toml: not valid TOML: " in problems(write("[solver\nalpha = 1"))
    assert "line 2" in problems(write("a = 1\na = 2\n"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00x")
    assert "binary.toml: not valid TOML" in problems(tmp_path / "binary.toml")


def test_a_required_parameter(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "_components", dict(solvers._components))

    @solvers.register("needs")
    def needs(path: str, name_of_it: str = "x") -> object: ...

    assert "mine.toml: solver.path: is required" in problems(write("[solver]\nname = 'needs'"))
    assert load_recipe(write("[solver]\nname='needs'\npath='p'")).solver.params["path"] == "p"


def test_a_parameter_that_the_recipe_itself_uses(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solvers, "_components", dict(solvers._components))
    solvers.register("clash")(lambda name="x": None)
    assert "'clash' has a parameter of a name that the recipe itself uses: name" in problems(
        write("[solver]\nname = 'clash'")
    )


def test_missing_packages_are_all_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (solvers, of_kind("weighter")):
        monkeypatch.setattr(kind, "_components", dict(kind._components))
        kind.register("needy", requires=("not_there",), extra="amg")(lambda: None)
    recipe = load_recipe("digits", ["solver=needy", "weighter=needy"])  # names and types are right
    with pytest.raises(MissingDependency) as caught:
        check_dependencies(recipe)
    assert str(caught.value).count("pip install 'pyamg>=5.2'") == 2


# -- finding --------------------------------------------------------------------------------------


def test_found_by_name_and_by_path(write: Write) -> None:
    assert find_recipe("digits") == find_recipe("digits.toml")
    assert find_recipe(write("seed = 1")).name == "mine.toml"
    assert "digits" in recipe_names()
    assert not any(name.startswith("_") for name in recipe_names())


@pytest.mark.parametrize("name", ["digit", "nope", "", "/", "..", "a" * 300, "a\0b", "x.toml"])
def test_no_such_recipe(name: str) -> None:
    with pytest.raises(UsageError, match="There is no recipe") as caught:
        load_recipe(name)
    assert "digits" in str(caught.value)


def test_an_installed_wheel_carries_the_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"recipes": "dlp_plugins/_recipes"}
    (tmp_path / "_recipes").mkdir()
    (tmp_path / "_recipes/carried.toml").write_text("seed = 4")
    monkeypatch.setattr(recipe_files, "__file__", str(tmp_path / "recipe" / "files.py"))
    assert recipe_names() == ["carried"]
    assert load_recipe("carried").seed == 4


def test_nearest_recipe() -> None:
    with pytest.raises(UsageError, match=r"Did you mean 'digits'\?"):
        find_recipe("recipes/diigts.toml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(write: Write) -> None:
    path = write("seed = 1")
    path.chmod(0)
    assert "cannot be read" in problems(path)


def test_a_recipe_never_names_code(write: Write) -> None:
    """No key of a recipe takes a file of code: `plugin` and the like are unknown keys."""
    for key in ("plugin", "plugins", "import", "module"):
        assert f"mine.toml: {key}: unknown key" in problems(write(f"{key} = 'x.py'"))


@pytest.mark.parametrize("kind", [of_kind(key) for key in PARTS], ids=lambda k: k.kind)
def test_every_component_can_be_checked(kind: Registry) -> None:
    for name in kind.names():
        try:
            component = kind.find(name)
        except DlpError as error:
            pytest.fail(str(error))
        assert component.summary, f"{kind.kind} {name} has no docstring"
        for p in component.parameters:
            assert p.annotation is not inspect.Parameter.empty
        assert set(component.model.model_fields) == {p.name for p in component.parameters}


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("lp_cifar10", "both"), ("mt_lp_cifar100", "both"), ("mt_lp_mini_imagenet", "second"),
        ("digits", "none"), ("quick_cifar10", "none"), ("strong_lp_cifar10", "none"),
    ],
)  # fmt: skip
def test_the_papers_recipes_normalise_the_heads_weights_as_the_authors(
    name: str, heads: str
) -> None:
    assert load_recipe(name).backbone.weight_norm_heads == heads
    # the same recipes scale certainty over all points, as the authors' code does
    scale = "unlabeled" if heads == "none" else "all"
    assert load_recipe(name).pseudo_labels.certainty_scale == scale


def test_strong_lp_takes_the_schedule_of_fixmatch() -> None:
    assert load_recipe("strong_lp_cifar10").schedule.name == "fixmatch"
    assert load_recipe("lp_cifar10").schedule.params["zero_epoch"] == 210


def test_a_key_of_a_component_that_was_unset_is_the_defaults(write: Write) -> None:
    recipe = load_recipe(write('extends = "digits.toml"\nsolver = "unset"'), ["solver.alpha=0.5"])
    assert recipe.solver.params["alpha"] == 0.5


def test_settings_stay_as_they_were_given() -> None:
    given = {"solver": {"name": "power"}, "solver.alpha": 0.5}
    assert load_recipe("digits", given).solver.params["alpha"] == 0.5
    assert given == {"solver": {"name": "power"}, "solver.alpha": 0.5}
