"""What `dlp run` prints at its end: the errors, where everything is, what to try next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.text import Text

from dlp_cli import output
from dlp_plugins.training.summary import with_propagation
from dlp_plugins.units import format_seconds

ROWS = (
    ("{} alone", "supervised_{}test_error"),
    ("with label propagation", "{}test_error"),
    ("best by validation", "best_{}test_error"),
)
NO_TEST = (
    "There are no test images, so there is no test error. Of photos in folders, "
    "--set dataset.test_share=0.2 holds some out."
)


def print_results(
    summary: dict[str, Any],
    folder: Path,
    command: str,
    method: str = "supervised",
    solverless: str | None = None,
) -> None:
    """Both errors, for the teacher too where there is one.

    command: what started the run, without seed and folder. method: what stage one trained by.
    solverless: the command without settings of the solver, by default the same; another solver may
    not know them.
    """
    summary = with_propagation(summary)
    networks = [n for n in ("", "teacher_") if f"supervised_{n}test_error" in summary] or [""]
    if "teacher_test_error" in summary and "teacher_" not in networks:
        networks.append("teacher_")
    titles = {"": "test error", "teacher_": "teacher's"}
    rows: list[tuple[str | Text, ...]] = [
        (label.format(method), *(_percent(summary.get(key.format(n))) for n in networks))
        for label, key in ROWS
        if any(key.format(n) in summary for n in networks)
    ]
    output.say()
    if rows:
        output.print_table(("", *(titles[n] for n in networks)), rows)
    elif not any(summary["epochs"].values()):
        output.say("No epoch was trained (training.stage_one_epochs, training.stage_two_epochs).")
    else:
        output.say(NO_TEST)
        if (error := summary.get("best_validation_error")) is not None:
            output.say(f"Best validation error: {error:.2f} %.")
    if "pseudo_label_accuracy" in summary:
        output.say(f"Pseudo-label accuracy: {summary['pseudo_label_accuracy']:.1f} %.")
    if summary.get("labels_may_change"):
        output.say(
            f"The last propagation stopped at a residual of {summary['residual']:.1e}, so some of "
            "its labels may differ from the exact solution's. A larger solver.max_iterations "
            "brings them nearer; the paper stops at 20."
        )
    output.say(
        f"{format_seconds(summary['seconds'])}, {summary['images_per_second']:,.0f} images/s "
        f"in training, {summary['peak_memory_mb']:,.0f} MiB at most."
    )
    output.say(f"Everything is in {folder}: summary.json, metrics.jsonl, checkpoint/, ...")
    output.say("Next, another seed or another component (`dlp list` names them):")
    output.say(f"  {command} --seed {summary['seed'] + 1}")
    output.say(f"  {solverless or command} --set solver=power --out runs/power")


def _percent(error: float | None) -> Text:
    return Text("-" if error is None else f"{error:.2f} %")
