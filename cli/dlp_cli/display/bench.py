"""What `dlp bench` shows while it runs: bars of all trials and of this one, a line per result."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from dlp_cli.display.bars import Bars
from dlp_cli.output import can_redraw, console
from dlp_plugins.bench.runner import TrialDone, TrialStarted
from dlp_plugins.training import events


class BenchDisplay:
    """A context manager to be called with every event. On a pipe only the lines are printed."""

    everything = "all runs"

    def __init__(self) -> None:
        self.progress = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not can_redraw(console),
        )
        self.all = self.progress.add_task(self.everything, total=None)
        self.trial = self.progress.add_task("", total=None)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # a closed or full standard output
            self.progress.stop()

    def __call__(self, event: TrialStarted | TrialDone | events.Event) -> None:
        match event:
            case TrialStarted(total=total, work=work, seed=seed, epochs=epochs):
                self.progress.update(self.all, total=total)
                self.progress.reset(
                    self.trial, total=epochs, description=f"{work}, seed {seed}: epochs"
                )
            case events.EpochDone():
                self.progress.advance(self.trial)
            case events.Note(text=text):
                console.print(text, soft_wrap=True)
            case TrialDone(result=result):
                self.progress.advance(self.all)
                trial = result.trial
                if result.summary is None:
                    outcome = f"FAILED: {result.failure}"
                else:
                    error = result.summary.get("test_error")
                    outcome = "done, no test" if error is None else f"error {error:.2f} %"
                console.print(f"{trial.row}, seed {trial.seed}: {outcome}", soft_wrap=True)
