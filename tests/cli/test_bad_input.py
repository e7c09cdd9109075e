"""Files of strangers and slips of the pen, at the command line: a sentence, and nothing is lost."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlp_cli.app import app
from typer.testing import CliRunner

from dlp_plugins.bench.suite import load_suite, suite_of_recipe
from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.embeddings.labels import read_labels
from dlp_plugins.embeddings.prior import open_prior
from dlp_plugins.embeddings.scores import Scores
from dlp_plugins.errors import DataError, DlpError, LabelError, SaveError
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.recipe.files import RecipeError, parse_settings, parse_toml

LONG = "a" * 300  # more letters than a file's name may have


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 points with 4 labels, in the working directory."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32))
    Path("y.csv").write_text("\n".join([*"0123", *[""] * 36]) + "\n")
    return tmp_path


# -- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = " + "[" * 100_000, "nested too deep"),
        ("seed = " + "1" * 5000, "4300 digits"),
        ("a" + ".a" * 100_000 + " = 1", "more than 64 parts"),
        ("[" + "a." * 100_000 + "b]", "more than 64 parts"),
        ("#" * 2**21, "at most 1,048,576 are read"),
        ("x = '\x00'", "not valid TOML"),
    ],
    ids=["deep", "digits", "dots", "table", "large", "control character"],
)
def test_a_recipe_that_would_take_long_is_refused_at_once(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "made.toml"
    path.write_text(text)
    for read in (load_recipe, load_suite):
        with pytest.raises(RecipeError, match=f"made.toml: not valid TOML: .*{said}|{said}"):
            read(path)


def test_many_words_without_a_dot_are_no_key() -> None:
    words = "a b. " * 20_000  # looking for a key would take minutes, were it not linear
    assert parse_toml(f"description = '{words}'") == {"description": words}


@pytest.mark.parametrize("text", ["a=" + "[" * 100_000, "a=" + "1" * 5000, "a" + ".a" * 99 + "=1"])
def test_the_same_in_a_setting(text: str) -> None:
    with pytest.raises(RecipeError, match="--set"):
        parse_settings([text])


def test_a_suite_has_a_bounded_number_of_runs(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text("recipe = 'digits'\nseeds = 1000000000\n")
    with pytest.raises(RecipeError, match="seeds: found 1000000000"):
        load_suite(path)
    with pytest.raises(RecipeError, match="1,000,000,000 runs were asked for"):
        suite_of_recipe("digits", [], seeds=10**9)


def test_a_huge_learning_rate_is_a_divergence(dlp: Any, tmp_path: Path) -> None:
    words = ["run", "digits", "--out", tmp_path / "run", "--set", "backbone=mlp"]
    for setting in (
        "optimizer.learning_rate=1e300", "dataset.num_train=40", "dataset.num_test=20",
        "dataset.num_labeled=12", "training.stage_one_epochs=1", "training.stage_two_epochs=0",
    ):  # fmt: skip
        words += ["--set", setting]
    done = dlp(*words)
    assert done.code != 0
    assert done.err.startswith("error: ")
    assert "mistake in dlp" not in done.err


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["run", LONG], ["check", LONG], ["bench", LONG], ["run", "digits", "--out", LONG],
        ["run", "digits", "--plugin", LONG], ["embed", LONG, "--out", "o.npy"],
        ["embed", ".", "--out", f"{LONG}.npy"], ["report", LONG, "--out", "r.html"],
        ["propagate", f"{LONG}.npy", "--labels", "y.csv", "--out", "o.csv"],
        ["propagate", "x.npy", "--labels", f"{LONG}.csv", "--out", "o.csv"],
        ["propagate", "x.npy", "--labels", "y.csv", "--out", f"{LONG}.csv"],
        ["predict", LONG, ".", "--out", "o.csv"], ["export", LONG, "--out", "o.onnx"],
        ["assign", LONG, "x.npy", "--out", "o.csv"], ["run", "\udcff"], ["run", "a/\udcff.toml"],
        ["propagate", "\udcff.npy", "--labels", "y.csv", "--out", "o.csv"],
    ],
    ids=lambda words: " ".join(words)[:30].encode("ascii", "replace").decode(),
)  # fmt: skip
def test_names_that_no_file_can_have(words: list[str], dlp: Any, at_home: Path) -> None:
    done = dlp(*words)
    assert done.code != 0
    assert "error" in done.err.lower()
    assert "mistake in dlp" not in done.err
    assert sorted(p.name for p in at_home.iterdir()) == ["x.npy", "y.csv"]


def test_a_plug_in_is_a_file_of_python(dlp: Any, at_home: Path) -> None:
    (at_home / "x.so").write_bytes(b"\x7fELF")
    done = dlp("list", "--plugin", "x.so")
    assert (done.code, done.err) == (
        2, "error: --plugin x.so: not a Python file (its name must end in .py).\n",
    )  # fmt: skip


def test_a_number_of_classes_has_a_bound(dlp: Any, at_home: Path) -> None:
    words = ["propagate", "x.npy", "--labels", "y.csv", "--out", "o.csv"]
    done = dlp(*words, "--classes", "1000000000")
    assert done.code == 1
    assert "1,000,000,000 classes were asked for of 40 points" in done.err


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("propagate x.npy --labels y.csv --out y.csv", "--labels"),
        ("propagate x.npy --labels y.csv --ids z.csv --out z.csv", "--ids"),
        ("propagate x.npy --labels y.csv --out ./y.csv", "--labels"),
        ("audit x.npy --labels y.csv --out y.csv", "--labels"),
        ("suggest x.npy --labels y.csv --out y.csv", "--labels"),
        ("suggest x.parquet --out x.parquet", "EMBEDDINGS"),
        ("graph build x.npz --out x.npz", "EMBEDDINGS"),
        ("assign i.safetensors x.parquet --out x.parquet", "NEW"),
    ],
)
def test_what_is_read_is_never_replaced(dlp: Any, at_home: Path, words: str, option: str) -> None:
    for name in ("z.csv", "x.parquet", "x.npz", "i.safetensors"):
        (at_home / name).write_text("kept")
    before = {p.name: p.read_bytes() for p in at_home.iterdir()}
    done = dlp(*words.split(), "--overwrite")
    assert done.code == 2
    assert f"this command reads it ({option})" in done.err
    assert {p.name: p.read_bytes() for p in at_home.iterdir()} == before


@pytest.mark.parametrize("command", ["propagate", "audit"])
def test_a_folder_is_no_table(dlp: Any, at_home: Path, command: str) -> None:
    for out in (".", "/"):
        done = dlp(command, "x.npy", "--labels", "y.csv", "--out", out)
        assert (done.code, done.err) == (
            2, f"error: {out}: the table is written as .csv or .parquet.\n",
        )  # fmt: skip


def test_what_no_command_has_foreseen_names_the_file(
    dlp: Any, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "x.npy")

    monkeypatch.setattr("dlp_plugins.embeddings.run.prepare", refuse)
    done = dlp("propagate", "x.npy", "--labels", "y.csv", "--out", "o.csv")
    assert (done.code, done.err) == (1, "error: x.npy: Permission denied.\n")


# -- arrays and tables ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Python's own parser
def test_damage_in_the_header_of_an_array_is_a_sentence(tmp_path: Path) -> None:
    path, raw = tmp_path / "x.npy", io.BytesIO()
    np.save(raw, np.eye(3))
    for at in range(0, 128, 3):
        for value in (0, 10, 40, 255):
            damaged = bytearray(raw.getvalue())
            damaged[at] = value
            path.write_bytes(damaged)
            for read in (lambda: open_embeddings(path).load(), lambda: read_labels(path, 3)):
                with contextlib.suppress(DlpError):  # in the padding it does no harm
                    read()


def test_a_single_value_is_no_array(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.float32(1))
    np.savez(tmp_path / "y.npz", label=np.arange(3), weight=np.float32(1))
    np.savez(tmp_path / "z.npz", label=np.float32(1))
    for name in ("y.npy", "y.npz", "z.npz"):
        with pytest.raises(DataError, match="a single value"):
            read_labels(tmp_path / name, 3)


def test_another_zip_is_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for name, contents in (("a.txt", b"hello"), ("a.npy", b"hello"), ("a.npy", b"")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, contents)
        for read in (lambda: open_embeddings(path), lambda: read_labels(path, 3)):
            with pytest.raises(DataError, match=r"x\.npz: cannot be read as \.npz"):
                read()


def bomb(path: Path, **rows: int) -> None:
    """Arrays [rows, 1000] float64 of zeros, well compressed, made without holding them."""
    block = bytes(8 * 1000 * 1000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, count in rows.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": "<f8", "fortran_order": False, "shape": (count, 1000)}
                np.lib.format.write_array_header_1_0(file, header)
                for _ in range(count // 1000):
                    file.write(block)


def test_a_small_archive_of_a_large_array_is_refused_by_its_header(dlp: Any, at_home: Path) -> None:
    bomb(at_home / "bomb.npz", x=20_000)  # 160 MB
    assert (at_home / "bomb.npz").stat().st_size < 2e6
    words = ["propagate", "bomb.npz", "--labels", "y.csv", "--out", "o.csv"]
    done = dlp(*words, "--memory", "100MB")
    assert done.code == 1
    assert "bomb.npz: takes 160.0 MB once it is unpacked" in done.err


def test_of_an_archive_only_what_is_used_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb(tmp_path / "two.npz", x=1000, huge=2000)
    assert open_embeddings(tmp_path / "two.npz", "x", budget=9e6).points == 1000
    free = type("Memory", (), {"available": 9e6})
    monkeypatch.setattr("dlp_plugins._files.npz.psutil.virtual_memory", lambda: free)
    with pytest.raises(DataError, match="once it is unpacked"):
        open_embeddings(tmp_path / "two.npz", "huge")
    with pytest.raises(DataError, match="once it is unpacked"):
        open_prior(tmp_path / "two.npz", 1000)


def test_a_header_that_claims_too_much_allocates_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive, archive.open("x.npy", "w") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12, 1000)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(DataError, match="once it is unpacked"):
        open_embeddings(tmp_path / "x.npz")


def test_a_sparse_prior_with_indices_beyond_its_size_is_refused(tmp_path: Path) -> None:
    """SciPy's C code would read and write outside the arrays."""
    parts = {"indices": [0, 999_999], "indptr": [0, 1, 2], "format": b"csr", "data": [1.0, 1.0]}
    np.savez(tmp_path / "p.npz", shape=[2, 3], **parts)
    with pytest.raises(DataError, match=r"p\.npz: cannot be read"):
        open_prior(tmp_path / "p.npz", 2)


