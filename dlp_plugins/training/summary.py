"""The result of a run as a notebook shows it."""

from __future__ import annotations

from typing import Any

from dlp_plugins.notebook.html import table
from dlp_plugins.units import format_seconds

PERCENT = ("error", "error_top5", "accuracy")  # ends of keys whose values are percentages


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
