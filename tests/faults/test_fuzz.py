"""Made-up recipes, arguments, labels, embeddings and images: a result or a DlpError, never else."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
import torch
import typer
from amounts import EXAMPLES
from dlp_cli.app import app
from dlp_cli.settings import tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from places import ROOT
from safetensors.torch import save
from typer.testing import CliRunner

from dlp_plugins.datasets._files import FORMATS, FileReader
from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.embeddings.ids import read_ids
from dlp_plugins.embeddings.labels import read_labels
from dlp_plugins.embeddings.prior import open_prior
from dlp_plugins.errors import DlpError
from dlp_plugins.recipe.build import build_propagator
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.recipe.model import PARTS
from dlp_plugins.registry import of_kind
from dlp_plugins.training.run import run

LONGEST_MESSAGE = 10_000  # characters: a message is read by a person
# Without a database: what a failure needs is in its message, and CI's folders are thrown away.
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 100,  # the same inputs in every CI run
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
few = settings(fuzz, max_examples=max(10, EXAMPLES // 10))


def attempt(work: Callable[[], Any]) -> Any:
    """The result, or None where it was refused in a sentence; any other exception is a failure."""
    try:
        return work()
    except DlpError as error:
        check_message(str(error))
        return None


def check_message(text: str) -> None:
    assert text.strip()
    assert "Traceback" not in text
    assert len(text) < LONGEST_MESSAGE, text[:500]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# -- recipes --------------------------------------------------------------------------------------

WILD = st.one_of(
    st.integers(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, -(2**63), 10**9, 10**400]),
    st.floats(),
    st.sampled_from([1e300, -1e300, 1e-300, 0.0, 1.0, 0.5]),
    st.booleans(),
    st.text(max_size=20),
    st.sampled_from(["", "unset", "all", "..", "/dev/zero", "a" * 300, "\x00", "none", "[b]"]),
    st.dates(),
)
NESTED = st.recursive(
    WILD,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def known_keys() -> list[str]:
    """Dotted keys of every table and parameter."""
    keys = []
    for table in tables():
        prefix = f"{table.key}." if table.key else ""
        keys += [prefix + s.key for s in table.settings() if s.key != "extends"]
    for key in PARTS:
        for name in of_kind(key).names():
            keys += [f"{key}.{p.name}" for p in of_kind(key).find(name).parameters]
    return sorted({*keys, *PARTS, "tracker"})


def component_names() -> list[str]:
    return sorted({name for key in PARTS for name in of_kind(key).names()})


KEYS = known_keys()
SETTING = st.tuples(
    st.sampled_from(KEYS) | st.text(max_size=12), NESTED | st.sampled_from(component_names())
)


def nest(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        *inner, last = key.split(".")
        table: Any = found
        for k in inner:
            table = table.setdefault(k, {})
            if not isinstance(table, dict):
                break
        else:
            table[last] = value
    return found


@st.composite
def recipe_texts(draw: st.DrawFn) -> bytes:
    match draw(st.integers(0, 3)):
        case 0:
            return draw(st.binary(max_size=200))
        case 1:  # a real recipe, some bytes of which are others
            path = draw(st.sampled_from(sorted((ROOT / "recipes").glob("*.toml"))))
            raw = bytearray(path.read_bytes())
            for _ in range(draw(st.integers(1, 6))):
                raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
            return bytes(raw)
        case _:
            made = nest(draw(st.lists(SETTING, max_size=5)))
            made |= {"extends": "digits"} if draw(st.booleans()) else {}
            return tomli_w.dumps(made).encode(errors="surrogatepass")


@fuzz
@given(recipe_texts())
def test_recipes(place: Path, text: bytes) -> None:
    path = place / "made.toml"
    path.write_bytes(text)
    recipe = attempt(lambda: load_recipe(path))
    if recipe is not None:
        again = place / "again.toml"
        again.write_text(recipe.to_toml())
        assert load_recipe(again) == recipe.model_copy(update={})
        attempt(lambda: build_propagator(recipe))


SMALL = {
    "dataset.num_train": 40, "dataset.num_test": 20, "dataset.num_labeled": 12, "backbone": "mlp",
    "training.stage_one_epochs": 1, "training.stage_one_steps": 2, "training.stage_two_epochs": 1,
    "training.batch_size": 20, "training.labeled_per_batch": 10, "training.workers": 0,
    "graph.k": 5,
}  # fmt: skip
EXTREME = st.sampled_from([
    0, 1, 2, 50, 10**6, 0.0, 1e-300, 1e-12, 0.5, 0.999999, 1.0, 3.0, 1e6, 1e300, True, False,
])  # fmt: skip
LONG = ("dataset", "backbone", "tracker")  # others may take hours, or fetch something
HOURS = {"max_iterations", "passes", "power_iterations", "seed"}  # as many as are asked for


@st.composite
def allowed_changes(draw: st.DrawFn) -> dict[str, Any]:
    """Components with extreme parameters, each of which the check of a recipe lets through."""
    found: dict[str, Any] = dict(SMALL)
    for key in draw(st.lists(st.sampled_from([k for k in PARTS if k not in LONG]), max_size=3)):
        name = draw(st.sampled_from([n for n in of_kind(key).names() if n not in NOT_HERE]))
        settings = {f"{key}.{p}": draw(EXTREME) for p in parameters(key, name)}
        for setting in ({key: name}, *({k: v} for k, v in settings.items())):
            with contextlib.suppress(DlpError):
                load_recipe("digits", found | setting)
                found |= setting
    return found


NOT_HERE = {"usb", "torch_sparse", "torch"}  # need packages of their own


def parameters(key: str, name: str) -> list[str]:
    return [p.name for p in of_kind(key).find(name).parameters if p.name not in HOURS]


@few
@given(allowed_changes())
@pytest.mark.filterwarnings("ignore")
def test_training_by_any_recipe_that_is_allowed(place: Path, changes: dict[str, Any]) -> None:
    """Extreme numbers pass the check of a recipe: then training ends, or says why not."""
    shutil.rmtree(place / "run", ignore_errors=True)
    attempt(lambda: run("digits", place / "run", device="cpu", **changes))


# -- arguments ------------------------------------------------------------------------------------

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WORDS = st.one_of(
    st.text(st.characters(exclude_characters="\0"), max_size=12),  # no argument can hold one
    st.sampled_from([
        "", "-", "--", "digits", "x.npy", "y.csv", "out.csv", "out.parquet", "new.toml", "photos",
        "a.safetensors", "\udcff", "\x1b[2J", "a" * 300, "/dev/zero", "/dev/full", "..", ".", "~",
        "nan", "-1", "0", "1", "3", "1e9", "999999999999999999999", "solver=cg", "solver.alpha=2",
        "a=b", ".=1", "=", "1GB", "cpu", "student", "skip", "100", "10M", "hf:x",
    ]),
)  # fmt: skip


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    name = draw(st.sampled_from(sorted(COMMANDS)))
    options = [o for p in COMMANDS[name].params for o in p.opts if o.startswith("-")]
    words = [name]
    if name in ("propagate", "audit", "suggest", "explain") and draw(st.booleans()):
        words += ["x.npy", "--labels", "y.csv", "--overwrite"]
        words += ["--out", "out.csv"] if name != "explain" else ["--point", "3"]
    for _ in range(draw(st.integers(0, 4))):
        words.append(draw(st.sampled_from(["--help", *options]) | WORDS))
        if draw(st.booleans()):
            words.append(draw(WORDS))
    return words


@pytest.fixture(scope="module")
def at_home(place: Path) -> Iterator[Path]:
    """A folder with a few good files, in which the commands run; what takes long is left out."""
    folder = place / "home"
    folder.mkdir()
    x = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    np.save(folder / "x.npy", x)
    (folder / "y.csv").write_text("\n".join([*"0123", *[""] * 36]) + "\n")
    (folder / "photos").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "photos" / "a.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for slow in (
            "dlp_plugins.training.run.train",
            "dlp_plugins.bench.runner.run_suite",
            "dlp_plugins.labeling.run.serve",
            "dlp_plugins.embeddings.plan.measure",
        ):
            patch.setattr(slow, stopped)
        yield folder


def stopped(*_: Any, **__: Any) -> Any:
    raise DlpError("so far all was right, and this would take long")


@fuzz
@given(command_lines())
@pytest.mark.filterwarnings("ignore")
def test_arguments(at_home: Path, words: list[str]) -> None:
    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, DlpError):
        check_message(str(done.exception))
    elif not isinstance(done.exception, SystemExit) and done.exception is not None:
        raise done.exception


# -- labels, ids, scores --------------------------------------------------------------------------

N = 6
CELL = st.one_of(
    st.text(max_size=5), st.integers().map(str), st.floats().map(str),
    st.sampled_from(["", "-1", "label", "index", "id", "file", "weight", "0", "1", "nan", "inf"]),
)  # fmt: skip
DTYPES = st.sampled_from([
    "<f2", "<f4", ">f8", "<i1", "<u8", "<i8", "?", "<c8", "<U3", "S4", "<M8[s]", "<m8[D]", "V3",
    "<f4,<i2", "O",
])  # fmt: skip


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 2, 3, N]), max_size=3)))
    kind = np.dtype(draw(DTYPES))
    size = int(np.prod(shape)) * kind.itemsize
    if kind.hasobject:
        return np.full(shape, None)
    seed = draw(st.binary(min_size=1, max_size=16))
    raw = (seed * (size // len(seed) + 1))[:size]
    return np.frombuffer(raw, kind).reshape(shape).copy()


@st.composite
def columns(draw: st.DrawFn) -> pa.Table:
    names = st.sampled_from(["label", "index", "id", "weight", "f0", "f1", "vector", "image", ""])
    kinds = st.sampled_from([
        st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=4), st.none(),
        st.binary(max_size=4), st.booleans(), st.dates(), st.decimals(-9, 9, places=2),
        st.lists(st.floats(), min_size=2, max_size=2), st.lists(st.integers(0, 3), max_size=2),
        st.fixed_dictionaries({"a": st.integers(0, 3)}),
    ])  # fmt: skip
    rows = draw(st.sampled_from([0, 1, N]))
    chosen = draw(st.lists(names, max_size=4, unique=True))
    made = {}
    for name in chosen:
        cell = draw(kinds)
        made[name] = draw(st.lists(cell, min_size=rows, max_size=rows))
    return pa.table(made)


def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """Perhaps some bytes changed, perhaps the end cut off."""
    found = bytearray(raw)
    for _ in range(draw(st.integers(0, 5))):
        if found:
            found[draw(st.integers(0, len(found) - 1))] = draw(st.integers(0, 255))
    return bytes(found[: draw(st.integers(0, len(found)))] if draw(st.booleans()) else found)


@st.composite
def files(draw: st.DrawFn, suffixes: tuple[str, ...]) -> tuple[str, bytes]:
    """The suffix and the contents of a file of that type, perhaps damaged."""
    suffix = draw(st.sampled_from(suffixes))
    out = io.BytesIO()
    if suffix == ".npy":
        np.save(out, draw(arrays()), allow_pickle=True)
    elif suffix == ".npz":
        names = st.sampled_from(
            ["label", "weight", "id", "x", "scores", "classes", "format", "data"]
        )
        held = draw(st.dictionaries(names, arrays(), max_size=3))
        (np.savez_compressed if draw(st.booleans()) else np.savez)(out, **held)
    elif suffix == ".parquet":
        pq.write_table(draw(columns()), out)
    elif suffix == ".safetensors":
        out.write(made_safetensors(draw(arrays())))
    else:
        rows = draw(st.lists(st.lists(CELL, max_size=4), max_size=N + 2))
        mark = draw(st.sampled_from(["", "\ufeff"]))
        text = mark + "\n".join(",".join(row) for row in rows)
        out.write(text.encode(errors="surrogatepass"))
    raw = out.getvalue()
    return suffix, damaged(draw, raw) if draw(st.booleans()) else raw


def made_safetensors(array: np.ndarray) -> bytes:
    plain = array if array.dtype.kind in "iuf" and array.dtype.isnative else np.zeros((3, 2))
    if plain.dtype == np.uint64:
        plain = plain.astype(np.int64)
    return save({"x": torch.from_numpy(np.ascontiguousarray(plain))})


def write(place: Path, name: str, file: tuple[str, bytes]) -> Path:
    suffix, raw = file
    path = place / f"{name}{suffix}"
    path.write_bytes(raw)
    return path


@fuzz
@given(files((".csv", ".npy", ".npz", ".parquet")), st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_labels(place: Path, file: tuple[str, bytes], several: bool) -> None:
    path = write(place, "labels", file)
    for classes in (None, 3):
        found = attempt(lambda c=classes: read_labels(path, N, c, None, several))
        if found is not None:
            assert found.labels.shape == (N,)
            assert found.labels.max() < len(found.classes)
    attempt(lambda: read_ids(path, N))
    attempt(lambda: open_prior(path, N))


@fuzz
@given(files((".npy", ".npz", ".parquet", ".safetensors")), st.none() | st.sampled_from(["x", "?"]))
@pytest.mark.filterwarnings("ignore")
def test_embeddings(place: Path, file: tuple[str, bytes], key: str | None) -> None:
    path = write(place, "embeddings", file)

    def read() -> torch.Tensor:
        return open_embeddings(path, key).load()

    found = attempt(read)
    assert found is None or (found.ndim == 2 and bool(found.isfinite().all()))


# -- images ---------------------------------------------------------------------------------------


@st.composite
def images(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from([*FORMATS, "GIF", "ICO", "TGA"]))
    mode = draw(st.sampled_from(["RGB", "L", "1", "P", "RGBA", "CMYK", "I;16", "F", "LA"]))
    size = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    out = io.BytesIO()
    try:
        Image.new(mode, size, draw(st.integers(0, 1))).save(out, kind)
    except (OSError, ValueError, TypeError):  # that format has no such mode
        return draw(st.binary(max_size=64))
    return damaged(draw, out.getvalue())


@fuzz
@given(images(), st.tuples(st.integers(1, 9), st.integers(1, 9)))
@pytest.mark.filterwarnings("ignore")
def test_images(place: Path, raw: bytes, size: tuple[int, int]) -> None:
    path = place / "image.png"
    path.write_bytes(raw)
    found = attempt(lambda: FileReader((path,), size)(0))
    assert found is None or found.shape == (3, *size)
