"""The verdict on an answer that was shown: waited for, for a while, and told."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future

from guidance_agent.advisor.events import Event
from guidance_agent.cli.answering import Answer
from guidance_agent.cli.interrupts import deferred_interrupts
from guidance_agent.cli.margin import Margin
from guidance_agent.cli.printers import Printer
from guidance_agent.cli.session import Session

__all__ = ["WAIT_SECONDS", "show_verdict"]

WAIT_SECONDS = 20.0

PENDING = "Judgement pending: the next process that works in the background gives it (guidance-agent worker --once)."


def show_verdict(session: Session, printer: Printer, margin: Margin, answer: Answer, *, customer_id: str) -> None:
    """Wait for the verdict on an answer, and show it and its corrections; Ctrl-C ends the wait."""
    if answer.turn_id is None or answer.completed is None or not answer.text:
        return
    if not session.judges:
        margin.note(PENDING)
        return
    with deferred_interrupts() as interrupts:
        told = session.submit(
            session.told(answer.turn_id, after=answer.last_sequence, customer_id=customer_id, timeout=WAIT_SECONDS)
        )
        interrupts.call(lambda: _cancel(told))
        try:
            events = told.result()
        except CancelledError:
            events = []
    for event in events:
        printer.show(event)
    printer.end()
    if not events:
        margin.notice(PENDING)


def _cancel(told: Future[list[Event]]) -> None:
    told.cancel()
