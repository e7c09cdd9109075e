"""All commands of `dlp`, and how their errors end."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import warnings
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dlp_cli import output
from dlp_cli.commands import (
    assign,
    audit,
    bench,
    check,
    cp,
    doctor,
    embed,
    explain,
    export,
    graph,
    label,
    new,
    plan,
    predict,
    propagate,
    report,
    run,
    show,
    suggest,
    tune,
)
from dlp_cli.commands import list as listing  # `list` is a builtin
from dlp_plugins.errors import DlpError, ElsewhereError, UsageError, in_words
from dlp_plugins.processes.launch import is_first, launched

# Commands that several processes carry out together; torchrun or accelerate launch starts those.
TOGETHER = ("run", "propagate")

# New objects until Python looks for garbage among them, by default 700: importing torch makes
# hundreds of thousands, all of which stay, and looking at them takes a tenth of its time.
OBJECTS_BEFORE_COLLECTION = 100_000
AGAIN_SECONDS = 0.05  # until a Ctrl-C that was dropped comes again
TRACEBACK = "DLP_TRACEBACK"  # set in the environment: an unforeseen error shows its traceback


class _Group(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise  # `| head`: typer leaves without a word
        except OSError as error:  # of a file that nothing else has reported on: not readable, full
            raise DlpError(in_words(error)) from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocat" not in str(error):
                raise
            raise DlpError(
                f"There is not enough memory{f': {error}' if str(error) else ''}."
            ) from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("bench")(bench.bench)
app.command("tune")(tune.tune)
app.command("embed")(embed.embed)
app.command("propagate")(propagate.propagate)
app.command("audit")(audit.audit)
app.command("explain")(explain.explain)
app.command("suggest")(suggest.suggest)
app.command("label")(label.label)
app.command("assign")(assign.assign)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("report")(report.report)
app.add_typer(graph.graph, name="graph")
app.command("plan")(plan.plan)
app.command("check")(check.check)
app.command("cp")(cp.cp)
app.command("list")(listing.list_)
app.command("show")(show.show)
app.command("new")(new.new)
app.command("doctor")(doctor.doctor)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        output.say(f"dlp-plugins {version('dlp-plugins')}")
        raise typer.Exit


@app.callback()
def dlp(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Deep label propagation: many images, few labels, a classifier.

    Start with: dlp run digits
    """
    if (size := launched().size) > 1 and context.invoked_subcommand not in TOGETHER:
        raise UsageError(
            f"{size} processes were started, but dlp {context.invoked_subcommand} uses one. Start "
            f"one; torchrun is for dlp {' and dlp '.join(TOGETHER)}."
        )
    if not is_first():
        output.silence()
        warnings.showwarning = lambda *_, **__: None  # the first process says the same


def _cause(error: Exception) -> str:
    """A component's mistake, or one of ours; what is wrong with an input is a DlpError."""
    from dlp_plugins.registry import raised_by

    found = raised_by(error)
    return found or f"{type(error).__name__}: {error}. This is a mistake in dlp; please report it."


def _ignored(what: Any) -> None:
    """In place of Python's hook for errors that have nowhere to go: Ctrl-C comes again.

    Where it falls into a function that a compiled library calls, that library drops it: the command
    would print a traceback and go on.
    """
    if what.exc_type is not None and issubclass(what.exc_type, KeyboardInterrupt):
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        # a signal, as a flag alone would not end a call that waits
        again = partial(signal.pthread_kill, main_thread, signal.SIGINT)
        threading.Timer(AGAIN_SECONDS, again).start()
    else:
        sys.__unraisablehook__(what)


def main() -> None:
    """Errors meant for a person end here: one message, one exit code, no traceback."""
    gc.set_threshold(OBJECTS_BEFORE_COLLECTION)
    sys.unraisablehook = _ignored
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? and goes on
    try:
        with warnings.catch_warnings():
            warnings.showwarning = output.show_warning
            app()
    except ElsewhereError as error:
        sys.exit(error.exit_code)
    except DlpError as error:
        if is_first() or error.of_one_process:
            output.print_error(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before there was a command
        sys.exit(130)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        output.print_error(f"{_cause(error)} {TRACEBACK}=1 in the environment shows where.")
        sys.exit(1)
    finally:
        gc.freeze()  # at its end Python would look through all of it once more
