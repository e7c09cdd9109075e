"""Leave-one-out of 1,000 labels on 50,000 points, k = 10, alpha = 0.9, 100 classes.

Wall and CPU seconds of both parts: the diagonal of G, once for a graph, and the scores for one set
of labels. The aim is 10 s on two idle cores.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from dlp_plugins.propagation import Propagator
from dlp_plugins.propagation.leave_one_out import LeaveOneOut

POINTS, DIM, CLASSES, LABELS = 50_000, 64, 100, 1_000


def main() -> None:
    random = torch.Generator().manual_seed(0)
    truth = torch.randint(CLASSES, (POINTS,), generator=random)
    centers = torch.randn(CLASSES, DIM, generator=random)
    x = centers[truth] + torch.randn(POINTS, DIM, generator=random)
    graph = Propagator.default(graph="cells", k=10).build_graph(x)
    points = torch.randperm(POINTS, generator=random)[:LABELS].sort().values
    print(f"{torch.get_num_threads()} threads; {graph.num_entries // 2:,} edges")
    wall, cpu = time.perf_counter(), time.process_time()
    prepared = LeaveOneOut.of(graph, points)
    middle, middle_cpu = time.perf_counter(), time.process_time()
    prepared(truth[points], CLASSES)
    end, end_cpu = time.perf_counter(), time.process_time()
    print("| part | wall s | CPU s |\n| --- | --- | --- |")
    print(f"| diagonal | {middle - wall:.1f} | {middle_cpu - cpu:.1f} |")
    print(f"| scores | {end - middle:.1f} | {end_cpu - middle_cpu:.1f} |")
    print(f"| both | {end - wall:.1f} | {end_cpu - cpu:.1f} |")


if __name__ == "__main__":
    main()
