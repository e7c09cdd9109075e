"""What `dlp propagate --json` prints: all of the summary, as numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dlp_plugins.embeddings.multi_label import MultiOutcome
from dlp_plugins.embeddings.work import work_folder

if TYPE_CHECKING:
    from dlp_plugins.embeddings.chunked import Outcome
    from dlp_plugins.embeddings.job import FilePropagation
    from dlp_plugins.propagation import Convergence
    from dlp_plugins.propagation.calibration import Calibration
    from dlp_plugins.propagation.comparison import Comparison
    from dlp_plugins.propagation.quality import Quality


def to_json(job: FilePropagation, outcome: Outcome | MultiOutcome) -> dict[str, Any]:
    """Fields as docs/json.md lists them."""
    shared = {
        "points": job.source.points,
        "dim": job.source.dim,
        "labeled": int((job.given.labels >= 0).sum()),
        "memory": {
            "peak": job.chunks.peak,
            "budget": job.budget,
            "classes_at_a_time": job.chunks.width,
            "scores_on_disk": job.chunks.on_disk,
            "work_folder": _folder(job),
        },
        "graph": {
            "name": job.recipe.graph.name,
            "edges": outcome.edges,
            "components": outcome.components,
            "halo": getattr(outcome, "halo", None),
        },
        "zero_vectors": outcome.zero_vectors,
        "duplicates": outcome.duplicates,
    }
    if isinstance(outcome, MultiOutcome):
        found = _several_labels(job, outcome)
    else:
        found = _one_label(job, outcome)
    return {
        **shared,
        **found,
        "note": outcome.note,
        "seconds": outcome.clock.seconds,
        "table": str(job.out),
        "index": str(job.index) if job.index else None,
    }


def _folder(job: FilePropagation) -> str | None:
    return None if job.work is None or job.out is None else str(work_folder(job.out))


def _several_labels(job: FilePropagation, outcome: MultiOutcome) -> dict[str, Any]:
    counts = outcome.labels.sum(dim=0).tolist()
    per_point = outcome.labels.sum(dim=1).double()
    return {
        "unreached": int((~outcome.reached).sum()),
        "solver": _solver(job, outcome.convergence),
        "labels_per_point": {"mean": float(per_point.mean()), "most": int(per_point.max())},
        "classes": [
            {"label": label, "points": points}
            for label, points in zip(job.given.classes, counts, strict=True)
        ],
    }


def _one_label(job: FilePropagation, outcome: Outcome) -> dict[str, Any]:
    health, labels = outcome.health, job.given.labels
    crowded = outcome.crowded_classes(labels)
    rule = job.propagator.class_shares
    rows = zip(
        job.given.classes, outcome.counts.tolist(), outcome.class_shares.tolist(), strict=True
    )
    return {
        "components_without_label": health.unlabeled_components,
        "unreached": health.unreached,
        "unreached_but_labeled": int((outcome.labels[~outcome.reached] >= 0).sum()),
        "not_yet_reached": health.not_yet_reached,
        "empty_classes": health.empty_classes,
        "solver": _solver(job, health.convergence),
        "certainty_quartiles": outcome.certainty_quartiles(labels) or None,
        "calibration": _calibration(outcome.calibration),
        "quality": _quality(job.quality(outcome)),
        "class_shares": rule if isinstance(rule, str) else "given",
        "classes": [
            {"label": label, "points": points, "share": share, "times_its_share": crowded.get(j)}
            for j, (label, points, share) in enumerate(rows)
        ],
        "comparison": _comparison(outcome.comparison),
    }


def _solver(job: FilePropagation, convergence: Convergence) -> dict[str, Any]:
    found = asdict(convergence) | {"labels_may_change": convergence.labels_may_change}
    return {"name": job.recipe.solver.name, **found}


def _calibration(found: Calibration | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "temperature": found.temperature,
        "held_out": found.held_out,
        "fixed_because": found.reason or None,
    }


def _quality(found: Quality | None) -> dict[str, Any] | None:
    if found is None:
        return None
    covered = None if found.coverage is None else found.coverage.items()
    return asdict(found) | {
        "coverage": covered and [{"share": share, "accuracy": right} for share, right in covered]
    }


def _comparison(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "methods": [asdict(row) for row in found.rows],
        "chosen": found.chosen.name,
        "judged": found.judged,
        "repeats": found.repeats,
    }
