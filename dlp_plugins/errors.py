"""Errors meant for a person: what was wrong, where, and what to do.

The command line prints these without a traceback and leaves with `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DlpError(Exception):
    """Base of every error that a user can fix. `exit_code` is what `dlp` leaves with."""

    exit_code = 1
    # Of several processes the first prints errors, and another only those that it alone knows of.
    of_one_process = False


class UsageError(DlpError):
    """The request itself is wrong (recipe, option, argument); nothing was started."""

    exit_code = 2


class RegistryError(UsageError):
    """A name is unknown, taken twice, or its component is of the wrong kind."""


class PluginError(UsageError):
    """A plug-in exists but cannot be loaded; the other components still work."""


class MissingDependency(PluginError):  # noqa: N818 - reads as what it is
    """A component needs a package that is not installed; the message holds the install command."""


class ParameterError(UsageError, ValueError):
    """A component's parameter is out of its range."""


class ComponentError(DlpError):
    """A component returned what its contract excludes: a wrong shape, NaN, a value out of range."""


class DataError(DlpError):
    """Data are missing, unreadable, or do not fit what was asked of them."""


class LabelError(DataError):
    """Labels are out of range, too few, or too many for the request."""


class FeatureError(DataError):
    """Descriptors hold NaN or infinity, or are of the wrong shape."""


class GraphError(DlpError):
    """A graph does not satisfy what a solver needs (square, symmetric, non-negative)."""


class ConvergenceError(DlpError):
    """A solver stopped before it reached its tolerance and the caller asked to be told so."""


class DivergenceError(DlpError):
    """Training diverged: a loss or a weight is not finite."""


class RunFolderError(UsageError):
    """A run folder exists already, is missing, or holds another recipe."""


class SaveError(DlpError):
    """A file could not be written (full disk, no permission); what was there before is intact."""


class LostProcessError(DlpError):
    """One of several processes has died or hangs."""


class ElsewhereError(DlpError):
    """Another of several processes has failed and has said why; this one ends without a word."""


class ConvergenceWarning(UserWarning):
    """A solver stopped before it reached its tolerance."""


def in_words(error: OSError) -> str:
    """Which file, and what the system says of it: 'x.npy: Permission denied.'"""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}." if error.filename is not None else f"{reason}."


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name most like `name`, or None when nothing is close."""
    matches = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """A sentence to append to an error: the nearest valid name, or nothing."""
    match = nearest(name, allowed)
    return f" Did you mean '{match}'?" if match else ""
