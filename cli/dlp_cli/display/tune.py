"""What `dlp tune` shows while it runs: bars of all trials and of this one, a line per result."""

from __future__ import annotations

from dlp_cli.display.bench import BenchDisplay
from dlp_cli.output import console
from dlp_plugins.tuning.results import ERROR, TrialResult
from dlp_plugins.tuning.study import TrialDone


class TuneDisplay(BenchDisplay):
    """As that of `dlp bench`, but for the lines: they name the validation error."""

    everything = "all trials"

    def __call__(self, event: object) -> None:
        if isinstance(event, TrialDone):
            self.progress.update(self.all, completed=event.number + 1)
            console.print(result_line(event.result), soft_wrap=True)
        else:
            super().__call__(event)  # type: ignore[arg-type]


def result_line(result: TrialResult) -> str:
    """How a trial ended, in words."""
    settings = " ".join(f"{key}={value}" for key, value in result.settings.items())
    if result.state == "failed":
        return f"trial {result.number}, {settings}: FAILED: {result.problem}"
    found = "" if result.error is None else f"{ERROR} {result.error:.2f} %"
    if result.state == "stopped":
        found = f"stopped after {result.epochs} epochs, {found}"
    return f"trial {result.number}, {settings}: {found}"
