"""Progress bars in a notebook, by tqdm, which knows notebooks with and without widgets.

>>> from dlp_plugins.embeddings.run import propagate_file
>>> from dlp_plugins.notebook.progress import phase_bars
>>> with phase_bars() as progress:
...     propagate_file("x.npy", "y.csv", "out.csv", progress=progress)  # doctest: +SKIP
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def bar(**options: Any) -> Any:
    """A tqdm bar of whichever kind suits; its options as tqdm takes them."""
    with warnings.catch_warnings():
        # Without ipywidgets tqdm draws text, and warns that it could draw something else.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

        return tqdm(**options)


@contextmanager
def phase_bars() -> Iterator[Callable[[str, float, float | None], None]]:
    """Gives a function for what takes `progress`: a bar for each phase.

    It is called with the phase, how much is done, and of how much (None where that is not known).
    """
    bars: dict[str, Any] = {}

    def report(phase: str, done: float, total: float | None) -> None:
        if phase not in bars:
            bars[phase] = bar(desc=phase, total=total)
        shown = bars[phase]
        shown.total = total
        shown.update(done - shown.n)
        if total is not None and done >= total:
            shown.close()

    try:
        yield report
    finally:
        for shown in bars.values():
            shown.close()
