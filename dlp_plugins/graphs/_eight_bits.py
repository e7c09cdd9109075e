"""Descriptors rounded to 8 bits, whose products are quick and bound the similarities from above.

Turned by an orthogonal matrix that spreads each vector over all coordinates, a centred descriptor
x = v - m becomes integers z times a step, and a small error e. By Cauchy and Schwarz

    v_i . v_j = x_i . x_j + m . v_i + m . v_j - m . m
    x_i . x_j <= step^2 z_i . z_j + M (|e_i| + |e_j|),  M the greatest length of a vector.

The error is about a hundredth of the typical length, so that hardly more pairs are left than are
wanted; far longer vectors are cut off and have larger errors, so sets with many of them are left.
For products of such integers a processor with VNNI instructions takes a quarter of the time for
float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from dlp_plugins._threads import parallel, row_slices
from dlp_plugins.graphs._compared import ROUNDING, Compared
from dlp_plugins.graphs._top_k import Array, Pairs

LARGEST = 127
# Multiples of the coordinates' deviation that LARGEST stands for. Less cuts off more of them, which
# adds to those vectors' errors; more makes the step longer.
RANGE = 4.0
MOST_ERROR = 0.05  # of the typical length: several times what rounding alone gives
FEW = 0.01  # share of vectors that may have larger errors, as too much of them is cut off
BLOCK_ENTRIES = 2**18  # numbers that one thread rounds at once: 1 MiB, and as much again thrice
MAX_UNITS = 2**29  # of a similarity of 1, so that sums of a few stay within int32


@cache
def available() -> bool:
    """Whether this processor multiplies 8-bit integers quickly, and without saturation."""
    supported = getattr(torch.cpu, "_is_vnni_supported", None)
    return (
        hasattr(torch, "_int_mm")
        and supported is not None
        and bool(supported())
        and torch.backends.mkldnn.is_available()
    )


@dataclass(frozen=True)
class Rounded(Compared):
    """Integers z of n points.

    values: [n, d] int8.
    centers: [n] int32, the part of a similarity that depends on one end alone, in units.
    margins: [n] int32, the most that rounding this end can take from a similarity, in units.
    unit: step^2, the similarity that a product of 1 stands for.
    """

    values: Array
    centers: Array
    margins: Array
    unit: float

    dtype = np.int32

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, chosen: slice | Array) -> Rounded:
        return Rounded(self.values[chosen], self.centers[chosen], self.margins[chosen], self.unit)

    def products(self, others: Rounded, out: Array | None = None) -> Array:
        left, right = torch.from_numpy(self.values), torch.from_numpy(others.values)
        if out is None:
            out = np.empty((len(left), len(right)), np.int32)
        torch._int_mm(left, right.T, out=torch.from_numpy(out))
        out += others.centers + others.margins
        return out

    def limits(self, bound: Array) -> Array:
        most = 2 * MAX_UNITS
        limit = np.floor((bound.astype(np.float64) - ROUNDING) / self.unit).clip(-most, most)
        return limit.astype(np.int32) - self.centers - self.margins

    def estimating(self) -> Rounded:
        return replace(self, margins=np.zeros_like(self.margins))

    def similarities(self, products: Array) -> Array:
        return ((products + self.centers[:, None]) * self.unit).astype(np.float32)

    def estimates(self, pairs: Pairs) -> Array:
        """[pairs] float32: similarities that these pairs' products stand for."""
        return ((pairs.similarities + self.centers[pairs.rows]) * self.unit).astype(np.float32)


def rounded(v: Array) -> Rounded | None:
    """v [n, d] float32 in 8 bits; None where points are too close to each other, or too unequal."""
    n, d = v.shape
    mean = v.mean(axis=0, dtype=np.float64).astype(np.float32)
    blocks = list(row_slices(n, d, BLOCK_ENTRIES))
    norms = np.concatenate(list(parallel(lambda rows: _lengths(v[rows] - mean), blocks)))
    step = float(RANGE * np.sqrt(np.mean(norms**2, dtype=np.float64) / d) / LARGEST)
    if not step**2 * MAX_UNITS > (norms.max() + np.linalg.norm(mean)) ** 2:
        return None
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), d)
    values, centers, errors = np.empty((n, d), np.int8), np.empty(n), np.empty(n)

    def block(rows: slice) -> None:
        from scipy.fft import dct  # takes 0.2 s to load, and small sets do not come here

        centers[rows] = v[rows] @ mean
        turned = dct((v[rows] - mean) * signs, norm="ortho", axis=1, overwrite_x=True)
        turned /= np.float32(step)
        z = np.rint(turned)
        np.clip(z, -LARGEST, LARGEST, out=z)
        values[rows] = z
        turned -= z
        errors[rows] = _lengths(turned) * step

    for _ in parallel(block, blocks):
        pass
    if np.mean(errors > MOST_ERROR * np.sqrt(np.mean(norms**2))) > FEW:
        return None
    # a rounded vector is at most its error longer than the vector
    longest = float(norms.max() + errors.max())
    unit = step**2
    centers -= 0.5 * (mean @ mean)
    return Rounded(
        values,
        np.rint(centers / unit).astype(np.int32),
        np.ceil(errors * (longest / unit) + 1).astype(np.int32),
        unit,
    )


def _lengths(v: Array) -> Array:
    return np.sqrt(np.einsum("ij,ij->i", v, v))
