"""Rows of one graph shared among real processes: the table of one, and what happens if one dies."""

from __future__ import annotations

import json

import numpy as np
import pytest
from two_processes import TORCHRUN, ended, several, start, wait_for, within_the_limit

from dlp_plugins.embeddings.run import propagate_file

pytestmark = pytest.mark.distributed

# every cell is probed, so that the search is exact and the same whatever the cells
SETTINGS = ["graph.size=64", "graph.probes=100", "graph.k=12", "transform=center"]
PLUGIN = """
import os, shutil, signal
from dlp_plugins.affinities.inner_product import InnerProduct
from dlp_plugins.registry import affinities

@affinities.register("deadly")
class Deadly(InnerProduct):
    '''Something happens after the search, in one of the processes.'''
    def weights(self, neighbors):
        if os.environ.get("RANK") == "RANK_OF_IT":
            WHAT_HAPPENS
        return super().weights(neighbors)
"""


@pytest.fixture
def files(tmp_path):
    """1,500 points with copies in other shares, a zero row and an island without a label."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 1500)
    x = rng.standard_normal((5, 16))[truth] + 0.7 * rng.standard_normal((1500, 16))
    x = np.pad(x, ((0, 0), (0, 1)))
    x[:30], x[35] = 0.01 * x[:30] + 9 * np.eye(17)[16], 0
    x[1460:] = x[50:90]
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    labeled = (np.arange(1500) % 30 == 10) & (np.arange(1500) >= 40)
    np.save(tmp_path / "y.npy", np.where(labeled, truth, -1))
    return tmp_path


def words(folder, out, *more):
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return (
        "propagate", str(folder / "x.npy"), "--labels", str(folder / "y.npy"), "--out",
        str(folder / out), "--shard-rows", *settings, *more,
    )  # fmt: skip


def deadly(folder, rank, happens):
    """Options that make something happen in one of the processes, after its search."""
    code = PLUGIN.replace("RANK_OF_IT", str(rank)).replace("WHAT_HAPPENS", happens)
    (folder / "deadly.py").write_text(code)
    return "--plugin", str(folder / "deadly.py"), "--set", "affinity=deadly"


def test_the_table_is_that_of_one_process_with_the_whole_graph(files):
    more = ("--probabilities", "--unknown", "--no-calibrate", "--json")
    found = [ended(p) for p in several(3, "-m", "dlp_cli", *words(files, "a.csv", *more))]
    assert [status for status, _ in found] == [0, 0, 0], found
    assert [text for _, text in found[1:]] == ["", ""]
    report, _ = json.JSONDecoder().raw_decode(found[0][1])
    assert 0 < report["graph"]["halo"] < 1000
    parts = ["graph=cells", "solver=chebyshev", "refiner=none", *SETTINGS]
    propagate_file(
        files / "x.npy", files / "y.npy", files / "b.csv", settings=parts, device="cpu",
        probabilities=True, unknown=True, calibrated=False,
    )  # fmt: skip
    a, b = (
        np.genfromtxt(files / f, delimiter=",", names=True, dtype=None, encoding="utf-8")
        for f in ("a.csv", "b.csv")
    )
    assert a.dtype == b.dtype
    assert (a["reached"] == b["reached"]).all()
    assert not a["reached"].all()
    for name in set(a.dtype.names) - {"reached"}:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-5, err_msg=name)


def test_a_process_that_dies_ends_the_others_with_one_sentence(files):
    dying = files / "dying"
    plugin = deadly(files, 1, f"open({str(dying)!r}, 'w'); os.kill(os.getpid(), signal.SIGKILL)")
    launcher = start(*TORCHRUN, *words(files, "a.csv", *plugin))
    wait_for(dying, launcher)
    with within_the_limit():
        status, text = ended(launcher)
    assert status != 0
    assert text.count("has died or hangs, so all of them end. Start the command again;") == 1
    assert "--resume" not in text
    assert not (files / "a.csv").exists()


def test_a_table_that_cannot_be_written_ends_all_with_one_sentence(files):
    (files / "gone").mkdir()
    plugin = deadly(files, 0, f"shutil.rmtree({str(files / 'gone')!r})")
    command = words(files, "gone/a.csv", "--probabilities", *plugin)
    (status, text), (other, silence) = map(ended, several(2, "-m", "dlp_cli", *command))
    assert (status, other, silence) == (1, 1, ""), text
    assert text.count("error: ") == 1
    assert "a.csv" in text


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ("other.npy", "The processes were given different embeddings, labels or settings."),
        ("missing.npy", "missing.npy: there is no such file."),
    ],
)
def test_other_files_on_one_machine_are_found_before_any_work(labels, sentence, files):
    y = np.load(files / "y.npy")
    y[0] = 0
    np.save(files / "other.npy", y)
    other = ("--labels", str(files / labels))
    found = [ended(p) for p in several(2, "-m", "dlp_cli", *words(files, "a.csv"), of_last=other)]
    assert all(status not in (0, None) for status, _ in found), found
    text = "".join(text for _, text in found)
    assert text.count(sentence) == text.count("error: ") == 1, text
    assert not (files / "a.csv").exists()
