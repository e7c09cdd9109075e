"""What the documents tell a reader to type works: every block, as typed, in the page's order.

A page is read in an empty folder, with data of the named layout in place of downloads. Trainings
are shortened by settings that are appended to the command. What cannot run here is in NOT_RUN.
"""

from __future__ import annotations

import dataclasses
import doctest
import functools
import importlib
import itertools
import os
import pickle
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from dlp_cli.app import app
from document import Block, blocks, prose_lines
from PIL import Image
from places import ROOT
from typer.testing import CliRunner

from dlp_plugins.bench.suite import find_suite, load_suite
from dlp_plugins.embeddings import plan
from dlp_plugins.embeddings.plan import Rates
from dlp_plugins.errors import DlpError
from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.registry import KINDS, load_plugin_file
from dlp_plugins.testing import check_solver
from dlp_plugins.training.run import run as training_run

GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").rglob("*.toml"))
RNG = np.random.default_rng(0)

INSTALLS = "installs; test_wheel.py runs `dlp run digits` from a wheel in an empty environment"
THIS_SUITE = "what runs these tests; the file or target is checked to exist"
IN_USB = "needs semilearn: tests/usb/test_docs.py runs it in its own environment"
SEVERAL = "starts several processes: tests/distributed runs the same"
WRITES_A_PAGE = "test_a_generated_page_is_up_to_date compares the page"
PEERS = ".venv-peers/bin/python -m benchmarks.peers"
OF_IMAGES = "needs 50,000 images, and minutes; tests/photos embeds a few"
MINUTES = "minutes of measuring; the script is checked to exist"
NOT_RUN = {
    "pip install .": INSTALLS,
    "pip install '.[huggingface]'": INSTALLS,
    "pip install '.[nn-descent]'": INSTALLS,
    "pip install '.[amg]'": INSTALLS,
    "pip install '.[parquet]'": INSTALLS,
    "pip install '.[label]'": INSTALLS,
    "pip install '.[photos]'": INSTALLS,
    "pip install '.[adapters]'": INSTALLS,
    "pip install '.[report]'": INSTALLS,
    "pip install '.[export]'": INSTALLS,
    "pip install '.[tune]'": INSTALLS,
    "pip install '.[tensorboard]'": INSTALLS,
    "pip install '.[mlflow]'": INSTALLS,
    "pip install '.[wandb]'": INSTALLS,
    "pip install '.[ray]'": INSTALLS,
    "pip install --no-build-isolation '.[torch-sparse]'": INSTALLS,
    "pip uninstall faiss-cpu && pip install '.[gpu]'": INSTALLS,
    "pip install '.[usb]'": INSTALLS,
    "pip install --editable '.[test]'": INSTALLS,
    "pip install --editable dlp-solver-jacobi": "installs; tests/scaffold does so",
    "make docs": "builds these pages; .ci/run does it",
    "dlp label x.npy --images photos --classes cat,dog,bird": "serves a page: tests/browser",
    "torchrun --nproc-per-node 2 -m dlp_cli run digits": SEVERAL,
    "python benchmarks/processes_speed.py": MINUTES,
    "python benchmarks/digits_pixels.py": MINUTES,
    "python benchmarks/processes_speed.py --recipe quick_cifar10 --set dataset.path=FOLDER "
    "--set training.precision=float32 --set training.stage_one_epochs=1 "
    "--set training.stage_two_epochs=2": MINUTES,
    "python benchmarks/loading_speed.py --data FOLDER": MINUTES,
    "dlp bench --ray": SEVERAL,
    "accelerate launch --num_processes 2 -m dlp_cli run digits": SEVERAL,
    "torchrun --nproc-per-node 2 -m dlp_cli propagate x.npy --labels y.csv --out out.csv": SEVERAL,
    "torchrun --nproc-per-node 2 -m dlp_cli propagate x.npy --labels y.csv --out out.csv "
    "--shard-rows": SEVERAL,
    "python benchmarks/shard_rows.py": MINUTES,
    ". .venv/bin/activate": "changes the reader's shell",
    "dlp --install-completion": "changes the reader's shell; tests/cli/test_complete.py",
    "export OMP_NUM_THREADS=1": "changes the reader's shell",
    "make test": THIS_SUITE,
    "make test-commands": THIS_SUITE,
    "make faults": THIS_SUITE,
    "make test-faults": THIS_SUITE,
    "make test-torch-sparse": THIS_SUITE,
    "make test-usb": THIS_SUITE,
    "make test-browser": THIS_SUITE,
    "make test-distributed": THIS_SUITE,
    "make test-slow": THIS_SUITE,
    "make bench": MINUTES,
    "make bench-labels": MINUTES,
    "make bench-suggest": MINUTES,
    "make bench-photos": MINUTES,
    "make bench-calibration": MINUTES,
    "make bench-peers": MINUTES,
    f"{PEERS} --draws 20 --minutes 12": MINUTES,
    f"{PEERS} --draws 20 --minutes 12 --data real --points 10000": MINUTES,
    f"{PEERS}.wrong_labels --draws 3": MINUTES,
    f"{PEERS}.selection": MINUTES,
    "pip install '.[photos,label,report]'": INSTALLS,
    ".venv/bin/python -m pytest -x tests/solvers": THIS_SUITE,
    ".venv/bin/python -m pytest -x tests/test_contracts.py -k neumann": THIS_SUITE,
    ".venv/bin/ruff check . && .venv/bin/ruff format . && .venv/bin/mypy": THIS_SUITE,
    "python docs/make_recipes.py": WRITES_A_PAGE,
    "python docs/make_commands.py": WRITES_A_PAGE,
    "python docs/make_components.py": WRITES_A_PAGE,
    "python docs/make_concepts_png.py": "draws a picture; the script is checked to exist",
    "python docs/make_certainty_png.py --set dataset.path=FOLDER": MINUTES,
    "python benchmarks/pretrained.py --size 80 --test-images 1000 "
    "--set training.stage_two_steps=60 --seeds 2": MINUTES,
    "python benchmarks/photos.py --images 2000 --test-images 128": MINUTES,
    "python benchmarks/audit_quality.py --draws 3": MINUTES,
    "python benchmarks/audit_quality.py --draws 3 --robust": MINUTES,
    "python benchmarks/influence_speed.py": MINUTES,
    "python benchmarks/class_shares.py": MINUTES,
    "python benchmarks/poisson_mbo.py --peer PYTHON": MINUTES,
    "python benchmarks/step_speed.py": MINUTES,
    "python benchmarks/real_descriptors.py FOLDER real": MINUTES,
    "dlp embed FOLDER --column img --backbone RUN --out network.npy": OF_IMAGES,
    "dlp embed FOLDER --column img --float16 --out imagenet.npy": OF_IMAGES,
    "python benchmarks/step_speed.py --data real": MINUTES,
    "python benchmarks/graph_speed.py --data real": MINUTES,
    "python benchmarks/solver_speed.py": MINUTES,
    "python benchmarks/label_page.py": MINUTES,
    "python benchmarks/graph_speed.py": MINUTES,
    "python benchmarks/graph_speed.py --builders faiss_ivf faiss_hnsw nn_descent": MINUTES,
    "python benchmarks/index_quality.py --draws 10": MINUTES,
    "python benchmarks/partial_fit_speed.py": MINUTES,
    "python benchmarks/million_default.py": MINUTES,
    "python benchmarks/ten_million.py --points 1M 10M --kill-twice --folder FOLDER": MINUTES,
    "python -m venv .venv-usb": INSTALLS,
    ".venv-usb/bin/pip install '.[usb]'": INSTALLS,
    ".venv-usb/bin/python examples/usb_on_a_cpu.py": IN_USB,
    "python train.py --c config.yaml": IN_USB,
}
# Blocks of Python and YAML of docs/usb.md, by a text of theirs.
NOT_RUN_BLOCKS = {
    "import dlp_plugins.hosts.usb": IN_USB,
    "algorithm.register_hook(": IN_USB,
    "dlp_plugin: my_solver.py": IN_USB,
    "algorithm: fixmatch": "a change to USB's own config; tests/usb runs these algorithms",
}
# tests/browser/test_newcomer.py does what the first one says; the others are texts of the code.
NOT_READ_HERE = {"tutorial.md", "commands.md", "components.md"}
# Suites, and the runs of these pages, take minutes to days: these are checked, not trained, as are
# the commands in the headers of recipes.
CHECKED_ONLY = {"results.md", "usb.md", "performance.md"}

