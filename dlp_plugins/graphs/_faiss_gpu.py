"""Whether the installed FAISS can search on this GPU.

A FAISS GPU build without kernels for the card imports well, counts the GPUs, and fails only at its
first search, where it aborts the whole process. So that first search is made in another process.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache

PROBE = """
import faiss, numpy
index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), 8)
points = numpy.eye(8, dtype=numpy.float32)
index.add(points)
assert (index.search(points, 1)[1][:, 0] == numpy.arange(8)).all()
"""
SECONDS = 120.0


@cache
def why_not(probe: str = PROBE) -> str | None:
    """None if FAISS searches on the GPU here, else the last line of what it said."""
    try:
        tried = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS:.0f} s"
    if tried.returncode == 0:
        return None
    said = tried.stderr.strip().splitlines()
    return said[-1] if said else f"it ended with status {tried.returncode}"
