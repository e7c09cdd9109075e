"""From paths to a page: what `dlp report` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlp_plugins._files.writing import check_place, replacing, write_text
from dlp_plugins.errors import DataError, SaveError, UsageError
from dlp_plugins.report.build import bench_page, run_page, table_page
from dlp_plugins.report.from_bench import RESULTS, read_bench
from dlp_plugins.report.from_run import read_run
from dlp_plugins.report.from_table import read_table
from dlp_plugins.report.page import Page
from dlp_plugins.report.plot import check_matplotlib, to_png
from dlp_plugins.tuning.results import STUDY, TABLE, TRIALS_FOLDER

MOST_RUNS = 8  # on one page: as many as there are colours of lines
SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class TableFiles:
    """Files that belong to the points of a table; see `read_table`."""

    embeddings: Path | None = None
    key: str | None = None
    images: Path | None = None
    labels: Path | None = None
    truth: Path | None = None


def write_report(
    targets: Sequence[Path | str],
    out: Path | str,
    *,
    files: TableFiles | None = None,
    png: bool = False,
    device: str = "auto",
    overwrite: bool = False,
) -> list[Path]:
    """Write the page about runs, the folder of a `dlp bench`, or a table of labels.

    Args:
        targets: folders of runs; or one folder of results, or one table.
        files: what belongs to the points of a table.
        png: write every figure as a PNG too, into a folder beside the page.
        device: that networks of runs classify images on.

    Returns:
        What was written: the page, and the PNG files.

    Raises:
        MissingDependency: Matplotlib is not installed.
        UsageError: targets of several kinds, options that do not fit, or a file that is there.
        RunFolderError, DataError: there is no such thing, it is unfinished, or damaged.
        SaveError: something could not be written.
    """
    check_matplotlib()
    out = Path(out)
    check_place(out, SUFFIXES, "the report", overwrite)
    figures = out.with_name(f"{out.stem}_figures")
    if png and figures.exists() and not (overwrite and figures.is_dir()):
        raise UsageError(f"{figures}: exists already. Add --overwrite to write into it.")
    page = build([Path(target) for target in targets], files or TableFiles(), device)
    write_text(out, page.html())
    return [out, *(_write_figures(figures, page) if png else ())]


def build(targets: Sequence[Path], files: TableFiles, device: str) -> Page:
    """The page about the targets; errors as of `write_report`."""
    kinds = [_kind(target) for target in targets]
    if set(kinds) != {"table"} and files != TableFiles():
        raise UsageError(
            "--embeddings, --key, --images, --labels and --truth belong to a table; a run or a "
            "bench folder takes none of them."
        )
    if files.key is not None and files.embeddings is None:
        raise UsageError("--key names an array of --embeddings FILE, which is missing.")
    if len(targets) == 1 and kinds == ["table"]:
        return table_page(read_table(targets[0], **vars(files)))
    if len(targets) == 1 and kinds == ["bench"]:
        return bench_page(read_bench(targets[0]))
    if set(kinds) != {"run"}:
        raise UsageError(
            "One page shows one table, one bench folder, or several runs. Write a page for each."
        )
    if len(targets) > MOST_RUNS:
        raise UsageError(
            f"{len(targets)} runs are too many for one page; {MOST_RUNS} can be compared. For more "
            "of them use `dlp bench`, and report its folder."
        )
    return run_page(
        [read_run(t, name, device) for t, name in zip(targets, _names(targets), strict=True)]
    )


def _kind(target: Path) -> str:
    if target.is_file():
        return "table"
    if not target.is_dir():
        raise DataError(f"{target}: there is no such file or folder.")
    if (target / RESULTS).is_file():
        return "bench"
    if any((target / name).exists() for name in ("recipe.toml", "summary.json")):
        return "run"
    if (target / STUDY).is_file():
        raise DataError(
            f"{target} is the folder of a `dlp tune`, which has no page. Its table is "
            f"{target / TABLE}; report a run below {target / TRIALS_FOLDER}."
        )
    if (target / "_stage_one").is_dir() or any(target.glob("*/seed*/recipe.toml")):
        raise DataError(
            f"{target} holds runs of `dlp bench` but no {RESULTS}: it is unfinished. Give the same "
            "`dlp bench` command again, which goes on from here, or report single runs."
        )
    raise DataError(
        f"{target} holds neither a run (recipe.toml, summary.json) nor results of `dlp bench` "
        f"({RESULTS})."
    )


def _names(targets: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    parts = [target.resolve().parts for target in targets]
    if len(set(parts)) < len(parts):
        raise UsageError("The same run is given twice.")
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths have different ends")


def _write_figures(folder: Path, page: Page) -> list[Path]:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise SaveError(f"{folder} could not be made: {error.strerror}.") from error
    written = []
    for figure in page.figures:
        path = folder / f"{figure.name}.png"
        with replacing(path) as temporary:
            temporary.write_bytes(to_png(figure.paint, figure.size))
        written.append(path)
    return written
