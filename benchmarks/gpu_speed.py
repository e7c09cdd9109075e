"""Speed of search, solve and training on a GPU: `python benchmarks/gpu_speed.py [--million]`.

Search, graph and solve at 50,000 points of 128 numbers (k = 50), or a million (k = 30); then images
per second of the 13-layer network in batches of 100: float32, TF32 and bfloat16, both memory
formats, plain, compiled, with CUDA graphs. What fails or has no time left is a line too.
Without a GPU it runs on the CPU, with `--tiny` in seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks import reference
from dlp_plugins import registry
from dlp_plugins.environment import choose_device, device_name, peak_memory_mb
from dlp_plugins.graph import assemble
from dlp_plugins.graphs.contract import recall
from dlp_plugins.network import Network
from dlp_plugins.propagation import label_matrix

BATCH, WARM_UP = 100, 3
LABELS = 2  # per class
MEASURE_SECONDS = 1.0  # of steps, once the network is warm
PRECISIONS = ("float32", "TF32", "bfloat16")
FORMATS = ("contiguous", "channels-last")
# Inductor's CUDA graphs, and CUDA graphs alone, which need no compiler and far less time.
MODES: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "compiled": {},
    "compiled, CUDA graphs": {"mode": "reduce-overhead"},
    "CUDA graphs alone": {"backend": "cudagraphs"},
}
Row = dict[str, Any]


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """The second of two runs: the first loads kernels."""
    work()
    synchronize(device)
    started = time.perf_counter()
    result = work()
    synchronize(device)
    return result, time.perf_counter() - started


# -- propagation ---------------------------------------------------------------------------------


def propagation(points: int, k: int, device: torch.device, limit: float) -> Iterator[Row]:
    """Search, graph, and solves for 10 and 100 classes.

    A search whose time, predicted from a tenth of the points, is above `limit` is left out, and
    what follows runs on the graph of that tenth.
    """
    vectors, truth = reference.mixture(points, 100)
    exact = registry.graphs.build("exact", k=k)
    some = max(k + 1, points // 10)
    v = torch.from_numpy(vectors).to(device)
    _, part = seconds(lambda: exact.neighbors(v[:some]), device)
    predicted = part * (points / some) ** 2
    if 2 * predicted > limit:
        text = f"predicted {predicted:.1f} s, more than there is time for"
        yield {"what": f"search, {points:,} points", "note": text}
        points, v = some, v[:some]
    found, spent = seconds(lambda: exact.neighbors(v), device)
    yield {"what": f"search, {points:,} points, k = {k}", "seconds": spent}
    cells, spent = seconds(lambda: registry.graphs.build("cells", k=k).neighbors(v), device)
    share = f"{recall(cells, found):.3f}"
    yield {"what": f"search by cells, recall {share}", "seconds": spent}
    affinity = registry.affinities.build("inner_product")
    graph, spent = seconds(lambda: assemble(found.indices, affinity.weights(found)), device)
    yield {"what": f"graph, {graph.num_entries:,} entries", "seconds": spent}
    for classes in (10, 100):
        labels = torch.from_numpy(reference.some_labels(truth[:points] % classes, LABELS)).to(
            device
        )
        y = label_matrix(labels, classes)
        for name in ("cg", "chebyshev"):
            solver = registry.solvers.build(name, max_iterations=20)
            _, spent = seconds(lambda s=solver, y=y: s.solve(graph, y), device)
            yield {"what": f"{name}, 20 iterations, {classes} classes", "seconds": spent}


# -- training ------------------------------------------------------------------------------------


def training(device: torch.device, tiny: bool, limit: float) -> Iterator[Row]:
    """Images per second of every combination, the fastest to measure and the likeliest first."""
    order = sorted(
        product(MODES, PRECISIONS, FORMATS),
        key=lambda c: (c[0] != "plain", (c[1], c[2]) != ("bfloat16", "channels-last"), c[1]),
    )
    if tiny:
        order = [c for c in order if c[0] == "plain"]
    started = time.perf_counter()
    for mode, precision, layout in order:
        row: Row = {"mode": mode, "precision": precision, "format": layout}
        if time.perf_counter() - started > limit:
            row["note"] = "no time left"
        else:
            try:
                row |= measure(mode, precision, layout, device, tiny)
            except Exception as error:  # a combination that fails must not end the others
                row["note"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        yield row


def measure(mode: str, precision: str, layout: str, device: torch.device, tiny: bool) -> Row:
    """Steps of the recipe lp_cifar10's network and optimizer, on random images on the device."""
    if precision == "TF32" and device.type != "cuda":
        raise ValueError("only a GPU has TF32")
    torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "TF32"
    torch.backends.cudnn.benchmark = True
    if MODES[mode] is not None:
        torch._dynamo.reset()
    memory = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    batch, name = (8, "small_cnn") if tiny else (BATCH, "cnn13")
    backbone = registry.backbones.build(name, input_shape=(3, 32, 32))
    network = Network(backbone, 10, weight_norm_heads="both").to(device)
    network = network.to(memory_format=memory)  # type: ignore[call-overload]
    images = torch.randn(batch, 3, 32, 32, device=device).contiguous(memory_format=memory)
    labels = torch.randint(0, 10, (batch,), device=device)
    options = MODES[mode]
    forward = network if options is None else torch.compile(network, **options)
    optimizer = registry.optimizers.build("sgd", params=[{"params": list(network.parameters())}])

    def step() -> None:
        if options is not None:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(forward(images).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    started = time.perf_counter()
    for _ in range(1 if tiny else WARM_UP):
        step()
    synchronize(device)
    ready, steps = time.perf_counter(), 0
    while steps == 0 or (not tiny and time.perf_counter() - ready < MEASURE_SECONDS):
        for _ in range(1 if tiny else 10):
            step()
            steps += 1
        synchronize(device)
    spent = time.perf_counter() - ready
    return {
        "images_per_second": steps * batch / spent,
        "first_seconds": ready - started,
        "peak_mib": peak_memory_mb(device),
    }


# -- the report ----------------------------------------------------------------------------------


def line(row: Row) -> str:
    if "what" in row:
        return f"{row['what']:<45}" + (row.get("note") or f"{row['seconds']:10.3f} s")
    text = f"{row['mode']:<24}{row['precision']:<10}{row['format']:<15}"
    if "note" in row:
        return text + row["note"]
    return text + (
        f"{row['images_per_second']:10.0f} images/s, first steps {row['first_seconds']:6.1f} s, "
        f"peak {row['peak_mib']:,.0f} MiB"
    )


def guarded(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, and in place of an error a row that says what it was."""
    try:
        yield from rows
    except Exception as error:
        yield {"what": "stopped", "note": f"{type(error).__name__}: {error}"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--tiny", action="store_true", help="few points, single steps")
    parser.add_argument("--million", action="store_true", help="a million points, no network")
    parser.add_argument("--seconds", type=float, default=75.0, help="start nothing after these")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    options = parser.parse_args(arguments)
    device, tf32 = choose_device(options.device), torch.backends.cudnn.allow_tf32
    print(f"{device_name(device)}, torch {torch.__version__}", flush=True)
    points, k = (1_000_000, 30) if options.million else (50_000, 50)
    points, k = (2000, 10) if options.tiny else (points, k)
    rows: list[Row] = []
    started = time.perf_counter()

    def report(some: Iterator[Row]) -> None:
        for row in guarded(some):
            rows.append(row)
            print(line(row), flush=True)

    report(propagation(points, k, device, options.seconds))
    if not options.million:
        left = options.seconds - (time.perf_counter() - started)
        report(training(device, options.tiny, left))
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = tf32
    if options.json is not None:
        record = {"device": device_name(device), "torch": torch.__version__, "rows": rows}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
