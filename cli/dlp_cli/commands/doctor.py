"""`dlp doctor`: what is installed here, what it can use, what else there is to install."""

from __future__ import annotations

from dataclasses import asdict

from rich.text import Text

from dlp_cli import output
from dlp_cli.options import JsonOption


def doctor(as_json: JsonOption = False) -> None:
    """Report versions, devices and optional parts, with the command that installs each."""
    from dlp_plugins.doctor import devices, extras, versions

    if as_json:
        output.print_json(
            {
                "versions": versions(),
                "devices": asdict(devices()),
                "extras": [asdict(extra) | {"works": extra.works} for extra in extras()],
            }
        )
        return
    output.print_table(("package", "version"), versions().items(), title="Versions")
    output.print_table(("device", "state"), devices().describe().items(), title="Devices")
    rows = [
        (
            e.name,
            e.purpose,
            Text("installed", "green") if e.works else Text(e.problem, "yellow"),
            "" if e.works else e.command,
        )
        for e in extras()
    ]
    output.print_table(("optional", "gives", "state", "to install"), rows, title="Optional parts")
