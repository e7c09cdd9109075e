"""`dlp plan`: what a propagation would cost on this machine, and which components to choose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from dlp_cli import output
from dlp_cli.options import JsonOption

if TYPE_CHECKING:
    from dlp_plugins.embeddings.plan import Choice, Plan


def plan(
    points: Annotated[str, typer.Option(metavar="N", help="Number of points: 50000, 1.5M, 100M.")],
    dim: Annotated[int, typer.Option(min=1, help="Numbers in each embedding.")],
    classes: Annotated[str, typer.Option(metavar="N", help="Number of classes: 10, 1k.")],
    k: Annotated[int, typer.Option("--k", min=1, help="Neighbours of each point.")] = 10,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Memory to stay within, 64GB. By default 3/4 of what is free."
        ),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="P",
            help="Processes that share the rows (`dlp propagate --shard-rows`), each on a machine "
            "like this one; --memory is for each of them.",
        ),
    ] = 1,
    rates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Speeds measured before; written if there is no such file."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict memory and time from a few seconds of measuring, on the CPU."""
    from dlp_plugins.embeddings import plan as planner
    from dlp_plugins.embeddings.sharded_plan import predict_shared
    from dlp_plugins.environment import free_memory
    from dlp_plugins.errors import UsageError
    from dlp_plugins.registry import EMBEDDINGS
    from dlp_plugins.units import format_bytes, format_seconds, parse_bytes, parse_count

    count, num_classes = parse_count(points), parse_count(classes)
    if count < 2:
        raise UsageError("--points: a graph has at least two points.")
    if processes > count // 2:
        raise UsageError(f"--processes: {processes:,} are too many for {count:,} points.")
    budget = parse_bytes(memory) if memory else 0.75 * free_memory()
    if rates and rates.exists():
        known = planner.load_rates(rates, dim, k)
    else:
        with output.waiting("Measuring this machine", output.error_console):
            known = planner.measure(dim, k)
        if rates:
            planner.save_rates(rates, known)
    if processes == 1:
        chosen = planner.predict(known, count, num_classes, budget)
    else:
        chosen = predict_shared(known, count, num_classes, budget, processes)
    if as_json:
        asked = {"points": count, "dim": dim, "classes": num_classes, "k": known.k}
        limits = {"processes": processes, "budget": budget}
        output.print_json({**asked, **limits, **to_json(chosen)})
        return

    def row(choice: Choice) -> tuple[str | Text, ...]:
        picked = choice.fits and choice in chosen.picked
        return (
            choice.kind,
            Text(choice.name + ", in files" * choice.on_disk, "green" if picked else ""),
            format_seconds(choice.seconds),
            format_bytes(choice.memory),
            "exact" if choice.exact else "approximate",
            "too large" if not choice.fits else "chosen" if picked else "",
        )

    assembling = (
        "graph", "symmetric, normalised", format_seconds(chosen.assemble_seconds),
        format_bytes(chosen.assemble_memory), "exact", "",
    )  # fmt: skip
    transforming = (
        "transform", EMBEDDINGS["transform"], format_seconds(chosen.transform_seconds), "", "exact",
        "",
    )  # fmt: skip
    rows = [
        transforming, *map(row, chosen.builders), assembling, *map(row, chosen.solvers),
        row(chosen.refiner),
    ]  # fmt: skip
    output.print_table(("part", "component", "time", "memory", "answer", ""), rows)
    for reason in chosen.reasons:
        output.say(reason)
    if not chosen.fits:
        return
    each = "" if processes == 1 else f" in each of {processes:,} processes"
    disk = f" and {format_bytes(chosen.disk)} of disk" if chosen.on_disk else ""
    output.say(
        f"In all about {format_seconds(chosen.seconds)} and {format_bytes(chosen.memory)} of "
        f"{format_bytes(budget)}{disk}{each}, for {count:,} points of {dim:,} numbers, "
        f"{num_classes:,} classes, k = {known.k}. Times may be off by a factor of 5."
    )


def to_json(plan: Plan) -> dict[str, Any]:
    """Candidates, what is chosen, and its sums: seconds and bytes."""
    from dlp_plugins.registry import EMBEDDINGS

    def part(kind: str, name: str | None, seconds: float, memory: float | None) -> dict[str, Any]:
        known = {"part": kind, "component": name, "seconds": seconds, "memory": memory}
        return known | {"exact": True, "fits": True, "chosen": True, "on_disk": False}

    def candidate(choice: Choice) -> dict[str, Any]:
        found = part(choice.kind, choice.name, choice.seconds, choice.memory)
        chosen = choice.fits and choice in plan.picked
        more = {"exact": choice.exact, "fits": choice.fits, "chosen": chosen}
        return found | more | {"on_disk": choice.on_disk}

    parts = [
        part("transform", EMBEDDINGS["transform"], plan.transform_seconds, None),
        *map(candidate, plan.builders),
        part("assembly", None, plan.assemble_seconds, plan.assemble_memory),
        *map(candidate, plan.solvers),
        candidate(plan.refiner),
    ]
    return {
        "fits": plan.fits,
        "seconds": plan.seconds if plan.fits else None,
        "memory": plan.memory if plan.fits else None,
        "disk": plan.disk if plan.fits else None,
        "parts": parts,
        "reasons": plan.reasons,
    }
