"""What is searched: `solver.alpha=0.5..0.999`, `optimizer.learning_rate=1e-3..1:log`,
`graph.k=5,10`.

A range of whole numbers gives whole numbers. `:log` draws the logarithm evenly. A list is tried as
it stands, names of components too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlp_plugins.errors import UsageError

if TYPE_CHECKING:
    from optuna import Trial

EXAMPLES = "solver.alpha=0.5..0.999, optimizer.learning_rate=0.001..1:log or graph.k=10,20,50"
RANGE = re.compile(r"(?P<low>.+?)\.\.(?P<high>.+?)(?P<log>:log)?")
DIGITS = 6  # of a number that is drawn: more would only make the --set line longer
# Trials with other validation images, or other labels, cannot be compared.
FIXED = ("seed", "dataset")


@dataclass(frozen=True)
class Search:
    """One setting and its values.

    choices: texts as for `--set`; empty for a range. low, high: its ends, both included.
    """

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @classmethod
    def parse(cls, text: str) -> Search:
        """From `key=low..high`, `key=low..high:log` or `key=value,value`.

        Raises:
            UsageError: neither of these, or a key that changes what errors are measured on.
        """
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not all(key.split(".")) or not values:
            raise UsageError(f"--search {text}: write {EXAMPLES}.")
        if key.split(".")[0] in FIXED:
            raise UsageError(
                f"--search {text}: with another {key} errors are measured on other images or "
                "learned from other labels, and are not comparable. `dlp bench` averages over them."
            )
        if found := RANGE.fullmatch(values):
            return cls._of_range(text, key, found["low"], found["high"], bool(found["log"]))
        choices = tuple(choice.strip() for choice in values.split(","))
        if not all(choices) or len(set(choices)) < 2:
            raise UsageError(f"--search {text}: nothing to choose from; write {EXAMPLES}.")
        return cls(key, tuple(dict.fromkeys(choices)))

    @classmethod
    def _of_range(cls, text: str, key: str, first: str, last: str, log: bool) -> Search:
        low, high = _number(first), _number(last)
        if low is None or high is None or not low < high:
            raise UsageError(f"--search {text}: write LOW..HIGH, two numbers, the smaller first.")
        if log and low <= 0:
            raise UsageError(f"--search {text}: with :log both ends must be above 0.")
        return cls(key, (), low, high, log)

    @property
    def whole(self) -> bool:
        """Whether a range is of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts to check before anything runs: all choices, or both ends."""
        return self.choices or (repr(self.low), repr(self.high))

    def draw(self, trial: Trial) -> str:
        """The value for a trial, as text for `--set`."""
        if self.choices:
            return str(trial.suggest_categorical(self.key, self.choices))
        if self.whole:
            low, high = int(self.low), int(self.high)
            return str(trial.suggest_int(self.key, low, high, log=self.log))
        return self.text_of(trial.suggest_float(self.key, self.low, self.high, log=self.log))

    def text_of(self, value: object) -> str:
        """What was drawn as text for `--set`; a float has six digits, and stays within the ends."""
        if not isinstance(value, float):
            return str(value)
        return repr(min(max(float(f"{value:.{DIGITS}g}"), float(self.low)), float(self.high)))


def parse_space(texts: Iterable[str]) -> list[Search]:
    """The settings to search.

    Raises:
        UsageError: none, one that is malformed, or one key twice.
    """
    space = [Search.parse(text) for text in texts]
    keys = [search.key for search in space]
    if not space:
        raise UsageError(f"--search is missing: write {EXAMPLES}.")
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise UsageError(f"--search: {twice[0]} is given twice.")
    return space


def combinations(space: Sequence[Search]) -> int | None:
    """How many there are; None where there is a range."""
    if all(search.choices for search in space):
        return math.prod(len(search.choices) for search in space)
    return None


def combination(space: Sequence[Search], number: int) -> dict[str, str]:
    """One of the combinations of lists, by its number from 0; the last list changes fastest."""
    found = {}
    for search in reversed(space):
        number, place = divmod(number, len(search.choices))
        found[search.key] = search.choices[place]
    return {search.key: found[search.key] for search in space}


def _number(text: str) -> float | None:
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else None
    return None
