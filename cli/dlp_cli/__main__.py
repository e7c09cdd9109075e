"""The command `dlp`, and `python -m dlp_cli`."""

from __future__ import annotations

import os
import signal
import sys

# How often an OpenMP thread (GCC's, as torch has it) looks whether the others are ready before it
# sleeps: by default 300,000 times. Where another program has one of the cores, that takes the core
# from the thread that is waited for.
SPINS = "5000"


def main() -> None:
    """Entry point."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is loaded
    # Loading the commands takes a quarter of a second, in which Ctrl-C would print a traceback.
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handled:  # else it is ignored, as under nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dlp_cli.app import main as command

    if handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command()
    except KeyboardInterrupt:  # where the command was about to end
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is to end


if __name__ == "__main__":
    main()
