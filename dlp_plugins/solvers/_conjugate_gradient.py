"""Block conjugate gradient on I - alpha Wn, shared by the solvers that are built on it."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_plugins.graph import read_host
from dlp_plugins.solvers._rows import RowBlocks
from dlp_plugins.solvers.contract import Operator, checks, column_norms, residual_norms, rounding

# Classes that are done leave the product once a quarter of the columns are: copying the others
# costs about as much as half an iteration.
KEEP_FRACTION = 0.75
# Of classes whose true residual is above the tolerance. With two, every class of 24 graphs ended
# within it, alpha 0.9 to 0.999, where float32 could; at alpha 0.99 and 1e-6 without any none did.
MAX_RESTARTS = 2


def conjugate_gradient(
    graph: Operator,
    alpha: float,
    b: Tensor,
    initial: Tensor | None,
    tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, int, Tensor]:
    """Solve (I - alpha Wn) X = B for all columns at once, each with its own step sizes.

    Hestenes and Stiefel, 1952; the matrix must be symmetric positive (semi-)definite.

    Args:
        graph: Wn.
        b: [n, c]; a column of zeros has the answer 0 and costs nothing.
        initial: [n, c] a first guess, or None for 0.

    Returns:
        X [n, c], the iterations that a column took at most, and the relative residuals [c].

    A column stops by the recurrence's residual, which rounding lets drift from the true one. If the
    true one is then above the tolerance, and float32 can reach the tolerance, it starts again.
    """
    size = column_norms(b)
    goal = tolerance * size
    x, counts = iterate(graph, alpha, b, initial, goal, max_iterations)
    residual = residual_norms(graph, alpha, x, b)
    for _ in range(MAX_RESTARTS):
        drifted = (residual > goal) & (counts < max_iterations)
        if not read_host(drifted).any():
            break
        drifted &= goal > rounding(x)
        if not (found := int(read_host(drifted).sum())):
            break
        # half of the columns at a time, as these are copies
        for again in _positions(drifted, found).split(max(1, b.shape[1] // 2)):
            own, left = b[:, again], max_iterations - int(read_host(counts[again]).max())
            part, more = iterate(graph, alpha, own, x[:, again], goal[again], left)
            x[:, again] = part
            counts[again] += more
            residual[again] = residual_norms(graph, alpha, part, own)
    return x, int(read_host(counts).max(initial=0)), torch.where(size == 0, 0.0, residual / size)


def iterate(
    graph: Operator,
    alpha: float,
    b: Tensor,
    initial: Tensor | None,
    goal: Tensor,
    max_iterations: int,
) -> tuple[Tensor, Tensor]:
    """As `conjugate_gradient`, until the recurrence's residual is at most `goal` [c].

    Returns:
        X [n, c] and the iterations of each column [c].
    """
    if initial is None:
        x, r = torch.zeros_like(b), b.clone()
    else:
        x = torch.where(goal > 0, initial, 0.0)
        r = graph.matmul(x).mul_(alpha).sub_(x).add_(b)
    p, q = r.clone(), torch.empty_like(r)
    full, columns = x, torch.arange(b.shape[1], device=b.device)
    counts = torch.zeros_like(columns)
    with RowBlocks(b) as blocks:
        rr = blocks.sum(lambda rows: r[rows].square().sum(dim=0))
        for iteration in range(max_iterations):
            active = rr.sqrt() > goal
            found = len(active)
            if iteration % checks(b.device) == 0:
                found = int(read_host(active).sum())
            if found == 0:
                break
            if found <= KEEP_FRACTION * len(active):
                if x is not full:
                    full[:, columns] = x
                left = _positions(active, found)
                columns, rr, goal, active = columns[left], rr[left], goal[left], active[left]
                x, r, p = (v[:, left] for v in (x, r, p))
                q = torch.empty_like(p)
                blocks.columns = found
            rr = _step(graph, alpha, x, r, p, q, rr, active, blocks)
            counts[columns] += active
    if x is not full:
        full[:, columns] = x
    return full, counts


def _positions(mask: Tensor, count: int) -> Tensor:
    """Positions [count] of the columns that are True, ascending; `nonzero` would wait again."""
    return mask.byte().argsort(descending=True, stable=True)[:count]


def _step(
    graph: Operator,
    alpha: float,
    x: Tensor,
    r: Tensor,
    p: Tensor,
    q: Tensor,
    rr: Tensor,
    active: Tensor,
    blocks: RowBlocks,
) -> Tensor:
    """One iteration in place on x, r and p [n, m], with room for q = A p; returns the new r.r [m].

    A column that is done has step 0 and keeps its x, and so does one whose p.q is not positive (p
    in the null space, or underflow): 0/0 never arises.
    """

    def product(rows: slice) -> Tensor:
        torch.sub(p[rows], graph.matmul(p, rows), alpha=alpha, out=q[rows])
        return (p[rows] * q[rows]).sum(dim=0)

    def residual(rows: slice) -> Tensor:
        r[rows].addcmul_(q[rows], step, value=-1)
        return r[rows].square().sum(dim=0)

    def update(rows: slice) -> None:
        x[rows].addcmul_(p[rows], step)
        p[rows].mul_(ratio).add_(r[rows])

    pq = blocks.sum(product)
    step = torch.where(active & (pq > 0), rr / pq, 0.0)
    new_rr = blocks.sum(residual)
    ratio = torch.where(active, new_rr / rr, 0.0)
    blocks.map(update)
    return new_rr
