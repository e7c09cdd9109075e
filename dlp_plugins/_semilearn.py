"""Imports semilearn, and says in a sentence what is missing when it does not load."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from types import ModuleType

from dlp_plugins.component import install_command
from dlp_plugins.errors import MissingDependency, PluginError

VERSIONS = "torch 2.11 with torchvision 0.26 and torchaudio 2.11"


def require() -> ModuleType:
    """Import semilearn.

    Raises:
        MissingDependency: it is not installed.
        PluginError: it is, but one of its own imports fails; the message names it.
    """
    try:
        # Its imports print and warn about optional accelerators; that is nothing to a user here.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return importlib.import_module("semilearn")
    except ModuleNotFoundError as error:
        if error.name == "semilearn":
            raise MissingDependency(
                "USB (semilearn) is not installed. In an environment of its own, run: "
                + install_command("usb")
            ) from None
        raise MissingDependency(
            f"semilearn is installed, but not {error.name}, which it imports. Run: "
            + install_command("usb")
        ) from None
    except (ImportError, OSError, RuntimeError) as error:
        # torchaudio's libraries do not load beside another torch
        raise PluginError(
            f"semilearn does not import here ({type(error).__name__}: {error}). "
            f"USB needs {VERSIONS}, in an environment of its own: docs/usb.md."
        ) from error
