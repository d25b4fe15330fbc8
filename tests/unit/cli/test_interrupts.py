"""A signal during an answer is a request, and everything is as before afterwards."""

from __future__ import annotations

import os
import signal

import pytest

from guidance_agent.cli import interrupts
from guidance_agent.cli.interrupts import Terminated, deferred_interrupts, raise_on_sigterm


@pytest.mark.parametrize(("number", "terminated"), [(signal.SIGINT, False), (signal.SIGTERM, True)])
def test_a_signal_calls_what_stops_the_answer(number: signal.Signals, terminated: bool) -> None:
    stopped: list[int] = []
    with deferred_interrupts() as found:
        found.call(lambda: stopped.append(1))
        os.kill(os.getpid(), number)
        assert found.requested
        assert found.terminated is terminated
    assert stopped == [1]


def test_a_signal_that_came_early_stops_at_once() -> None:
    stopped: list[int] = []
    with deferred_interrupts() as found:
        os.kill(os.getpid(), signal.SIGINT)
        found.call(lambda: stopped.append(1))
    assert stopped == [1]


def test_two_signals_at_once_are_one_wish_and_a_later_one_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    with deferred_interrupts() as found:
        found.on_signal(signal.SIGINT, None)
        found.on_signal(signal.SIGINT, None)
        assert left == []
        monkeypatch.setattr(interrupts, "_IMPATIENT_AFTER", 0.0)
        found.on_signal(signal.SIGINT, None)
    assert left == [130]


def test_afterwards_signals_mean_what_they_meant() -> None:
    before = signal.getsignal(signal.SIGINT)
    with deferred_interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_sigterm_ends_a_command_as_an_exception() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        raise_on_sigterm()
        with pytest.raises(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
