"""Listeners: told of everything, and none of them can stop a run."""

from __future__ import annotations

import warnings

import pytest

from dlp_plugins.training import events
from dlp_plugins.training.events import Listeners


def test_a_listener_that_fails_is_dropped_with_a_warning_and_the_others_are_told():
    seen: list[object] = []

    def broken(event):
        raise OSError(28, "No space left on device")

    tell = Listeners([broken, seen.append, broken])
    message = "broken failed and gets no more events; the run goes on.*No space left on device"
    with pytest.warns(UserWarning, match=message) as warned:
        tell("first")
    assert len(warned) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell("second")
    assert seen == ["first", "second"]


def test_a_listener_that_leaves_the_program_is_dropped_too():
    def leaves(event):  # as Rich does at a closed pipe
        raise SystemExit(1)

    with pytest.warns(UserWarning, match="leaves failed"):
        Listeners([leaves])("event")


def test_an_interrupt_passes():
    def interrupted(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Listeners([interrupted])("event")


def test_listeners_can_be_added():
    tell, seen = Listeners(), []
    tell.add([seen.append])
    tell(events.PhaseStarted("evaluate"))
    assert seen == [events.PhaseStarted("evaluate")]
