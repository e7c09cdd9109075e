"""What two processes do together, checked in each against what one does alone.

Started twice by test_together.py; writes the names of the checks that held.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python together.py FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from two_processes import METHODS, SAME

from dlp_plugins import registry
from dlp_plugins.embeddings.chunked import propagate_chunked
from dlp_plugins.embeddings.features import open_embeddings
from dlp_plugins.embeddings.memory import ClassChunks
from dlp_plugins.embeddings.sharded import propagate_sharded
from dlp_plugins.graph import Neighbors
from dlp_plugins.graphs import _blockwise
from dlp_plugins.processes.group import Processes, join
from dlp_plugins.propagation import Propagator
from dlp_plugins.training.run import run

Check = Callable[[Processes], None]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def points(n: int, d: int = 24) -> torch.Tensor:
    """Unit vectors near few dimensions, in ten groups; a fifth of them come twice."""
    g = torch.Generator().manual_seed(n)
    v = torch.randn(10, d, generator=g)[torch.arange(n) % 10]
    v = v + 0.4 * torch.randn(n, 4, generator=g) @ torch.randn(4, d, generator=g)
    v[: n // 5] = v[-(n // 5) :]
    return torch.nn.functional.normalize(v, dim=1)


def lists(found: Neighbors) -> list[list[tuple[int, float]]]:
    """The neighbours of each point without the order within its list."""
    return [
        sorted(zip(i, s, strict=True))
        for i, s in zip(found.indices.tolist(), found.similarities.tolist(), strict=True)
    ]


@check
def rows_are_gathered_in_order(processes: Processes) -> None:
    rows = torch.arange(10).reshape(5, 2)
    counts = [3, 2]
    own = rows[:3] if processes.first else rows[3:]
    assert torch.equal(processes.gather_rows(own, counts), rows)
    assert torch.equal(processes.gather_rows(own > 4, counts), rows > 4)
    alone = processes.gather_rows(None if processes.first else rows, [0, 5])
    assert torch.equal(alone, rows)


@check
def rows_are_exchanged(processes: Processes) -> None:
    rows = torch.arange(6).reshape(3, 2) + 10 * processes.rank
    sending = [1, 2] if processes.first else [0, 3]
    receiving = processes.swap(sending)
    assert receiving == ([1, 0] if processes.first else [2, 3])
    found = processes.exchange(rows, sending, receiving)
    others = torch.arange(6).reshape(3, 2)[1:]
    assert torch.equal(found, rows[:1] if processes.first else torch.cat([others, rows]))
    assert processes.exchange(rows[:0].float(), [0, 0], [0, 0]).shape == (0, 2)
    assert processes.summed(torch.tensor([processes.rank, 1.0])).tolist() == [1.0, 2.0]


@check
def the_first_process_decides(processes: Processes) -> None:
    assert processes.from_first(processes.rank) == 0
    mask = torch.tensor([processes.first, False])
    assert processes.tensor_from_first(mask).tolist() == [True, False]
    assert processes.totals([1.0, processes.rank]) == [2.0, 1.0]
    assert processes.each(processes.rank) == [0, 1]


@check
def averages_are_of_all(processes: Processes) -> None:
    real, whole = torch.full((3,), float(processes.rank)), torch.tensor(processes.rank)
    with processes.averaging([real, whole]):
        assert processes.totals([1.0]) == [2.0]  # what is said meanwhile does not mix with them
    assert real.tolist() == [0.5] * 3
    assert whole == processes.rank


def same_neighbors(processes: Processes, name: str, n: int, **parameters: object) -> None:
    builder = registry.graphs.build(name, **parameters)
    unit = points(n)
    alone = builder.neighbors(unit)
    together = builder.neighbors_together(unit, processes)
    if name == "cells":
        assert lists(together) == lists(alone)
    # among duplicates any are right
    assert torch.equal(
        together.similarities.sort(dim=1).values, alone.similarities.sort(dim=1).values
    )
    assert (together.order is None) == (alone.order is None)


@check
def the_exact_search_finds_the_same(processes: Processes) -> None:
    same_neighbors(processes, "exact", 9000, k=5)


@check
def the_exact_search_finds_the_same_without_a_sample(processes: Processes) -> None:
    same_neighbors(processes, "exact", 700, k=20)


@check
def the_search_by_cells_finds_the_same(processes: Processes) -> None:
    same_neighbors(processes, "cells", 6000, k=5, size=64)


@check
def another_search_is_the_first_processs(processes: Processes) -> None:
    same_neighbors(processes, "faiss_hnsw", 1500, k=5)


@check
def the_blockwise_search_finds_the_same(processes: Processes) -> None:
    unit = points(600)
    alone = _blockwise.search_blockwise(unit, 7, 600 * 100)
    together = _blockwise.search_blockwise(unit, 7, 600 * 100, processes)
    assert lists(together) == lists(alone)


def same_labels(processes: Processes, **parameters: object) -> None:
    unit = points(900)
    labels = torch.full((900,), -1)
    labels[torch.arange(0, 900, 9)] = torch.arange(100) % 7
    alone = Propagator.default(k=8, **parameters)
    together = replace(alone, processes=processes)
    one, two = (p(unit, labels, 7, calibrated=True) for p in (alone, together))
    assert torch.equal(one.labels, two.labels)
    torch.testing.assert_close(one.scores, two.scores, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(one.probability, two.probability, rtol=1e-3, atol=1e-4)
    assert one.health.convergence.converged == two.health.convergence.converged


@check
def labels_spread_the_same(processes: Processes) -> None:
    same_labels(processes, alpha=0.9, max_iterations=100)


@check
def a_solver_of_all_classes_at_once_runs_in_one_process(processes: Processes) -> None:
    same_labels(processes, solver="poisson")


FOLDER = Path(sys.argv[1])


@check
def the_rows_of_a_graph_are_shared(processes: Processes) -> None:
    n, classes = 2000, 7
    path = FOLDER / f"x{processes.rank}.npy"
    np.save(path, points(n).numpy())
    labels = torch.full((n,), -1)
    labels[torch.arange(0, n, 9)] = torch.arange(len(labels[::9])) % classes
    parts = {"graph": "cells", "solver": "chebyshev", "refiner": "none", "normalizer": "class_mass"}
    # every cell is probed, so that the search is exact and the same whatever the cells
    alone = Propagator.default(**parts, k=8, size=64, probes=100, alpha=0.9)
    chunks, source = ClassChunks(classes, False, 0), open_embeddings(path)
    one = propagate_chunked(alone, source.load, labels, classes, chunks, scratch=FOLDER)
    together = replace(alone, processes=processes)
    two = propagate_sharded(together, source, labels, classes, chunks, scratch=FOLDER)
    assert torch.equal(one.labels, two.labels)
    torch.testing.assert_close(one.certainty, two.certainty, rtol=0, atol=1e-5)
    torch.testing.assert_close(one.probabilities.all(), two.probabilities.all(), rtol=0, atol=1e-5)
    assert (one.edges, one.components, one.duplicates) == (two.edges, two.components, n // 5)
    assert 0 < two.halo < n // 2


@check
def runs_train_the_same_network(processes: Processes) -> None:
    for method in METHODS:
        run("digits", FOLDER / f"{method}-2", device="cpu", **SAME, consistency=method)


def main() -> None:
    processes = join("cpu")
    with processes.together():
        for name, function in CHECKS.items():
            np.random.seed(0)
            torch.manual_seed(0)
            function(processes)
            if processes.first:
                (FOLDER / f"{name}.ok").touch()
    if processes.first:
        (FOLDER / "checks.json").write_text(json.dumps(list(CHECKS)))


if __name__ == "__main__":
    main()
