"""Makes docs/display.svg, the picture of the live display in the README, from a real run.

    python docs/make_display_svg.py [RECIPE]

Trains by the recipe (by default `digits`, ten seconds) and keeps the display as it stood at the
last step but one of stage two.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path

from dlp_cli.display.live import RunScreen
from dlp_cli.display.run_state import RunState
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from dlp_plugins.recipe.check import load_recipe
from dlp_plugins.training.events import Event, StepDone
from dlp_plugins.training.run import run

WIDTH, HEIGHT = 88, 26
PICTURE = Path(__file__).resolve().with_name("display.svg")
# Without the fonts that Rich would fetch from the network: a picture must not.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\n?", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main(recipe: str = "digits") -> None:
    console = Console(
        record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True,
        color_system="truecolor",
    )  # fmt: skip
    state = RunState(recipe)
    loaded = load_recipe(recipe)
    last = loaded.training.stage_two_epochs - 2

    def listen(event: Event) -> None:
        state(event)
        if isinstance(event, StepDone) and state.stage == "propagation" and state.epoch == last:
            console.export_svg(clear=True)  # only the newest screen is kept
            console.print(RunScreen(state))

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        run(loaded, Path("runs") / f"{recipe}-seed0", listeners=[listen])
    svg = console.export_svg(title="dlp run " + recipe, theme=MONOKAI, code_format=FORMAT)
    PICTURE.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
