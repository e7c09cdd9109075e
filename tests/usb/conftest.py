"""These tests need the environment of docs/usb.md (`make test-usb`); elsewhere none is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("semilearn") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def usb(tmp_path: Path):
    """`usb(algorithm, **settings)`: a USB algorithm on digits, made from a config file."""
    from usb_digits import make

    def bound(algorithm: str, **settings: Any) -> Any:
        return make(tmp_path, algorithm, **settings)

    return bound
