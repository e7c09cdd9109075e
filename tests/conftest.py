"""What all tests share."""

import os
from collections.abc import Iterator

import pytest
import torch

# pytest-xdist tells its workers the terminal's width; here output is tested as a pipe gets it.
os.environ.pop("COLUMNS", None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small graphs: waking a second thread costs more than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
