"""What a search has found: its trials, the best first, as a table and as settings."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dlp_plugins.notebook.html import table

State = Literal["finished", "stopped", "failed"]
ERROR = "validation error"
# What a search leaves in its folder: the study, the table, the folder of the trials' runs.
STUDY, TABLE, TRIALS_FOLDER = "study.db", "trials.csv", "trials"


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    settings: texts as for `--set`, by key. error: lowest validation error in percent; None where
    none was measured. epochs: measured, not of a stage one that all trials
    share. problem: of a failed one.
    """

    number: int
    settings: dict[str, str]
    state: State
    error: float | None
    epochs: int
    problem: str = ""

    @property
    def set_options(self) -> list[str]:
        """Words of a command line."""
        return [
            word for key, value in self.settings.items() for word in ("--set", f"{key}={value}")
        ]


@dataclass(frozen=True)
class Tuned:
    """All trials of a search, those that finished first, the lowest error first.

    keys: what was searched.
    """

    keys: tuple[str, ...]
    trials: list[TrialResult]

    @classmethod
    def of(cls, keys: Sequence[str], trials: Sequence[TrialResult]) -> Tuned:
        """In any order."""
        order = {"finished": 0, "stopped": 1, "failed": 2}

        def rank(trial: TrialResult) -> tuple[int, float, int]:
            error = float("inf") if trial.error is None else trial.error
            return order[trial.state], error, trial.number

        return cls(tuple(keys), sorted(trials, key=rank))

    @property
    def best(self) -> TrialResult | None:
        """The finished trial with the lowest error; None where none has finished."""
        first = self.trials[0] if self.trials else None
        return first if first is not None and first.state == "finished" else None

    @property
    def columns(self) -> tuple[str, ...]:
        return ("trial", f"{ERROR}, %", "epochs", "state", *self.keys)

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each trial, as `columns`."""
        return [
            (
                str(t.number),
                "-" if t.error is None else f"{t.error:.2f}",
                str(t.epochs),
                t.state,
                *(t.settings.get(key, "") for key in self.keys),
            )
            for t in self.trials
        ]

    def to_csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(
            ["trial", ERROR.replace(" ", "_"), "epochs", "state", *self.keys, "problem"]
        )
        for t, row in zip(self.trials, self.rows(), strict=True):
            error = "" if t.error is None else repr(t.error)
            writer.writerow([row[0], error, *row[2:], t.problem])
        return out.getvalue()

    def _repr_html_(self) -> str:
        best = "" if self.best is None else " ".join(self.best.set_options)
        return table(f"{len(self.trials):,} trials", self.rows(), self.columns, best)
