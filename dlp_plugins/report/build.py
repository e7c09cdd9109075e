"""From what was read to a page."""

from __future__ import annotations

from collections.abc import Sequence

from dlp_plugins.bench.table import header, row_texts
from dlp_plugins.report.bars import bar_figures
from dlp_plugins.report.certainty import certainty_figure
from dlp_plugins.report.classes import class_figure, confusion_figure
from dlp_plugins.report.curves import curve_figures
from dlp_plugins.report.from_bench import BenchReading
from dlp_plugins.report.from_run import RunReading
from dlp_plugins.report.from_table import TableReading
from dlp_plugins.report.map import map_figure
from dlp_plugins.report.page import Block, Page, Section, Sheet
from dlp_plugins.report.pictures import galleries
from dlp_plugins.report.points import Points, percent, printable
from dlp_plugins.report.reliability import reliability_figure
from dlp_plugins.report.settings import environment_sheet, recipe_blocks, summary_sheet
from dlp_plugins.report.suspicious import suspicious


def run_page(runs: Sequence[RunReading]) -> Page:
    """Runs beside one another: curves in the same figures, the figures of each run in a row."""
    alone = len(runs) == 1
    pseudo: list[Block] = []
    test: list[Block] = []
    images: list[Block] = []
    doubts: list[Block] = []
    maps: list[Block] = []
    for number, run in enumerate(runs):
        end = "" if alone else f", {printable(run.name, 28)}"
        certainty = f"Certainty of right and wrong pseudo-labels{end}"
        pseudo += [
            certainty_figure(f"certainty-{number}", run.pseudo, certainty),
            reliability_figure(f"pseudo-reliability-{number}", run.pseudo, f"Reliability{end}"),
            class_figure(f"pseudo-classes-{number}", run.pseudo, f"Accuracy by class{end}"),
        ]
        test += [
            confusion_figure(f"confusion-{number}", run.test, f"Confusion matrix{end}"),
            class_figure(f"classes-{number}", run.test, f"Accuracy by class{end}"),
            reliability_figure(f"reliability-{number}", run.test, f"Reliability{end}"),
        ]
        images += galleries(f"images-{number}", run.pseudo, run.thumbnail, end)
        doubts.append(
            suspicious(
                f"suspicious-{number}", run.pseudo, run.embedded, run.thumbnail,
                f"The most doubtful given labels{end}",
            )
        )  # fmt: skip
        maps.append(map_figure(f"map-{number}", run.pseudo, run.embedded, f"Descriptors{end}"))
    names = [run.name for run in runs]
    sections = [
        Section("summary", "Results", [summary_sheet(runs)]),
        Section("curves", "By epoch", curve_figures({run.name: run.history for run in runs}), True),
        Section("pseudo-labels", "Pseudo-labels", pseudo),
        Section("test", "Test images", test),
        Section("images", "Images", images),
        Section("suspicious", "Suspicious labels", doubts),
        Section("map", "Map", maps),
        Section("recipe", "Recipe", recipe_blocks(runs)),
        Section(
            "environment", "Environment",
            [environment_sheet(names, [run.environment for run in runs])],
        ),
    ]  # fmt: skip
    shown = [str(run.settings.get("description", "")) for run in runs]
    return Page(", ".join(map(printable, names)), "; ".join(dict.fromkeys(shown)), sections)


def bench_page(bench: BenchReading) -> Page:
    table = Sheet("", header(bench.rows), [row_texts(row, bench.rows) for row in bench.rows])
    failures = [[row.row, failure] for row in bench.rows for failure in row.failures]
    blocks: list[Block] = [table]
    if failures:
        blocks.append(Sheet("Failed", ["row", "why"], failures, numbers=False))
    return Page(
        printable(bench.name),
        bench.description or bench.command,
        [
            Section("summary", "Results", blocks),
            Section("bars", "Means and deviations", bar_figures(bench.rows)),
            Section(
                "environment", "Environment",
                [environment_sheet([""], [{"command": bench.command, **bench.environment}])],
            ),
        ],
    )  # fmt: skip


def table_page(table: TableReading) -> Page:
    points, embedded, thumbnail = table.points, table.embedded, table.thumbnail
    title = f"{points.certainty_name.capitalize()} of labels"
    return Page(
        printable(table.name),
        f"{len(points):,} points, {len(points.classes):,} classes",
        [
            Section("summary", "Results", [_table_summary(points)]),
            Section("labels", "Labels", [
                certainty_figure("certainty", points, title),
                reliability_figure("reliability", points, "Reliability"),
                class_figure("classes", points, "Accuracy by class"),
            ]),
            Section("map", "Classes and map", [
                confusion_figure("confusion", points, "Confusion matrix"),
                map_figure("map", points, embedded, "Embeddings"),
            ]),
            Section("images", "Images", galleries("images", points, thumbnail, "")),
            Section("suspicious", "Suspicious labels", [
                suspicious("suspicious", points, embedded, thumbnail,
                           "The most doubtful given labels"),
            ]),
        ],
    )  # fmt: skip


def _table_summary(points: Points) -> Sheet:
    rows = [
        ["points", f"{len(points):,}"],
        ["classes", f"{len(points.classes):,}"],
        ["without a label", f"{int((points.labels < 0).sum()):,}"],
    ]
    own = points.certainty[~points.known & (points.labels >= 0)]
    if len(own):
        rows.append([f"mean {points.certainty_name} of labels not given", f"{own.mean():.3f}"])
    if points.given is not None:
        rows.insert(1, ["labels given", f"{int(points.given.sum()):,}"])
    if len(points.measured):
        accuracy = f"{percent(points.right.mean())} of {len(points.measured):,}"
        which = "accuracy" if points.given is None else "accuracy, without the given labels"
        rows.append([which, accuracy])
    return Sheet("", ["", ""], rows)
