"""`import dlp_plugins`: what it offers, and that nothing is imported before it is needed."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import dlp_plugins
from dlp_plugins.errors import RegistryError

PROBE = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_after(code: str, *arguments: str) -> set[str]:
    """Names of the modules that a fresh process holds after that code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code + PROBE, *arguments],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_surface_imports_no_torch():
    modules = modules_after(
        "import dlp_plugins; dir(dlp_plugins); dlp_plugins.__version__\n"
        "dlp_plugins.list_components()"
    )
    assert not modules & {"torch", "numpy", "scipy", "sklearn", "typer"}


@pytest.mark.commands
def test_dlp_propagate_imports_only_what_it_needs(tmp_path):
    """Accelerate, pandas, SciPy and scikit-learn took longer than all the rest after torch."""
    x = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.where(np.arange(300) < 30, np.arange(300) % 3, -1))
    modules = modules_after(
        "import sys\n"
        "from dlp_cli.app import app\n"
        "app(sys.argv[1:], standalone_mode=False)",
        "propagate", str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy"),
        "--out", str(tmp_path / "out.csv"), "--device", "cpu",
    )  # fmt: skip
    assert (tmp_path / "out.csv").is_file()
    heavy = {
        "accelerate", "pandas", "pyarrow", "sklearn", "scipy", "torchvision", "timm", "faiss",
        "datasets", "PIL",
        "torch._dynamo", "safetensors", "dlp_plugins.training",
    }  # fmt: skip
    assert modules & heavy == set()


def test_every_name_of_the_surface():
    for name in dlp_plugins._HOMES:
        home = importlib.import_module(dlp_plugins._HOMES[name])
        assert getattr(dlp_plugins, name) is getattr(home, name)
        assert name in dir(dlp_plugins)
    assert dlp_plugins.__version__
    with pytest.raises(AttributeError, match="has no attribute 'propagete'"):
        _ = dlp_plugins.propagete


def test_components_by_kind():
    assert "cg" in dlp_plugins.list_components()["solvers"]
    assert dlp_plugins.list_components("solver").keys() == {"solvers"}
    with pytest.raises(RegistryError, match="Did you mean 'solvers'"):
        dlp_plugins.list_components("solvrs")


def test_propagation_in_two_lines():
    found = dlp_plugins.propagate([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0], [0.2, 1.0]], [0, -1, 1, -1])
    assert found.labels.tolist() == [0, 0, 1, 1]
