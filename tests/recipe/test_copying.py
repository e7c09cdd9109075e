"""`dlp cp`: the copy is the recipe, wherever it lies, and nothing of the user's is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dlp_cli.app import app
from typer.testing import CliRunner

from dlp_plugins.errors import UsageError
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.recipe.copying import copy_recipe
from dlp_plugins.recipe.files import find_recipe, recipe_names


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_as_it_stands(name: str, own_folder: Path) -> None:
    copy = copy_recipe(name, own_folder / "mine.toml")
    assert copy.read_text() == find_recipe(name).read_text()  # its comment too
    assert load_recipe(copy) == load_recipe(name)


def test_the_command_copies_and_never_replaces_unasked(own_folder: Path) -> None:
    done = CliRunner().invoke(app, ["cp", "digits", "mine"])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == ["wrote mine.toml", "Its settings: dlp check mine.toml"]
    mine = own_folder / "mine.toml"
    mine.write_text(mine.read_text() + "# my own\n")
    with pytest.raises(UsageError, match="exists already"):
        copy_recipe("digits", mine)
    assert mine.read_text().endswith("# my own\n")
    assert CliRunner().invoke(app, ["cp", "digits", "mine.toml", "--overwrite"]).exit_code == 0
    assert mine.read_text() == find_recipe("digits").read_text()


def test_the_command_it_prints_can_be_pasted(own_folder: Path) -> None:
    (own_folder / "my recipes").mkdir()
    done = CliRunner().invoke(app, ["cp", "digits", "my recipes/"])
    assert done.stdout.splitlines()[-1] == "Its settings: dlp check 'my recipes/digits.toml'"


def test_into_a_folder_under_its_own_name(own_folder: Path) -> None:
    assert copy_recipe("digits", own_folder) == own_folder / "digits.toml"


def test_a_copy_named_as_its_base_does_not_extend_itself(own_folder: Path) -> None:
    copy = copy_recipe("mt_digits", "digits.toml")
    assert load_recipe(copy) == load_recipe("mt_digits")
    assert copy.read_text().count('extends = "digits"') == 1
    changed = copy.read_text().replace('extends = "digits"', 'extends = "digits.toml"')
    assert changed == find_recipe("mt_digits").read_text()


def test_a_file_beside_the_copy_does_not_become_its_base(own_folder: Path) -> None:
    (own_folder / "digits.toml").write_text('extends = "digits"\nseed = 7\n')
    copy = copy_recipe("mt_digits", "mine.toml")
    assert load_recipe(copy) == load_recipe("mt_digits")
    assert load_recipe(copy).seed == 0


def test_a_recipe_of_the_users_own_from_another_folder(own_folder: Path) -> None:
    (own_folder / "a").mkdir()
    (own_folder / "b").mkdir()
    (own_folder / "a/base.toml").write_text('extends = "digits.toml"\nseed = 3\n')
    top = "# mine\nextends = 'base.toml'  # beside it\ndescription = 'extends = \"no\"'\n"
    (own_folder / "a/top.toml").write_text(top)
    copy = copy_recipe("a/top.toml", "b")
    assert copy.read_text() == top.replace("'base.toml'", '"../a/base.toml"')
    os.rename("b", "c")  # relative, so that both may move together
    assert load_recipe("c/top.toml").seed == 3


@pytest.mark.parametrize(
    ("recipe", "file", "message"),
    [
        ("digist", "x.toml", "Did you mean 'digits'"),
        ("digits", "x.json", "a recipe is written as .toml"),
        ("digits", "no/x.toml", "there is no folder no"),
        ("digits", "no/", "no/: there is no such folder"),
        ("broken.toml", "x.toml", "broken.toml: not valid TOML"),
        ("lost.toml", "x.toml", "lost.toml: extends: found 'nowhere'"),
        ("lost.toml", "lost.toml", "exists already"),
    ],
)
def test_what_cannot_be_copied(recipe: str, file: str, message: str, own_folder: Path) -> None:
    (own_folder / "broken.toml").write_text("x = [")
    (own_folder / "lost.toml").write_text('extends = "nowhere"')
    with pytest.raises(UsageError, match=message):
        copy_recipe(recipe, file)
    assert not (own_folder / file).exists() or recipe == file


def test_a_recipe_is_not_copied_onto_itself(own_folder: Path) -> None:
    copy = copy_recipe("digits", "mine.toml")
    with pytest.raises(UsageError, match="is the recipe itself"):
        copy_recipe("mine.toml", own_folder, overwrite=True)
    assert load_recipe(copy) == load_recipe("digits")
