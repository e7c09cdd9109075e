"""`dlp audit`: embeddings and their labels in, the labels that are likely wrong out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlp_cli import options, output
from dlp_cli.display.phases import show_phases
from dlp_cli.options import (
    ClassesOption,
    Device,
    DeviceOption,
    EmbeddingsArgument,
    IdsOption,
    JsonOption,
    KeyOption,
    LabelsOption,
    MemoryOption,
    PluginOption,
    SetOption,
)

if TYPE_CHECKING:
    from dlp_plugins.embeddings.audit import Audit
    from dlp_plugins.embeddings.labels import LabelFile

PHASES = {
    "read": "Reading embeddings",
    "transform": "Rescaling embeddings",
    "neighbours": "Finding neighbours",
    "graph": "Building the graph",
    "audit": "Leaving labels out",
    "write": "Writing the table",
}
SHOWN = 10  # labels in the summary


def audit(
    embeddings: EmbeddingsArgument,
    labels: LabelsOption,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The table, a row per label, the most doubtful first: .csv or "
            ".parquet.",
        ),
    ],
    precision: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="P",
            help="Name as likely wrong only so many labels that an estimated share P of them is.",
        ),
    ] = 0.0,
    overrides: SetOption = None,
    ids: IdsOption = None,
    key: KeyOption = None,
    classes: ClassesOption = None,
    memory: MemoryOption = None,
    device: DeviceOption = Device.auto,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the table.")] = False,
    plugins: PluginOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Find the labels that are likely wrong."""
    from dlp_plugins.embeddings.audit_file import prepare_audit

    options.load_plugins(plugins)
    job = prepare_audit(
        embeddings, labels, out, settings=overrides or (), ids=ids, key=key, classes=classes,
        memory=memory, device=device.value, overwrite=overwrite,
    )  # fmt: skip
    with show_phases(PHASES) as progress:
        found, clock = job.run(progress)
    if as_json:
        summary = to_json(found, job.job.given, precision)
        output.print_json({**summary, "seconds": clock.seconds, "table": str(out)})
        return
    _summary(found, job.job.given, precision)
    output.say("seconds: " + ", ".join(f"{k} {v:.1f}" for k, v in clock.seconds.items()))
    output.say(f"wrote {out}")


def to_json(found: Audit, given: LabelFile, precision: float) -> dict[str, Any]:
    """The summary, with all labels that are likely wrong, the most doubtful first."""
    count, share = found.likely_wrong(precision)
    wrong = []
    for i in found.order[:count].tolist():
        index = int(found.points[i])
        evidence = found.evidence(i)
        point: dict[str, Any] = {
            "index": index,
            "label": given.classes[found.labels[i]],
            "suggested": given.classes[found.suggested[i]],
            "doubt": float(found.doubt[i]),
            "against": evidence,
        }
        if given.ids:
            point["id"] = given.ids.values[index]
            point["against_ids"] = [given.ids.values[row] for row in evidence]
        wrong.append(point)
    return {
        "labels": len(found.points),
        "error_rate": found.error_rate,
        "precision": precision,
        "estimated_precision": share if count else None,
        "likely_wrong": wrong,
        "only_of_their_class": int((found.suggested < 0).sum()),
    }


def _summary(found: Audit, given: LabelFile, precision: float) -> None:
    count, share = found.likely_wrong(precision)
    alone = int((found.suggested < 0).sum())
    first = found.order[:count]
    rows = [
        (
            str(given.ids.values[found.points[i]] if given.ids else found.points[i]),
            str(given.classes[found.labels[i]]),
            str(given.classes[found.suggested[i]]),
            f"{found.doubt[i]:.2f}",
            ", ".join(str(given.ids.values[p] if given.ids else p) for p in found.evidence(i)),
        )
        for i in first[:SHOWN]
    ]
    text = f"{count:,} of {len(found.points):,} labels are likely wrong"
    if count:
        lowest = found.doubt[first[-1]]
        text += f": doubt at least {lowest:.2f}, of which an estimated {share:.0%} are wrong"
    if alone < len(found.points):
        text += f". Of all labels an estimated {found.error_rate:.1%} are"
    output.say(f"{text}.")
    if rows:
        last = "against" if given.ids else "against (rows)"
        output.print_table(("point", "label", "suggested", "doubt", last), rows)
    if count > SHOWN:
        output.say(f"and {count - SHOWN:,} more, in the table")
    if alone:
        output.say(
            f"{alone:,} label{'s are' if alone > 1 else ' is'} the only one of "
            f"{'their classes' if alone > 1 else 'its class'}: nothing to compare with, no doubt."
        )
