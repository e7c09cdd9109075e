"""pytest-xdist tells its workers the terminal's width; here output is tested as a pipe gets it."""

import os

os.environ.pop("COLUMNS", None)
