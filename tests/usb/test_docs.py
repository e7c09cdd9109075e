"""What docs/usb.md tells people to run, run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import usb_digits  # noqa: F401 - one thread
from semilearn.core.utils import ALGORITHMS

from dlp_plugins.backbones.usb import MEMBERS as NETWORKS
from dlp_plugins.consistency.usb import MEMBERS as METHODS
from dlp_plugins.datasets.usb import MEMBERS as DATASETS

pytestmark = pytest.mark.usb

PAGE = (Path(__file__).parents[2] / "docs" / "usb.md").read_text(encoding="utf-8")


def test_the_run_on_a_cpu_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (script,) = [
        code for code in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "load_digits" in code
    ]
    names: dict = {}
    exec(compile(script, "docs/usb.md", "exec"), names)
    assert names["algorithm"].results_dict["eval/best_acc"] > 0.6


def test_the_solver_of_your_own_is_one(usb, tmp_path):
    (plugin,) = [
        code for code in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "TwoSteps" in code
    ]
    (tmp_path / "my_solver.py").write_text(plugin)
    algorithm = usb(
        "dlp", views_of="pseudolabel", epoch=2, num_train_iter=2, num_eval_iter=1000,
        dlp_plugin=str(tmp_path / "my_solver.py"), dlp_solver="two_steps",
    )  # fmt: skip
    algorithm.train()
    assert type(algorithm.propagation.propagator.solver).__name__ == "TwoSteps"


def test_tables_name_what_there_is():
    row = {m[1]: m[2] for m in re.finditer(r"^\| `(\w+)` \| ([a-z0-9_, ]+) \|", PAGE, re.M)}
    assert sorted(row["consistency"].split(", ")) == sorted(METHODS)
    assert sorted(row["backbone"].split(", ")) == sorted(NETWORKS)
    assert sorted(row["dataset"].split(", ")) == sorted(DATASETS)
    ours = {name for name in ALGORITHMS.keys() if name.startswith("dlp")}  # noqa: SIM118
    assert ours == set(re.findall(r"`(dlp(?:_[a-z]+)?)`", PAGE)) & ours
