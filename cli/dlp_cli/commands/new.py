"""`dlp new`: a package with a component of one's own, ready to install."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dlp_cli import complete, output


def new(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="solver, backbone, ...: see `dlp list`.",
            autocompletion=complete.kinds,
        ),
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What a recipe will call it.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A new folder; by default dlp-KIND-NAME."),
    ] = None,
) -> None:
    """Write a small package with a component of your own: code, entry point, test."""
    from dlp_plugins.registry import of_kind
    from dlp_plugins.scaffold.package import package_for, try_command, write_package

    package = package_for(kind, name)
    folder = out or Path(package.distribution)
    for path in write_package(package, folder):
        output.say(f"wrote {path}")
    place = shlex.quote(str(folder))
    output.say("It works as it stands. Install it, test it, use it:")
    output.say(f"  pip install --editable {place}")
    output.say(f"  python -m pytest {place}")
    output.say(f"  {try_command(of_kind(kind), name)}")
