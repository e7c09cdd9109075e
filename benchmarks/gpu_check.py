"""What runs on a GPU gives what it must: `python benchmarks/gpu_check.py [--json FILE]`.

The search against a float64 brute force, graphs against the CPU's, solvers against their dense
oracle, the other components against themselves on the CPU, one training step of every combination,
and a resumed run. One line per group; the exit code is 1 if one failed. Without a GPU it runs on
the CPU, with `--tiny` in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts

import torch
from torch import Tensor

from benchmarks import reference
from dlp_plugins import registry
from dlp_plugins.consistency.contract import Batch
from dlp_plugins.datasets.contract import Dataset, TensorImages
from dlp_plugins.environment import choose_device, device_name
from dlp_plugins.graph import Graph, Neighbors, assemble
from dlp_plugins.graphs._blockwise import search_blockwise
from dlp_plugins.graphs._cells_torch import search_cells
from dlp_plugins.recipe.check import check_layers
from dlp_plugins.recipe.files import settings_layer
from dlp_plugins.recipe.model import Recipe
from dlp_plugins.refiners.contract import Given
from dlp_plugins.testing import check_graph, check_solver
from dlp_plugins.training import checkpoint, events
from dlp_plugins.training.data import RunData, prepare_data
from dlp_plugins.training.learner import Learner
from dlp_plugins.training.precision import resolve
from dlp_plugins.training.run import build_accelerator, run

CLASSES, K = 10, 20
STEP_SECONDS = 60.0  # for the training steps, the combinations that matter first
# Compiles for ten seconds and more, to search on the CPU.
LEFT_OUT = {"nn_descent"}
Case = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class Setting:
    device: torch.device
    tiny: bool

    @property
    def points(self) -> int:
        return 300 if self.tiny else 5000


@dataclass
class Result:
    """What became of a group of cases."""

    name: str
    cases: int = 0
    failed: int = 0
    first_error: str = ""
    seconds: float = 0.0

    def line(self) -> str:
        state = f"{self.failed} failed" if self.failed else "ok"
        text = f"{self.name:<42}{self.cases:5d} cases{self.seconds:8.1f} s   {state}"
        return text + (f"\n    {self.first_error}" if self.failed else "")


def run_group(name: str, cases: Iterator[Case]) -> Result:
    """All cases, whatever fails; the first error with its place in the code."""
    result, started = Result(name), time.perf_counter()
    try:
        for case, check in cases:
            result.cases += 1
            try:
                check()
            except Exception as error:
                _note(result, f"{case}: {_describe(error)}")
    except Exception as error:  # while cases were prepared
        _note(result, _describe(error))
    result.seconds = time.perf_counter() - started
    return result


def _note(result: Result, text: str) -> None:
    result.failed += 1
    result.first_error = result.first_error or text


def _describe(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"


def require_close(found: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """Raise AssertionError unless both agree, absolutely or relative to the wanted."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    if found.shape != wanted.shape:
        raise AssertionError(f"{what}: {list(found.shape)}, not {list(wanted.shape)}")
    if not torch.allclose(found, wanted, rtol=tolerance, atol=tolerance):
        difference = (found - wanted).abs().max() if found.numel() else 0.0
        raise AssertionError(f"{what}: differs by {float(difference):.1e} at most {tolerance:.0e}")


def names(kind: str) -> list[str]:
    """Registered components that need no member's name and no missing package."""
    components = [registry.of_kind(kind).find(name) for name in registry.of_kind(kind).names()]
    return [c.name for c in components if not c.family and not c.missing()]


def descriptors(points: int) -> tuple[Tensor, Tensor]:
    """[n, 128] unit rows and their classes [n]; two points are the same."""
    v, truth = reference.mixture(points, CLASSES)
    v[1] = v[0]
    return torch.from_numpy(v), torch.from_numpy(truth)


# -- search, graph, solvers ----------------------------------------------------------------------


