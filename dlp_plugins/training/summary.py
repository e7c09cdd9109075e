"""The result of a run as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlp_plugins.notebook.html import table
from dlp_plugins.units import format_seconds

PERCENT = ("error", "error_top5", "accuracy")  # ends of keys whose values are percentages


def with_propagation(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The summary without the errors after label propagation, where a run was of stage one alone.

    There they are stage one's own once more.
    """
    left_out = () if summary["epochs"].get("propagation") else ("test_error", "teacher_test_error")
    return {key: value for key, value in summary.items() if key not in left_out}


class Summary(dict[str, Any]):
    """What goes to summary.json; a dictionary, but for how a notebook shows it."""

    def _repr_html_(self) -> str:
        seconds = self.get("seconds")
        time = "" if seconds is None else f": {format_seconds(seconds)}"
        rows = [(k.replace("_", " "), _text(k, v)) for k, v in self.items() if k != "seconds"]
        return table(f"Run with seed {self.get('seed')}{time}", rows)


def _text(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, float):
        return f"{value:.2f} %" if key.endswith(PERCENT) else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