# Appended to a training command, so that it takes a second. The data are small already.
SHORT = [
    "training.stage_one_epochs=1", "training.stage_one_steps=2", "training.stage_two_epochs=1",
    "training.batch_size=20", "training.labeled_per_batch=10", "graph.k=5",
]  # fmt: skip
SHORTER = {  # by recipe; all but the digits are 32 x 32, where the paper's network is slow
    "digits": ["dataset.num_train=120", "dataset.num_test=50", "backbone.width=4"],
    "lp_cifar10": ["dataset.num_labeled=20"],
    "mt_lp_cifar100": ["dataset.num_labeled=100"],
    "photos": [],
    "my_recipe.toml": [],
    "my_digits.toml": ["dataset.num_test=50", "training.stage_two_epochs=0"],
}


# -- the reader's folder --------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to read a page in, with what the page's commands find there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {f"data_batch_{i}": 12 for i in range(1, 6)} | {"test_batch": 10}
    write_cifar(tmp_path / "data/cifar-10-batches-py", names, "labels", 10, "batches.meta", "label")
    names = {"train": 200, "test": 100}
    write_cifar(tmp_path / "data/cifar-100-python", names, "fine_labels", 100, "meta", "fine_label")
    # the made-up pixels have another checksum than the published ones
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    for name, count in {"train/cat": 12, "train/dog": 12, "test/cat": 3, "test/dog": 3}.items():
        write_photos(tmp_path / "photos" / name, count)
    for name in ("photos/unlabeled", "later"):
        write_photos(tmp_path / name, 8)
    x, y = np.vstack([RNG.normal(m, 1, (30, 8)) for m in (0, 3)]), np.repeat([0, 1], 30)
    few = np.where(np.arange(60) % 10 == 0, y, -1)
    for name in ("features.npy", "vectors.npy", "new.npy"):
        np.save(tmp_path / name, x.astype(np.float32))
    np.save(tmp_path / "prototypes.npy", np.stack([x[:30].mean(axis=0), x[30:].mean(axis=0)]))
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    write_faulty_files(tmp_path, x)
    (tmp_path / "labels.csv").write_text("".join(f"{c if c >= 0 else ''}\n" for c in few))
    return tmp_path


