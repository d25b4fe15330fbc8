"""One question, one answer: streams a turn through a printer and says how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guidance_agent.advisor.events import Completed, TextDelta, TurnStarted
from guidance_agent.cli.interrupts import deferred_interrupts
from guidance_agent.cli.printers import Printer
from guidance_agent.cli.session import Session
from guidance_agent.core.types import CustomerProfile, HistoryEntry
from guidance_agent.errors import GuidanceAgentError

__all__ = ["Answer", "stream_answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a turn ended.

    Attributes:
        consultation_id: None when the turn was ended before it was on record, as is `turn_id`.
        last_sequence: Number of the turn's last event; -1 when there was none.
        text: What was delivered, which is what the records hold of it.
        interrupted: Whether a signal ended it; `terminated` says that it was SIGTERM.
        error: What made it fail.
    """

    consultation_id: str | None
    turn_id: str | None
    last_sequence: int
    text: str
    completed: Completed | None
    interrupted: bool
    terminated: bool
    error: GuidanceAgentError | None


def stream_answer(
    session: Session,
    printer: Printer,
    customer: CustomerProfile,
    history: Sequence[HistoryEntry],
    *,
    use_reasoning: bool,
    consultation_id: str | None = None,
) -> Answer:
    """Show one turn while it streams. Ctrl-C and SIGTERM end it; what was shown stays recorded.

    Raises:
        InputError, ConfigurationError, StorageError: before anything is shown, as `AdvisorAgent.consult`.
        JournalError: when text could not be recorded; it was not shown.
        OutputClosed: when the reader of standard output has gone; the turn is closed.
    """
    completed: Completed | None = None
    pieces: list[str] = []
    turn_id: str | None = None
    last_sequence = -1
    live = session.turn(customer, history, use_reasoning=use_reasoning, consultation_id=consultation_id)
    with deferred_interrupts() as interrupts:
        with live:
            interrupts.call(live.stop)
            for event in live:
                match event:
                    case TextDelta():
                        pieces.append(event.text)
                    case TurnStarted():
                        consultation_id, turn_id = event.consultation_id, event.turn_id
                    case Completed():
                        completed = event
                if event.turn_id == turn_id:
                    last_sequence = event.sequence
                printer.show(event)
        printer.end()
    return Answer(
        consultation_id=consultation_id,
        turn_id=turn_id,
        last_sequence=last_sequence,
        text="".join(pieces),
        completed=completed,
        interrupted=interrupts.requested and completed is None,
        terminated=interrupts.terminated,
        error=live.error,
    )
