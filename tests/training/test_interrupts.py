"""Signals: the first is kept for a good moment, the second stops at once."""

from __future__ import annotations

import os
import signal

import pytest

from dlp_plugins.training.interrupts import SIGNALS, Interrupts


@pytest.mark.parametrize("which", SIGNALS)
def test_a_signal_waits_until_it_is_asked_for_and_a_second_one_does_not(which):
    before = signal.getsignal(which)
    with Interrupts() as interrupts:
        assert not interrupts.asked
        os.kill(os.getpid(), which)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), which)
    assert signal.getsignal(which) is before


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupts.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_of_several_processes_a_launchers_copy_of_a_signal_is_the_same_signal(monkeypatch):
    with Interrupts(several=True) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        monkeypatch.setattr("dlp_plugins.training.interrupts.SAME_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