def test_long_lists_of_equal_numbers_in_parquet_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = pa.array(np.zeros(1_000_000, np.float32))
    lists = pa.ListArray.from_arrays(pa.array([0, 500_000, 1_000_000], pa.int32()), row)
    pq.write_table(pa.table({"v": lists, "label": [0, 1]}), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 10_000
    assert open_embeddings(tmp_path / "x.parquet").dim == 500_000
    free = type("Memory", (), {"available": 4e6})
    monkeypatch.setattr("dlp_plugins._files.npz.psutil.virtual_memory", lambda: free)
    with pytest.raises(DataError, match="once it is unpacked"):
        open_embeddings(tmp_path / "x.parquet")
    pq.write_table(pa.table({"label": np.zeros(100_000, np.int8)}), tmp_path / "y.parquet")
    with pytest.raises(DataError, match="once it is unpacked"):
        read_labels(tmp_path / "y.parquet", 100_000)


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"\n", b"\xff\xfe", b"\x00"])
def test_a_table_of_nothing_is_a_sentence(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_bytes(raw)
    with pytest.raises((DataError, LabelError), match=r"y\.csv"):
        read_labels(tmp_path / "y.csv", 3)


def test_a_scratch_file_that_cannot_be_made_is_a_save_error(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="scratch file for class scores cannot be made"):
        Scores(tmp_path / "gone")


# -- names that are commands ----------------------------------------------------------------------


def test_a_formula_for_a_name_is_text_in_every_table(at_home: Path) -> None:
    Path("y.csv").write_text("\n".join(["=cmd|'/C calc'!A0", "+1+1", *[""] * 38]) + "\n")
    done = CliRunner().invoke(
        app, ["propagate", "x.npy", "--labels", "y.csv", "--out", "o.csv", "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    cells = [cell for line in Path("o.csv").read_text().splitlines() for cell in line.split(",")]
    assert any(cell.startswith("'=cmd") for cell in cells)
    assert not [cell for cell in cells if cell.startswith(("=", "+"))]


def test_an_escape_sequence_in_a_file_is_written_out(dlp: Any, at_home: Path) -> None:
    Path("y.csv").write_text("\n".join(["\x1b[2Jcat", "dog\x07", *[""] * 38]) + "\n")
    done = dlp("propagate", "x.npy", "--labels", "y.csv", "--out", "o.csv", "--device", "cpu")
    assert done.code == 0, done.err
    assert "\\x1b[2Jcat" in done.out
    assert "\x1b" not in done.out + done.err
    Path("y.csv").write_text("0,\x1b[2Jcat\n0,dog\n")
    done = dlp("propagate", "x.npy", "--labels", "y.csv", "--out", "p.csv")
    assert done.code == 1
    assert "\\x1b[2Jcat" in done.err
    assert "\x1b" not in done.err


# -- components that fail -------------------------------------------------------------------------

FAILING = """
    from dlp_plugins.registry import weighters, solvers
    from dlp_plugins.weighters.contract import Weighter

    @weighters.register("failing")
    class Failing(Weighter):
        '''Fails.'''
        def certainty(self, probabilities):
            return {}["certainty"]

    @solvers.register("unbuilt")
    def unbuilt():
        '''Cannot be built.'''
        return 1 / 0
"""


@pytest.fixture
def failing(plugin: Any) -> Path:
    return plugin(FAILING)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("weighter=failing", "weighters 'failing' ({}, line 9, in certainty) raised KeyError"),
        ("solver=unbuilt", "solvers 'unbuilt' ({}, line 14, in unbuilt) raised ZeroDivisionError"),
    ],
)
def test_a_component_that_raises_is_named(
    setting: str, named: str, failing: Path, dlp: Any, at_home: Path
) -> None:
    words = ["--plugin", failing, "--set", setting]
    done = dlp("propagate", "x.npy", "--labels", "y.csv", "--out", "o.csv", *words)
    assert done.code == 1
    assert f"error: {named.format(failing)}" in done.err
    assert done.err.endswith("DLP_TRACEBACK=1 in the environment shows where.\n")
    assert not (at_home / "o.csv").exists()


def test_the_traceback_is_shown_on_request(
    failing: Path, dlp: Any, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLP_TRACEBACK", "1")
    words = ["--plugin", failing, "--set", "weighter=failing"]
    with pytest.raises(KeyError):
        dlp("propagate", "x.npy", "--labels", "y.csv", "--out", "o.csv", *words)


def test_a_mistake_of_ours_is_a_sentence_too(
    dlp: Any, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("cannot be")

    monkeypatch.setattr("dlp_plugins.embeddings.run.prepare", fail)
    done = dlp("propagate", "x.npy", "--labels", "y.csv", "--out", "o.csv")
    assert done.code == 1
    assert done.err.startswith("error: RuntimeError: cannot be. This is a mistake in dlp")
