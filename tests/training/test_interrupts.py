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
        interrupts.check()
        os.kill(os.getpid(), which)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), which)
    assert signal.getsignal(which) is before


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            interrupts.check()
    finally:
        signal.signal(signal.SIGHUP, before)
