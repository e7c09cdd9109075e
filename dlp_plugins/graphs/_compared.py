"""What a search compares in place of the descriptors: vectors with products that bound theirs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import numpy as np

from dlp_plugins.graphs._top_k import Array, Pairs

ROUNDING = np.float32(1e-5)  # error of vectors turned in float32 and of their products


class Compared(ABC):
    """n vectors, of which `products` >= `limits` for every pair whose similarity reaches a bound.

    Products need not be similarities, and may be integers: only the comparison has a meaning.
    """

    dtype: type[np.generic] = np.float32  # of products, 4 bytes

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def rows(self, chosen: slice | Array) -> Self:
        """Only those, in that order."""

    @abstractmethod
    def products(self, others: Self, out: Array | None = None) -> Array:
        """[n, m] with the m others, of `dtype`."""

    @abstractmethod
    def limits(self, bound: Array) -> Array:
        """[n] what products of a pair reach whose similarity reaches the bound [n] float32."""

    @abstractmethod
    def estimating(self) -> Compared:
        """The same, with products near the similarities in place of no less than them."""

    @abstractmethod
    def similarities(self, products: Array) -> Array:
        """[n, m] float32: similarities that products [n, m], one row for each, stand for."""

    def lacking(self, others: Self, pairs: Pairs) -> tuple[Array, Array]:
        """What estimates lack of these pairs' similarities, and the most that they may lack."""
        nothing = np.zeros(len(pairs.rows), np.float32)
        return nothing, nothing

    def narrowed(self, others: Self, share: float) -> tuple[Self, Self]:
        """Both, with products that count only this share of the most that estimates may lack."""
        return self, others


@dataclass(frozen=True)
class Whole(Compared):
    """The descriptors themselves. values: [n, d] float32."""

    values: Array

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, chosen: slice | Array) -> Whole:
        return Whole(self.values[chosen])

    def products(self, others: Whole, out: Array | None = None) -> Array:
        return np.matmul(self.values, others.values.T, out=out)

    def limits(self, bound: Array) -> Array:
        return bound

    def estimating(self) -> Whole:
        return self

    def similarities(self, products: Array) -> Array:
        return products
