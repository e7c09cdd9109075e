"""Block conjugate gradient on I - alpha Wn, shared by the solvers that are built on it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dlp_plugins.graph import Graph
from dlp_plugins.solvers.contract import Operator, column_norms, row_blocks

# Converged classes are taken out of the product once a quarter of the columns are done: copying the
# rest costs about as much as half an iteration.
KEEP_FRACTION = 0.75


def conjugate_gradient(
    graph: Operator,
    alpha: float,
    b: Tensor,
    initial: Tensor | None,
    tolerance: float,
    max_iterations: int,
) -> tuple[Tensor, int]:
    """Solve (I - alpha Wn) X = B for all columns at once, each with step sizes of its own.

    Hestenes and Stiefel, 1952; the matrix must be symmetric positive (semi-)definite.

    Args:
        graph: Wn.
        b: [n, c]; a column of zeros has the answer 0 and costs nothing.
        initial: [n, c] a first guess, or None for 0.

    Returns:
        X [n, c], and the iterations made. A column stops by the recurrence's residual, which
        rounding lets drift from the true one: the caller computes that anew.
    """
    goal = tolerance * column_norms(b)
    if initial is None:
        x, r = torch.zeros_like(b), b.clone()
    else:
        x = torch.where(goal > 0, initial, 0.0)
        r = graph.matmul(x).mul_(alpha).sub_(x).add_(b)
    p, q, rr = r.clone(), torch.empty_like(r), (r * r).sum(dim=0)
    full, columns = x, torch.arange(b.shape[1], device=b.device)
    iterations = 0
    while iterations < max_iterations:
        active = rr.sqrt() > goal
        left = active.nonzero().squeeze(1)
        if len(left) == 0:
            break
        if len(left) <= KEEP_FRACTION * len(active):
            if x is not full:
                full[:, columns] = x
            columns, rr, goal, active = columns[left], rr[left], goal[left], active[left]
            x, r, p = (v.index_select(1, left) for v in (x, r, p))
            q = torch.empty_like(p)
        rr = _step(graph, alpha, x, r, p, q, rr, active)
        iterations += 1
    if x is not full:
        full[:, columns] = x
    return full, iterations


def _step(
    graph: Operator,
    alpha: float,
    x: Tensor,
    r: Tensor,
    p: Tensor,
    q: Tensor,
    rr: Tensor,
    active: Tensor,
) -> Tensor:
    """One iteration in place on x, r and p [n, m], with room for q = A p; returns the new r.r [m].

    A column that is done has step 0 and keeps its x, and so has one whose p.q is not positive (p in
    the null space, or underflow): 0/0 never arises.
    """
    blocks = row_blocks(q)
    scratch = torch.empty_like(q[blocks[0]])
    pq = torch.zeros_like(rr)
    for rows, product in zip(blocks, _products(graph, p, blocks), strict=True):
        torch.sub(p[rows], product, alpha=alpha, out=q[rows])
        pq += torch.mul(p[rows], q[rows], out=scratch[: len(q[rows])]).sum(dim=0)
    step = torch.where(active & (pq > 0), rr / pq, 0.0)
    new_rr = torch.zeros_like(rr)
    for rows in blocks:
        r[rows].addcmul_(q[rows], step, value=-1)
        new_rr += torch.mul(r[rows], r[rows], out=scratch[: len(q[rows])]).sum(dim=0)
    ratio = torch.where(active, new_rr / rr, 0.0)
    for rows in blocks:
        x[rows].addcmul_(p[rows], step)
        p[rows].mul_(ratio).add_(r[rows])
    return new_rr


def _products(graph: Operator, x: Tensor, blocks: list[slice]) -> Iterator[Tensor]:
    """Wn x by blocks of rows; one at a time where the graph can, so that it is still in cache."""
    if isinstance(graph, Graph) and x.device.type == "cpu":
        return (graph.matmul(x, rows) for rows in blocks)
    whole = graph.matmul(x)
    return (whole[rows] for rows in blocks)
