"""`dlp doctor`: what is installed here, what it can use, what else there is to install."""

from __future__ import annotations

from rich.text import Text

from dlp_cli import output


def doctor() -> None:
    """Report versions, devices and optional parts, with the command that installs each."""
    from dlp_plugins.doctor import devices, extras, versions

    output.print_table(("package", "version"), versions().items(), title="Versions")
    output.print_table(("device", "state"), devices().items(), title="Devices")
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
