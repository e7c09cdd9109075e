"""`dlp label`: a page in the browser where every label given updates all others."""

from __future__ import annotations

import os
import signal
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dlp_cli import options, output
from dlp_cli.display.phases import show_phases
from dlp_cli.options import (
    KeyOption,
    PluginOption,
    SetOption,
)

PHASES = {
    "read": "Reading embeddings",
    "transform": "Rescaling embeddings",
    "neighbours": "Finding neighbours",
    "graph": "Building the graph",
    "spread": "Spreading labels and choosing the first images",
}


def label(
    embeddings: Annotated[
        Path,
        typer.Argument(
            metavar="EMBEDDINGS|RUN",
            help="A row per image: .npy, .npz, .parquet or .safetensors. Or the folder of a "
            "finished run: its images, described by its network, with the labels it was given.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The images. Ids are paths below it; without ids, all its images by name.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Class names; more can be added in the page."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Labels to start from, as for `dlp propagate`."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="True labels, not shown: the page gives the accuracy."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="SQLite file in which labels are kept. By default x.labels.sqlite beside x.npy.",
        ),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Who chooses the next images: `dlp list selectors`."),
    ] = None,
    overrides: SetOption = None,
    ids: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ids of the images, as `dlp propagate`.")
    ] = None,
    key: KeyOption = None,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Port on 127.0.0.1; 0 takes that of last time, or a free one."
        ),
    ] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    plugins: PluginOption = None,
) -> None:
    """Label images in the browser; every label spreads to all others at once."""
    from dlp_plugins.labeling.run import listen, listen_again, prepare_labeling, serve

    options.load_plugins(plugins)
    job = prepare_labeling(
        embeddings, images=images, classes=[c for c in (classes or "").split(",") if c.strip()],
        labels=labels, truth=truth, state=state, selector=selector, settings=overrides or (),
        ids=ids, key=key,
    )  # fmt: skip
    listener = listen(port) if port else None
    with show_phases(PHASES) as progress:
        session = job.open(progress)
    listener = listener or listen_again(session.store)

    with ExitStack() as until_the_end:

        def ready(address: str) -> None:
            output.say(f"{session.points:,} points; labels are kept in {job.state}")
            output.print_line(f"Open {address}")
            output.say("Ctrl-C ends it. Nothing is lost: start it again to go on.")
            if browser:
                page = until_the_end.enter_context(page_leading_to(address, job.state))
                webbrowser.open(page.as_uri())

        until_the_end.enter_context(others_as_ctrl_c())
        serve(session, listener, embeddings.stem, ready)
    labelled = int((session.live.view.given >= 0).sum())
    output.say(f"{labelled:,} points labelled, in {job.state}")


@contextmanager
def page_leading_to(address: str, state: Path) -> Iterator[Path]:
    """A file beside the labels that leads a browser to the address; only its owner may read it.

    The address holds the secret token, and everybody on the machine sees what stands on a browser's
    command line. The file is not in /tmp: a browser that is a snap has a /tmp of its own.
    """
    handle, name = tempfile.mkstemp(".html", f"{state.stem}-", state.parent.absolute())  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(
                f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">'
                f'<title>dlp label</title><a href="{address}">Open the page</a>\n'
            )
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def others_as_ctrl_c() -> Iterator[None]:
    """Context in which SIGTERM, and SIGHUP of a closed terminal, end the server as Ctrl-C does."""

    def end(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    former = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP)}
    heeded = [s for s, handler in former.items() if handler is not signal.SIG_IGN]  # as nohup does
    for which in heeded:
        signal.signal(which, end)
    try:
        yield
    finally:
        for which in heeded:
            signal.signal(which, former[which])