def search_cases(s: Setting) -> Iterator[Case]:
    v, _ = descriptors(s.points)
    exact = v.double() @ v.double().T
    exact.fill_diagonal_(-torch.inf)
    best = exact.topk(K, dim=1).values

    def compare(found: Neighbors) -> None:
        own = torch.arange(len(v))[:, None]
        indices = found.indices.cpu().long()
        if bool((indices == own).any()):
            raise AssertionError("a point is its own neighbour")
        similarities = found.similarities.cpu().double()
        require_close(similarities.sort(descending=True).values, best, 1e-5, "similarities")
        require_close(exact.gather(1, indices), similarities, 1e-5, "pairs")

    for entries in (2**28, 7 * len(v)):
        yield (
            f"blockwise, {entries:,} entries",
            lambda e=entries: compare(search_blockwise(v.to(s.device), K, e)),
        )
    size = len(v) // 10
    yield (
        "cells, every one probed",
        lambda: compare(search_cells(v.to(s.device), K, size, len(v), seed=0)),
    )
    for name in ["exact"] if s.tiny else sorted(set(names("graphs")) - LEFT_OUT):
        yield (
            f"check_graph of {name}",
            lambda n=name: check_graph(n, device=s.device, points=2000, least_recall=0.5),
        )


def graph_cases(s: Setting) -> Iterator[Case]:
    v, _ = descriptors(s.points)
    found = search_blockwise(v, K)
    indices = found.indices.clone()
    indices[5, 3:] = -1  # fewer were found
    weights = found.similarities.clamp(min=0) ** 3

    def compare(mutual: bool) -> None:
        wanted = assemble(indices, weights, mutual)
        graph = assemble(indices.to(s.device), weights.to(s.device), mutual)
        require_close(graph.crow_indices, wanted.crow_indices, 0, "rows")
        require_close(graph.col_indices, wanted.col_indices, 0, "columns")
        require_close(graph.values, wanted.values, 1e-5, "values")
        require_close(graph.degree, wanted.degree, 1e-5, "degree")
        x = torch.rand(len(v), 7)
        require_close(graph.matmul(x.to(s.device)), wanted.matmul(x), 1e-5, "product")

    yield "either end", lambda: compare(False)
    yield "mutual", lambda: compare(True)


def solver_cases(s: Setting) -> Iterator[Case]:
    for name in ["cg"] if s.tiny else names("solvers"):
        yield name, lambda n=name: check_solver(n, device=s.device)


# -- the other components, against themselves on the CPU -----------------------------------------


def component_cases(s: Setting) -> Iterator[Case]:
    random = torch.Generator().manual_seed(0)
    v, truth = descriptors(s.points)
    n = len(v)
    p = torch.rand(n, CLASSES, generator=random) ** 4
    p[3] = 0
    scores, p = p - 0.01, p / p.sum(dim=1, keepdim=True).clamp(min=1e-9)
    unlabeled = torch.rand(n, generator=random) > 0.1
    counts = torch.randint(0, 50, (CLASSES,), generator=random)
    found = search_blockwise(v, K)

    def same(compute: Callable[..., Tensor], *inputs: Any, tolerance: float = 1e-5) -> None:
        moved = [x.to(s.device) for x in inputs]
        result = compute(*moved)
        if result.device.type != s.device.type:
            raise AssertionError(f"the result is on {result.device}")
        require_close(result, compute(*(x.clone() for x in inputs)), tolerance, "result")

    def normalized(made: Any) -> Callable[..., Tensor]:
        def normalize(z: Tensor, u: Tensor) -> Tensor:
            shares = torch.full((CLASSES,), 1 / CLASSES, device=z.device)
            return made.apply(z, made.fit(lambda: [(z, u)], shares), shares)

        return normalize

    def weights(made: Any) -> Callable[..., Tensor]:
        return lambda i, x: made.weights(Neighbors(i, x))

    def built(kind: str) -> Iterator[tuple[str, Any]]:
        return ((f"{kind} {name}", registry.of_kind(kind).build(name)) for name in names(kind))

    for name, made in built("affinities"):
        yield name, lambda m=made: same(weights(m), found.indices, found.similarities)
    for name, made in built("transforms"):
        yield name, lambda m=made: same(lambda x: m.apply(x, m.statistics(x)), v)
    for name, made in built("normalizers"):
        yield name, lambda m=made: same(normalized(m), scores, unlabeled)
    for name, made in built("weighters"):
        yield name, lambda m=made: same(m.certainty, p)
    for name, made in built("balancers"):
        yield name, lambda m=made: same(m.class_weights, counts)
    graph = assemble(found.indices, found.similarities.clamp(min=0) ** 3)
    labels = torch.where(torch.rand(n, generator=random) < 0.1, truth, -1)
    soft = torch.nn.functional.one_hot(truth, CLASSES) * 0.5 + 0.05

    def refined(made: Any) -> Callable[..., Tensor]:
        def refine(f: Tensor, q: Tensor, y: Tensor) -> Tensor:
            given = Given.from_labels(y, CLASSES)
            shares = torch.full((CLASSES,), 1 / CLASSES, device=f.device)
            on: Graph = graph.to(f.device)
            return made.refine(f, on, q.clone(), given, shares).probabilities

        return refine

    for name, made in built("refiners"):
        yield name, lambda m=made: same(refined(m), v, soft, labels, tolerance=1e-3)


