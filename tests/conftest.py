"""What all tests share."""

import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch

# pytest-xdist tells its workers the terminal's width; here output is tested as a pipe gets it.
os.environ.pop("COLUMNS", None)

# A program started in the background or by nohup inherits ignored signals, which Python and the
# programs that tests start would go on ignoring; here signals are tested as a terminal sends them.
for which, handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(which) == signal.SIG_IGN:
        signal.signal(which, handler)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that has the solver 'torch_sparse' as a parameter; skip where it is missing.

    The package takes 15 to 25 minutes to build, so `make test` runs without it.
    """
    missing = [p for p in ("torch_sparse", "torch_scatter") if not find_spec(p)]
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if "torch_sparse" in (p for p in parameters if isinstance(p, str)):
            item.add_marker(pytest.mark.torch_sparse)
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small graphs: waking a second thread costs more than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
