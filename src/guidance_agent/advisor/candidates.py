"""Versions of an answer that nobody sees until one has passed: what they are, and which of them is taken.

A candidate is a whole answer behind its gate, with its closing. Its verdict decides what happens next: it is delivered,
written again with what failed, strengthened because the judge was not sure, or given up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from guidance_agent.settings import RefinementSettings

if TYPE_CHECKING:
    import sqlalchemy as sa

    from guidance_agent.advisor.events import Event
    from guidance_agent.advisor.gated_answer import GatedAnswer
    from guidance_agent.advisor.outbox import Outbox
    from guidance_agent.compliance.verdict import Verdict
    from guidance_agent.core.journal import Row
    from guidance_agent.llm.messages import ModelRequest
    from guidance_agent.llm.model_stream import ModelStream

__all__ = ["Candidate", "CandidateSupport", "Draft", "NextStep", "better_of", "next_step"]

NextStep = Literal["deliver", "strengthen", "refine", "give_up"]


class Draft:
    """Takes what a gate releases, in place of the outbox, and hands it over when it is delivered."""

    def __init__(self, outbox: Outbox) -> None:
        self.turn_id = outbox.turn_id
        self.consultation_id = outbox.consultation_id
        self._outbox = outbox
        self._kept: list[Callable[[], None]] = []
        self._texts: list[str] = []

    @property
    def text_length(self) -> int:
        # Asked for when an event is numbered, which is after the draft was handed over.
        return self._outbox.text_length

    @property
    def released_text(self) -> str:
        return "".join(self._texts)

    def add_text(self, text: str) -> None:
        self._texts.append(text)
        self._kept.append(lambda: self._outbox.add_text(text))

    def add(self, make: Callable[[int], Event]) -> None:
        self._kept.append(lambda: self._outbox.add(make))

    def add_row(self, table: sa.Table, make: Callable[[int], Row]) -> None:
        self._kept.append(lambda: self._outbox.add_row(table, make))

    def deliver(self) -> None:
        """Give the outbox everything, in its order."""
        for hand_over in self._kept:
            hand_over()


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSupport:
    """What it takes to judge a candidate and to ask for the next one.

    Attributes:
        judge: Returns the verdict on a text, given whether the model ended it as it meant to.
        refine: Makes the request for the next version from the one for the first, and the last version's text and
            verdict.
    """

    judge: Callable[[str, bool], Awaitable[Verdict]]
    refine: Callable[[ModelRequest, str, Verdict], ModelRequest]


class Candidate(NamedTuple):
    """One version of an answer, and its verdict."""

    draft: Draft
    gated: GatedAnswer
    stream: ModelStream
    text: str
    verdict: Verdict


def next_step(candidate: Candidate, number: int, settings: RefinementSettings) -> NextStep:
    """Return what becomes of a candidate.

    Args:
        number: How many versions came before it.
    """
    if candidate.verdict.passed:
        return "strengthen" if candidate.verdict.confidence < settings.borderline else "deliver"
    return "refine" if number < settings.rounds else "give_up"


def better_of(first: Candidate, second: Candidate) -> Candidate:
    """Return the candidate with the better verdict: one that passed, then the surer one, then the first."""

    def rank(candidate: Candidate) -> tuple[bool, float]:
        return candidate.verdict.passed, candidate.verdict.confidence

    return second if rank(second) > rank(first) else first
