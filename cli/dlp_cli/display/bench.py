"""What `dlp bench` shows while it runs: a bar of all cells, one of this cell, a line a result."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from dlp_cli.display.bars import Bars
from dlp_cli.output import console
from dlp_plugins.bench.runner import CellDone, CellStarted
from dlp_plugins.training import events


class BenchDisplay:
    """A context manager to be called with every event. On a pipe only the lines are printed."""

    def __init__(self) -> None:
        self.progress = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.all = self.progress.add_task("all runs", total=None)
        self.cell = self.progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def __call__(self, event: CellStarted | CellDone | events.Event) -> None:
        match event:
            case CellStarted(number=number, total=total, work=work, seed=seed, epochs=epochs):
                self.progress.update(self.all, total=total, completed=number)
                self.progress.reset(
                    self.cell, total=epochs, description=f"{work}, seed {seed}: epochs"
                )
            case events.EpochDone():
                self.progress.advance(self.cell)
            case CellDone(number=number, result=result):
                self.progress.update(self.all, completed=number + 1)
                cell = result.cell
                if result.summary is None:
                    outcome = f"FAILED: {result.failure}"
                else:
                    outcome = f"error {result.summary.get('test_error', float('nan')):.2f} %"
                console.print(f"{cell.row}, seed {cell.seed}: {outcome}", soft_wrap=True)
