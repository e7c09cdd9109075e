"""Descriptors rounded to 8 bits, whose products are quick and bound the similarities from above.

Turned by an orthogonal matrix that spreads each vector over all coordinates, a centred descriptor
x = v - m becomes integers z times a step, and a small error e. By Cauchy and Schwarz

    v_i . v_j = x_i . x_j + m . v_i + m . v_j - m . m
    x_i . x_j <= step^2 z_i . z_j + M (|e_i| + |e_j|),  M the greatest length of a vector.

The error is below a hundredth of a vector's length, whatever the data, so that hardly more pairs
are left than are wanted. A search that may miss a few can also leave out a vector's part t outside
the leading axes, and count by a share of (|t_i|^2 + |t_j|^2) / 2 what that may add. For products of
such integers a processor with VNNI instructions takes a quarter of the time for float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from dlp_plugins._threads import parallel, slices
from dlp_plugins.graphs._compared import ROUNDING, Compared
from dlp_plugins.graphs._top_k import Array, Pairs

LARGEST = 127
# Multiples of the coordinates' deviation that LARGEST stands for. Less cuts off more of them, which
# adds to those vectors' errors; more makes the step longer.
RANGE = 4.0
POWER_ITERATIONS = 2  # that find the leading axes, well enough for a bound
BLOCK_ROWS = 2048  # points that one thread rounds at once
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

    def lacking(self, others: Rounded, pairs: Pairs) -> tuple[Array, Array]:
        i, j = pairs.rows, pairs.cols
        z = self.values[i].astype(np.float32), others.values[j].astype(np.float32)
        estimate = np.einsum("ij,ij->i", *z) + self.centers[i] + others.centers[j]
        most = self.margins[i] + others.margins[j]
        return pairs.similarities - self.unit * estimate, self.unit * most

    def narrowed(self, others: Rounded, share: float) -> tuple[Rounded, Rounded]:
        def of(vectors: Rounded) -> Rounded:
            return replace(vectors, margins=np.ceil(share * vectors.margins).astype(np.int32))

        return of(self), of(others)


def rounded(v: Array, axes: Array | None = None) -> Rounded | None:
    """v [n, d] float32 in 8 bits; None where the points are too close to each other for that.

    Args:
        axes: [d, h] orthonormal, of `leading_axes`: only a vector's part in their span is rounded.
            The rest t counts by t_i . t_j <= (|t_i|^2 + |t_j|^2) / 2.
    """
    n, d = v.shape
    mean = v.mean(axis=0, dtype=np.float64).astype(np.float32)
    blocks = list(slices(n, BLOCK_ROWS))
    norms = np.concatenate(list(parallel(lambda rows: _lengths(v[rows] - mean), blocks)))
    if axes is None:
        size, kept = d, norms
        signs = _random_signs(d)
    else:
        size = axes.shape[1]
        some = v[:: max(1, n // BLOCK_ROWS)] - mean
        kept = _lengths(some @ axes)
    step = float(RANGE * np.sqrt(np.mean(kept**2, dtype=np.float64) / size) / LARGEST)
    if not step**2 * MAX_UNITS > (norms.max() + np.linalg.norm(mean)) ** 2:
        return None
    values = np.empty((n, size), np.int8)
    centers, errors, rest = (np.zeros(n, np.float32) for _ in range(3))

    def block(rows: slice) -> None:
        centers[rows] = v[rows] @ mean
        x = v[rows] - mean
        if axes is None:
            from scipy.fft import dct  # takes 0.2 s to load, and small sets do not come here

            turned = dct(x * signs, norm="ortho", axis=1, overwrite_x=True)
        else:
            turned = x @ axes
            rest[rows] = np.maximum(norms[rows] ** 2 - _lengths(turned) ** 2, 0) / 2
        turned /= np.float32(step)
        z = np.rint(turned)
        np.clip(z, -LARGEST, LARGEST, out=z)
        values[rows] = z
        turned -= z
        errors[rows] = _lengths(turned) * step

    for _ in parallel(block, blocks):
        pass
    # a rounded vector is at most its error longer than the vector
    longest = float(norms.max() + errors.max())
    unit = step**2
    centers -= 0.5 * np.float32(mean @ mean)
    return Rounded(
        values,
        np.rint(centers / unit).astype(np.int32),
        np.ceil((errors * longest + rest) / unit + 1).astype(np.int32),
        unit,
    )


def leading_axes(sample: Array, count: int) -> Array:
    """[d, count] orthonormal, which span about the leading principal axes of the sample [m, d].

    Within their span a vector's coordinates are all alike, as rounding wants them.
    """
    from scipy.fft import dct

    x = sample - sample.mean(axis=0)
    random = np.random.default_rng(0)
    axes = random.standard_normal((x.shape[1], count), dtype=np.float32)
    for _ in range(POWER_ITERATIONS):
        axes = np.linalg.qr(x.T @ (x @ axes))[0]
    return np.asarray(dct(axes * _random_signs(count), norm="ortho", axis=1))


def _random_signs(count: int) -> Array:
    return np.random.default_rng(0).choice(np.array([-1, 1], np.float32), count)


def _lengths(v: Array) -> Array:
    return np.sqrt(np.einsum("ij,ij->i", v, v))
