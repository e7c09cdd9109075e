"""The solve: the product it is made of, conjugate gradient against SciPy's, and every other solver.

    python benchmarks/solver_speed.py [--points 50000] [--cpu]

One process; candidates take turns, and the median of the turns counts. With --cpu one thread works
and its CPU seconds count, which other programs on the machine disturb least. "reference" is SciPy's
conjugate gradient class by class in float64 (benchmarks/reference.py); at 100 classes it solves ten
of them, and its time is ten times that.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from benchmarks import reference
from benchmarks.timing import Timing, in_turns, timed
from dlp_plugins.graph import Graph, assemble
from dlp_plugins.propagation import label_matrix
from dlp_plugins.registry import affinities, graphs, solvers
from dlp_plugins.solvers import Solver

LABELS_PER_CLASS = 10
REFERENCE_CLASSES = 10
cpu_only = False  # whether CPU seconds count, in place of wall seconds


def seconds(timing: Timing) -> float:
    return timing.cpu if cpu_only else timing.wall


def permuted(graph: Graph, order: np.ndarray[Any, Any]) -> Graph:
    matrix = graph.to_scipy()[order][:, order]
    matrix.sort_indices()
    crow, col, values = map(torch.from_numpy, (matrix.indptr, matrix.indices, matrix.data))
    return Graph(crow, col, values, graph.degree[torch.from_numpy(order.copy())])


def compare_products(graph: Graph, classes: int, truth: np.ndarray[Any, Any]) -> None:
    """One product Wn x; ratios are to `Graph.matmul`."""
    wide = Graph(graph.crow_indices.long(), graph.col_indices.long(), graph.values, graph.degree)
    matrix = graph.to_scipy()
    reordering = timed(
        lambda: permuted(graph, sp.csgraph.reverse_cuthill_mckee(matrix, symmetric_mode=True))
    )
    by_bandwidth = reordering.result
    by_class = permuted(graph, np.argsort(truth, kind="stable"))
    x = torch.randn(graph.num_nodes, classes)
    taken = in_turns(
        {
            "Graph.matmul (embedding bag, int32)": lambda: graph.matmul(x),
            "the same, int64": lambda: wide.matmul(x),
            "the same, by blocks of 25 columns": lambda: [
                graph.matmul(block.contiguous()) for block in x.split(25, dim=1)
            ],
            "torch CSR, int32": lambda: graph.matrix @ x,
            "torch CSR, int64": lambda: wide.matrix @ x,
            "SciPy CSR": lambda: matrix @ x.numpy(),
            "Graph.matmul, nodes in reverse Cuthill-McKee order": lambda: by_bandwidth.matmul(x),
            "Graph.matmul, nodes sorted by true class": lambda: by_class.matmul(x),
        },
        turns=7,
    )
    print(f"\nproduct, {classes} columns (reordering once takes {seconds(reordering):.2f} s)")
    table(taken)


def table(taken: dict[str, Timing]) -> None:
    first = seconds(next(iter(taken.values())))
    for name, timing in taken.items():
        s = seconds(timing)
        print(f"  {name:52s} {s:8.4f} s   {s / first:6.2f} x the first")


def compare_solves(
    graph: Graph, wn: sp.csr_matrix, truth: np.ndarray[Any, Any], classes: int
) -> None:
    given = reference.some_labels(truth, LABELS_PER_CLASS)
    y = label_matrix(torch.from_numpy(given), classes)
    cg = solvers.build("cg")
    scale = classes / REFERENCE_CLASSES
    # The first ten columns of the reference are classes 0..9, whatever their number.
    ten = np.where(given < REFERENCE_CLASSES, given, -1)
    taken = in_turns(
        {
            "reference": lambda: reference.solve(wn, ten, REFERENCE_CLASSES),
            "cg": lambda: cg.solve(graph, y),
        },
        turns=3,
    )
    slow, fast = seconds(taken["reference"]) * scale, seconds(taken["cg"])
    print(f"\nsolve, {classes} classes, at most 20 iterations")
    print(f"  reference {slow:.2f} s ({slow / classes:.3f} s per class), cg {fast:.2f} s: "
          f"{slow / fast:.1f} times faster")  # fmt: skip
    ours = cg.solve(graph, y).scores[:, :REFERENCE_CLASSES].argmax(dim=1).numpy()
    theirs = reference.solve(wn, ten, REFERENCE_CLASSES).argmax(axis=1)
    print(
        f"  best of the first {REFERENCE_CLASSES} classes agrees on {np.mean(ours == theirs):.5f}"
    )


def textbook(product: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
    """Twenty iterations of block conjugate gradient as a textbook writes them."""
    z, r, p = torch.zeros_like(y), y, y
    rr = (r * r).sum(dim=0)
    for _ in range(20):
        q = p - 0.99 * product(p)
        step = rr / (p * q).sum(dim=0)
        z, r = z + step * p, r - step * q
        before, rr = rr, (r * r).sum(dim=0)
        p = r + rr / before * p
    return z


def compare_iterations(graph: Graph, truth: np.ndarray[Any, Any], classes: int) -> None:
    """What `cg` gains over the textbook, and after how many iterations labels stop changing."""
    y = label_matrix(torch.from_numpy(reference.some_labels(truth, LABELS_PER_CLASS)), classes)
    cg = solvers.build("cg")

    def from_scratch() -> None:  # a graph keeps its renumbering: here it is computed each time
        cg.solve(Graph(graph.crow_indices, graph.col_indices, graph.values, graph.degree), y)

    print(f"\ntwenty iterations, {classes} classes")
    table(
        in_turns(
            {
                "cg": from_scratch,
                "textbook, Graph.matmul": lambda: textbook(graph.matmul, y),
                "textbook, torch CSR int32": lambda: textbook(lambda x: graph.matrix @ x, y),
            },
            turns=3,
        )
    )
    final = solvers.build("cg", max_iterations=500).solve(graph, y).scores.argmax(dim=1)
    print("  labels after t iterations that are those at convergence, and those of t - 1:")
    before = final
    for t in range(4, 31):
        now = solvers.build("cg", max_iterations=t).solve(graph, y).scores.argmax(dim=1)
        if t % 5 == 0:
            same, still = (float((now == other).float().mean()) for other in (final, before))
            print(f"    t = {t:2d}: {same:.4f}, {still:.4f}")
        before = now


EVERY = ("cg", "chebyshev", "power", "torch_sparse", "amg", "spectral", "poisson")


def compare_solvers(graph: Graph, truth: np.ndarray[Any, Any], classes: int) -> None:
    """Every solver once with its defaults; agreement is with conjugate gradient run to 1e-6."""
    y = label_matrix(torch.from_numpy(reference.some_labels(truth, LABELS_PER_CLASS)), classes)
    print(f"\nevery solver once, {classes} classes; 'cg, long' may take 500 iterations")
    for alpha, names in ((0.99, EVERY), (0.9999, ("cg", "amg"))):
        exact = solvers.build("cg", alpha=alpha, max_iterations=500)
        best = run("cg, long", exact, graph, y, None)
        for name in names:
            if missing := solvers.get(name).missing():
                print(f"  {name}: not run, needs {', '.join(missing)}")
                continue
            own = {"alpha": alpha} if name != "poisson" else {}
            run(name, solvers.build(name, **own), graph, y, best)


def run(name: str, solver: Solver, graph: Graph, y: Tensor, best: Tensor | None) -> Tensor:
    """Prepare and solve once and print one line; returns each node's best class [n]."""
    prepare = timed(lambda: solver.prepare(graph))
    solve = timed(lambda: solver.solve(prepare.result, y))
    solution = solve.result
    found = solution.scores.argmax(dim=1)
    agree = 1.0 if best is None else float((found == best).float().mean())
    print(
        f"  {name:13s} alpha {getattr(solver, 'alpha', '-'):<7} prepare {seconds(prepare):6.2f} s"
        f"  solve {seconds(solve):7.3f} s  {solution.iterations:4d} products"
        f"  residual {float(solution.residual.max()):.0e}  agreement {agree:.4f}"
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of one thread")
    arguments = parser.parse_args()
    points = arguments.points
    if arguments.cpu:
        global cpu_only
        cpu_only = True
        torch.set_num_threads(1)
    warnings.filterwarnings("ignore")  # torch warns that its CSR is in beta
    for classes in (10, 100):
        v, truth = reference.mixture(points, classes)
        neighbors = graphs.build("exact").neighbors(torch.from_numpy(v))
        weights = affinities.build("inner_product").weights(neighbors)
        graph = assemble(neighbors.indices, weights)
        print(
            f"\n{points:,} nodes, {graph.num_entries:,} entries, {torch.get_num_threads()} threads"
        )
        compare_products(graph, classes, truth)
        compare_iterations(graph, truth, classes)
        compare_solves(graph, graph.to_scipy().astype(np.float64), truth, classes)
        if classes == 10:
            compare_solvers(graph, truth, classes)


if __name__ == "__main__":
    main()
