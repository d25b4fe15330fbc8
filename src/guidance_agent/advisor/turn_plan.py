"""What is decided before a turn begins, for the turn that carries it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlalchemy as sa

    from guidance_agent.advisor.calculations import CalculationStep
    from guidance_agent.advisor.candidates import CandidateSupport
    from guidance_agent.advisor.gated_answer import AnswerGate
    from guidance_agent.advisor.prompts import CalculationLine
    from guidance_agent.core.journal import Row
    from guidance_agent.llm.messages import ModelRequest

__all__ = ["FoundIds", "TurnPlan"]


class FoundIds(NamedTuple):
    """Ids of what was found for a question."""

    facts: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    memories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPlan:
    """Everything that is decided before a turn begins.

    Attributes:
        opening: Rows that put the turn on record.
        continues: Number of the turn in a consultation that is on record already; None for a new one.
        transcript: Fingerprint of the consultation's transcript before this turn.
        reasoning: The request for the private notes; None for none.
        sums: The step that works sums out; None for none.
        answer: Makes the request for the answer from the notes and the sums.
        gate: Says how the gate of an answer is made.
        candidates: What it takes to judge and refine the answer before it is shown.
        memory_row: Makes the row of the memory that the turn leaves behind from the time of its end.
        started: Monotonic time of the call.
        simulated: Whether the model is known to be the simulator.
    """

    turn_id: str
    consultation_id: str
    customer_id: str
    question: str
    model: str
    opening: tuple[tuple[sa.Table, Row], ...]
    continues: int | None
    transcript: str
    found: FoundIds
    reasoning: ModelRequest | None
    sums: CalculationStep | None
    answer: Callable[[str | None, tuple[CalculationLine, ...]], ModelRequest]
    memory_row: Callable[[datetime], Row]
    gate: Callable[[], AnswerGate]
    candidates: CandidateSupport
    started: float
    simulated: bool
