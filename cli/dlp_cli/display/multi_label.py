"""Rows of the summary of `dlp propagate --multi-label`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlp_plugins.embeddings.job import FilePropagation
    from dlp_plugins.embeddings.multi_label import MultiOutcome


def multi_label_rows(job: FilePropagation, outcome: MultiOutcome) -> list[tuple[str, str]]:
    recipe, counts = job.recipe, outcome.labels.sum(dim=0).tolist()
    per_point = outcome.labels.sum(dim=1).double()
    return [
        ("points", f"{job.source.points:,}"),
        ("labelled", f"{int((job.given.labels >= 0).sum()):,}"),
        ("classes", f"{len(job.given.classes):,}"),
        (
            "graph",
            f"{recipe.graph.name}: {outcome.edges:,} edges, {outcome.components:,} components",
        ),
        ("zero vectors", f"{outcome.zero_vectors:,}"),
        ("same as an earlier point", f"{outcome.duplicates:,}"),
        ("points no label reaches", f"{int((~outcome.reached).sum()):,}"),
        ("solver", f"{recipe.solver.name}: {outcome.convergence.describe()}"),
        ("labels per point", f"{float(per_point.mean()):.2f}, at most {int(per_point.max())}"),
        ("points per class", f"from {min(counts):,} to {max(counts):,}"),
        ("seconds", ", ".join(f"{k} {v:.1f}" for k, v in outcome.clock.seconds.items())),
    ]