def write_cifar(
    folder: Path, counts: dict[str, int], key: str, classes: int, meta: str, name: str
) -> None:
    folder.mkdir(parents=True)
    for file, n in counts.items():
        pixels = RNG.integers(0, 256, (n, 3072), dtype=np.uint8)
        entry = {"data": pixels, key: [i % classes for i in range(n)]}
        (folder / file).write_bytes(pickle.dumps(entry))
    names = {f"{name}_names": [f"class {i}" for i in range(classes)]}
    (folder / meta).write_bytes(pickle.dumps(names))


def write_photos(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def write_faulty_files(folder: Path, x: np.ndarray) -> None:
    """What the commands of docs/errors.md find."""
    (folder / "album").mkdir()
    (folder / "album/torn.png").write_bytes(b"no image")
    (folder / "three_labels.csv").write_text("0\n1\n1\n")
    (folder / "by_name.csv").write_text("id,label\ncat1.png,cat\n")
    broken = x.copy()
    broken[[3, 7]] = np.nan
    np.save(folder / "broken.npy", broken)


@pytest.fixture(autouse=True)
def forgotten_components() -> Iterator[None]:
    """What a page's code registers is forgotten when the page has been read."""
    yield
    forget()


def forget() -> None:
    """Unregister what does not come with the project: the next command starts without it."""
    for kind in KINDS:
        for name, component in [*kind._components.items()]:
            if component.origin != "dlp-plugins":
                kind.unregister(name)


def rates(dim: int, k: int) -> Rates:
    """In place of the seconds of measuring of `dlp plan`, which tests/embeddings tests."""
    others = [1e-8] * (len(dataclasses.fields(Rates)) - 3)
    return Rates(dim, k, dict.fromkeys(plan.candidates(), 1.0), *others)


# -- reading --------------------------------------------------------------------------------------


class Reader:
    """Does what a page says, block by block."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.names: dict[str, Any] = example_arrays()
        self.ran: list[str] = []

    def read(self) -> None:
        for block in blocks(self.page):
            if any(text in block.text for text in NOT_RUN_BLOCKS):
                continue
            if block.file:
                (self.folder / block.file).write_text(block.text)
            elif block.language in ("sh", "inline"):
                for command in block.commands:
                    self.run(command, block)
                    self.ran.append(command)
            elif block.language == "python":
                exec(compile(block.text, str(block), "exec"), self.names)
            elif block.language == "toml":
                self.check_toml(block)
            elif block.text.startswith("$ dlp "):
                self.fail_as_shown(block)
            else:
                assert block.language in ("", "math"), f"{block}: nothing runs {block.language}"

    def run(self, command: str, block: Block) -> None:
        if command in NOT_RUN:
            check_files_exist(command)
            return
        program, *words = shlex.split(command)
        if command == "dlp label photos.npy --images photos --classes cat,dog":
            self.export_labels()  # the page itself is tested by tests/browser
        elif program == "dlp":
            *words, file = words if words[-2:-1] == [">"] else [*words, None]
            printed = self.dlp([word for word in words if word != ">"], block)
            if file:
                (self.folder / file).write_text(printed)
        elif not words:
            return  # the name of a program, not a command
        elif command == "make quickstart":
            self.dlp(quickstart(), block)
        elif command == "python docs/make_results_tables.py":
            check_files_exist(command)
        else:
            assert program == "python", f"{block}: nothing runs {command}"
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run([sys.executable, *words], env=environment, capture_output=True)
            assert done.returncode == 0, f"{block}: {command}\n{done.stdout.decode()}"

    def dlp(self, words: list[str], block: Block) -> str:
        """Run the command; what it prints on standard output."""
        words = [{"S": "0", "FOLDER": "data"}.get(w, w).replace("=FOLDER", "=data") for w in words]
        name_alone = 1 + (words[:1] == ["graph"])  # its commands are two words
        if len(words) <= name_alone and words not in (["list"], ["doctor"]):
            words = [*words, "--help"]  # the name of a command, not a command
        elif words[0] in ("run", "bench", "tune"):
            if block.page in CHECKED_ONLY or (words[0] == "bench" and find_suite(words[1])):
                check_without_training(words)
                return ""
            words += shortened(words)
        forget()
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{block}: dlp {shlex.join(words)}\n{result.output}" + (
            f"\n{result.exception}" if result.exception else ""
        )
        return result.stdout

    def export_labels(self) -> None:
        """labels.csv, as the page of `dlp label` exports it once a few photos have a label."""
        names = (self.folder / "photos.ids.csv").read_text().split()[1:]
        known = [(i, Path(name).parent.name) for i, name in enumerate(names) if "train" in name]
        lines = "".join(f"{i},{label}\n" for i, label in known[::4])
        (self.folder / "labels.csv").write_text(f"index,label\n{lines}")

    def fail_as_shown(self, block: Block) -> None:
        """A command after a prompt, and below it the message it ends with; ... is left out."""
        command, _, shown = block.text.partition("\n")
        forget()
        result = CliRunner().invoke(app, shlex.split(command)[2:])
        assert isinstance(result.exception, DlpError), f"{block}: {result.output}"
        message = " ".join(f"error: {result.exception}".split())
        parts = [re.escape(part) for part in " ".join(shown.split()).split("...")]
        assert re.fullmatch(".*".join(parts), message), f"{block}: {message}"

    def check_toml(self, block: Block) -> None:
        tables = tomllib.loads(block.text)
        if "project" in tables:  # entry points of a package
            (group,) = tables["project"]["entry-points"]
            assert group in {kind.group for kind in KINDS}
            return
        path = self.folder / "part_of_a_recipe.toml"
        path.write_text(f'extends = "digits.toml"\n{block.text}')
        load_recipe(path)


def example_arrays() -> dict[str, Any]:
    """The names that a page's Python uses as the reader's own."""
    x, y = np.vstack([RNG.normal(m, 1, (40, 6)) for m in (0, 2)]), np.repeat([0, 1], 40)
    few = np.where(np.arange(80) % 2 == 0, y, -1)
    images = RNG.integers(0, 256, (2, 1, 8, 8), dtype=np.uint8)
    arrays = {"X": x, "y": few, "new": x[:3] + 0.1, "embeddings": x, "labels": few}
    return {**arrays, "images": images}


def shortened(words: list[str]) -> list[str]:
    given = {word.partition("=")[0].partition(".")[0] for word in words if "=" in word}
    settings = [*SHORT, *SHORTER[words[1]]]
    if words[1] != "digits" and "backbone" not in given and words[1] != "my_digits.toml":
        settings += ["backbone=small_cnn", "backbone.width=4"]
    extra = {"bench": ["--seeds", "1"], "tune": ["--trials", "2"]}.get(words[0], [])
    extra += [] if words[0] == "bench" else ["--device", "cpu"]
    return [*(w for setting in settings for w in ("--set", setting)), *extra]


def settings_of(recipe: str) -> list[list[str]]:
    return [setting.split("=") for setting in [*SHORT, *SHORTER[recipe]]]


def check_without_training(words: list[str]) -> None:
    verb, target, *options = words
    settings = [o for flag, o in itertools.pairwise(options) if flag == "--set"]
    if verb == "bench":
        assert load_suite(find_suite(target), settings)  # every recipe of every row is checked
    else:
        load_recipe(target, settings)


def quickstart() -> list[str]:
    """The command at the end of `make quickstart`, from the Makefile; make installs before it."""
    done = subprocess.run(
        ["make", "-n", "quickstart"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stdout.splitlines() if "/dlp run " in line]
    words = shlex.split(line)[1:]
    assert (ROOT / words[1]).is_file()
    return ["run", Path(words[1]).stem, *words[2:]]


def check_files_exist(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = "".join((ROOT / name).read_text() for name in ("Makefile", "usb.mk"))
        assert re.search(rf"^{words[1]}:", targets, re.M), command
    for word in words[1:]:
        if "/" in word or word.endswith(".py"):
            assert (ROOT / word).exists() or word == "train.py" or ".venv" in word, command


@pytest.mark.commands
@pytest.mark.parametrize(
    "page", [p for p in GUIDES if p.name not in NOT_READ_HERE], ids=lambda page: page.name
)
def test_a_page_works_as_typed_and_in_its_order(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlp_plugins.embeddings.plan.measure", rates)
    short = {key: tomllib.loads(f"x = {value}")["x"] for key, value in settings_of("digits")}
    monkeypatch.setattr("dlp_plugins.training.run.run", functools.partial(training_run, **short))
    Reader(page, folder).read()


def test_what_is_not_run_is_in_the_documents() -> None:
    found = [block for page in GUIDES for block in blocks(page)]
    commands = {command for block in found for command in block.commands}
    assert set(NOT_RUN) <= commands
    for text in NOT_RUN_BLOCKS:
        assert any(text in block.text for block in found)


def test_the_readme_names_every_optional_part() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "README.md").read_text()
    found = re.findall(r"install (?:\S+ )?'\.\[(.+?)\]'", text)
    named = {part for parts in found for part in parts.split(",")}
    assert named == set(project["optional-dependencies"]) - {"test", "browser", "docs"}


def test_the_commands_that_once_failed_are_among_those_that_run() -> None:
    commands = " ".join(c for page in GUIDES for b in blocks(page) for c in b.commands)
    for text in ("--resume", "--plugin my_", "my_recipe.toml", "show solver neumann --plugin"):
        assert text in commands


# -- recipes' headers, generated pages, prose -----------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_commands_of_a_recipes_header(path: Path) -> None:
    for command in re.findall(r"^# (dlp (?:run|bench) .+)$", path.read_text(), re.M):
        check_without_training(shlex.split(command)[1:])


@pytest.mark.parametrize("name", ["make_recipes", "make_commands", "make_components"])
def test_a_generated_page_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    script = importlib.import_module(name)

    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.page(), f"run python docs/{name}.py"


def test_docstrings_become_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import docstrings

    assert doctest.testmod(docstrings).failed == 0
    assert docstrings.as_markdown("Raises:\n    E: bad.") == "Raises:\n\n- `E`: bad."
    assert docstrings.as_markdown("a <b> of `<c>`") == "a &lt;b> of `<c>`"


def test_the_page_of_commands_leads_to_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_commands

    names = {f"dlp {name}" for name in make_commands.GUIDES}
    assert names <= {line[3:] for line in make_commands.page().splitlines() if line[:3] == "## "}


def test_what_names_the_version_names_the_same_one() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"dlp-plugins {version}," in (ROOT / "docs/citation.md").read_text(encoding="utf-8")


def test_the_site_has_every_page() -> None:
    listed = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert sorted(listed) == sorted(pages | {"index.md", "contributing.md", "changelog.md"})


def test_the_table_of_the_papers_rows_is_up_to_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_results_tables

    make_results_tables.main(str(ROOT / "recipes/suites/paper_table.toml"), "absent")
    assert capsys.readouterr().out in (ROOT / "docs/results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [*GUIDES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_prose_is_wrapped_at_100_columns(page: Path) -> None:
    assert [number for number, line in prose_lines(page) if len(line) > 100] == []


@pytest.mark.parametrize("page", [*GUIDES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for _, line in prose_lines(page):
        for target in re.findall(r"\]\(([^)#]+)", line):
            assert "://" in target or (page.parent / target).exists(), target


def test_the_map_of_the_house_names_what_there_is() -> None:
    (tree,) = [
        b.text for b in blocks(ROOT / "CONTRIBUTING.md") if b.text.startswith("dlp_plugins/")
    ]
    named, inside = set(), Path()
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        if indent > 2:
            continue
        inside = Path() if indent == 0 else Path("dlp_plugins")
        for word in line.split():
            if not word.endswith(("/", ".py")):
                break
            assert (ROOT / inside / word).exists(), word
            named.add(str(inside / word))
    loose = {f"dlp_plugins/{p.name}" for p in (ROOT / "dlp_plugins").iterdir()}
    assert {p for p in loose if "__" not in p and "py.typed" not in p} <= named


# -- the solver of CONTRIBUTING.md ----------------------------------------------------------------


def test_the_solver_of_the_contributing_page_passes_its_check(tmp_path: Path) -> None:
    (code,) = [b for b in blocks(ROOT / "CONTRIBUTING.md") if b.file == "my_solver.py"]
    path = tmp_path / "my_solver.py"
    path.write_text(code.text)
    load_plugin_file(path)
    check_solver("neumann")  # the page's own test checks one alpha, this several
