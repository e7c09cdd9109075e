"""Whether the installed FAISS can search on this GPU.

A FAISS GPU build without kernels for the card imports well, counts the GPUs, and fails only at its
first search, where it aborts the whole process. So the first search runs in a child process.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache

PROBE = """
import sys
import faiss, numpy
index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), 8)
points = numpy.eye(8, dtype=numpy.float32)
index.add(points)
if (index.search(points, 1)[1][:, 0] != numpy.arange(8)).any():
    sys.exit("it gives wrong neighbours on this card")
"""
TIME_LIMIT = 120.0  # seconds; the first use of a GPU may compile kernels


@cache
def why_not(probe: str = PROBE, seconds: float = TIME_LIMIT) -> str | None:
    """None if FAISS searches on the GPU here, else the last line of the child's error output."""
    try:
        tried = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds:g} s"
    if tried.returncode == 0:
        return None
    lines = tried.stderr.strip().splitlines()
    return lines[-1] if lines else f"the search ended with status {tried.returncode}"