# -- training ------------------------------------------------------------------------------------


def random_images() -> Dataset:
    """Images of three classes and two sides of noise, enough for a few steps."""
    random = torch.Generator().manual_seed(0)

    def split(count: int) -> TensorImages:
        pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=random)
        return TensorImages(pixels, torch.arange(count) % 3)

    return Dataset(split(60), split(6), ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3)


AXES = {
    "backbone": "small_cnn",
    "consistency": "none",
    "augmentation": "image",
    "optimizer": "sgd",
    "precision": "float32",
}
"""What a step is made of, and the default of each while another is varied."""


def combinations(tiny: bool) -> list[dict[str, str]]:
    """Every value of every axis beside the defaults of the others first, then all the rest."""
    values = {key: names(key) for key in list(AXES)[:-1]}
    values["precision"] = ["float32", "bfloat16"]
    first = [AXES | {key: value} for key in values for value in values[key]]
    first = [c for i, c in enumerate(first) if c not in first[:i]]
    if tiny:
        return first
    every = [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
    return first + [c for c in every if c not in first]


def step_cases(s: Setting) -> Iterator[Case]:
    """Combinations until the time is up; the line counts those that were run."""
    registry.datasets.register("random_images")(random_images)
    try:
        data = prepare_data(step_recipe(AXES), s.device)
        started = time.perf_counter()
        for chosen in combinations(s.tiny):
            if time.perf_counter() - started > STEP_SECONDS:
                return
            yield ", ".join(chosen.values()), lambda c=chosen: take_steps(c, data, s)
    finally:
        registry.datasets.unregister("random_images")


def step_recipe(chosen: dict[str, str]) -> Recipe:
    settings: dict[str, Any] = {
        "dataset.name": "random_images",
        "dataset.num_labeled": 12,
        "optimizer.clip_norm": 1.0,
        "training.batch_size": 12,
        "training.labeled_per_batch": 6,
        "training.precision": chosen["precision"],
    }
    settings |= {f"{key}.name": value for key, value in chosen.items() if key != "precision"}
    if chosen["backbone"] == "small_cnn":
        settings["backbone.width"] = 8
    return check_layers([settings_layer(settings)])


def take_steps(chosen: dict[str, str], data: RunData, s: Setting) -> None:
    """A step of stage one and one of stage two, on soft labels."""
    recipe = resolve(step_recipe(chosen), s.device)
    learner = Learner(recipe, data, build_accelerator(s.device.type, recipe.training.precision))
    learner.begin_stage(total_steps=10)
    learner.consistency.begin_epoch(learner.network, 0)
    before = [p.detach().clone() for p in learner.network.parameters()]
    index = torch.arange(12, device=s.device)
    labels = torch.where(index < 6, index % 3, -1)
    first = Batch(
        images=data.train.source.images[:12].to(s.device),
        index=index,
        labels=labels,
        certainty=(labels >= 0).float(),
        class_weights=torch.ones(3, device=s.device),
        num_labeled=6,
    )
    soft = torch.full((12, 3), 1 / 3, device=s.device)
    second = replace(
        first,
        labels=index % 3,
        certainty=torch.ones(12, device=s.device),
        propagated=True,
        probabilities=soft,
    )
    for number, batch in enumerate((first, second)):
        losses = learner.step(batch, number, 0.1 * number, 5)
        for name, loss in losses.items():
            if not loss.isfinite():
                raise AssertionError(f"loss '{name}' is {float(loss)}")
    after = list(learner.network.parameters())
    if not any(not torch.equal(a, b) for a, b in zip(after, before, strict=True)):
        raise AssertionError("no parameter has moved")
    for p in after:
        if p.device.type != s.device.type or p.dtype != torch.float32:
            raise AssertionError(f"a parameter is {p.dtype} on {p.device}")
        if not p.isfinite().all():
            raise AssertionError("a parameter is not finite")


def resume_cases(s: Setting) -> Iterator[Case]:
    yield "digits, stopped in stage two", lambda: check_resume(s)


def check_resume(s: Setting) -> None:
    """A deterministic run that is stopped and resumed ends as one without a stop, bit for bit."""
    settings = {
        "dataset.num_train": 200, "dataset.num_test": 50, "backbone.width": 8,
        "training.stage_one_epochs": 1, "training.stage_one_steps": 3,
        "training.stage_two_epochs": 2, "training.checkpoint_seconds": 0,
        "training.deterministic": True,
    }  # fmt: skip

    def weights(folder: Path, **options: Any) -> Tensor:
        run("digits", folder, device=s.device.type, **options, **settings)
        state, _ = checkpoint.load(folder / "checkpoint" / "student.safetensors")
        return torch.cat([state[name].float().flatten() for name in sorted(state)])

    class Stop:
        saves = 0

        def __call__(self, event: events.Event) -> None:
            self.saves += isinstance(event, events.CheckpointSaved)
            if self.saves == 6:
                raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as name:
        whole, again = weights(Path(name) / "a"), weights(Path(name) / "b")
        try:
            weights(Path(name) / "c", listeners=[Stop()])
        except KeyboardInterrupt:
            resumed = weights(Path(name) / "c", resume=True)
        else:
            raise AssertionError("the run was not stopped")
    noise, difference = float((again - whole).abs().max()), float((resumed - whole).abs().max())
    if noise != 0 or difference != 0:  # NaN differs too
        raise AssertionError(
            f"weights differ by {difference:.1e} after a resume, by {noise:.1e} without"
        )


GROUPS: dict[str, Callable[[Setting], Iterator[Case]]] = {
    "search against float64 brute force": search_cases,
    "graph against the CPU's": graph_cases,
    "solvers against dense oracles": solver_cases,
    "components against the CPU": component_cases,
    "resume of a run": resume_cases,
    "training steps": step_cases,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--tiny", action="store_true", help="few points and combinations")
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    print(f"{device_name(device)}, torch {torch.__version__}", flush=True)
    results = []
    for name, cases in GROUPS.items():
        results.append(run_group(name, cases(Setting(device, options.tiny))))
        print(results[-1].line(), flush=True)
    if options.json is not None:
        record = {"device": device_name(device), "torch": torch.__version__}
        groups = [vars(result) for result in results]
        options.json.write_text(json.dumps({**record, "groups": groups}, indent=2) + "\n")
    return int(any(result.failed for result in results))


if __name__ == "__main__":
    sys.exit(main())
