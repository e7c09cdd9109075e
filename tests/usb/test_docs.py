"""What docs/usb.md tells people to run, run."""

from __future__ import annotations

import re
import runpy
import textwrap

import pytest
import usb_digits  # noqa: F401 - one thread
from places import ROOT
from ruamel import yaml
from semilearn.core.utils import ALGORITHMS

from dlp_plugins.backbones.usb import MEMBERS as NETWORKS
from dlp_plugins.consistency.usb import MEMBERS as METHODS
from dlp_plugins.datasets.usb import MEMBERS as DATASETS

pytestmark = pytest.mark.usb

PAGE = (ROOT / "docs" / "usb.md").read_text(encoding="utf-8")


def test_the_run_on_a_cpu_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(ROOT / "examples" / "usb_on_a_cpu.py"))
    assert names["algorithm"].results_dict["eval/best_acc"] > 0.6


def test_the_solver_of_contributing_is_one_here_too(usb, tmp_path):
    """The page's own keys: `dlp_plugin` and `dlp_solver`."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    (plugin,) = [textwrap.dedent(code) for code in blocks if "class Neumann" in code]
    (tmp_path / "my_solver.py").write_text(plugin)
    (keys,) = [code for code in re.findall(r"```yaml\n(.*?)```", PAGE, re.S) if "neumann" in code]
    settings = yaml.YAML(typ="safe").load(keys)
    assert settings.pop("algorithm") == "dlp"
    settings["dlp_plugin"] = str(tmp_path / settings["dlp_plugin"])
    algorithm = usb(
        "dlp", views_of="pseudolabel", epoch=2, num_train_iter=2, num_eval_iter=1000, **settings
    )
    algorithm.train()
    solver = algorithm.propagation.propagator.solver
    assert (type(solver).__name__, solver.alpha) == ("Neumann", 0.9)


def test_tables_name_what_there_is():
    row = {m[1]: m[2] for m in re.finditer(r"^\| `(\w+)` \| ([a-z0-9_, ]+) \|", PAGE, re.M)}
    assert sorted(row["consistency"].split(", ")) == sorted(METHODS)
    assert sorted(row["backbone"].split(", ")) == sorted(NETWORKS)
    assert sorted(row["dataset"].split(", ")) == sorted(DATASETS)
    ours = {name for name in ALGORITHMS.keys() if name.startswith("dlp")}  # noqa: SIM118
    assert ours == set(re.findall(r"`(dlp(?:_[a-z]+)?)`", PAGE)) & ours
