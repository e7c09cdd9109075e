"""What the tests of faults share; they run in `make faults`, more of each in `make test-faults`."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_jobs import Whole

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder carries the mark."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole.make(tmp_path_factory.mktemp("whole"))
