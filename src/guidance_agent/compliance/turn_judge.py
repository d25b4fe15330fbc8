"""One turn before the judge: its delivered text is read from the records, judged, and the verdict stored.

The verdict, its event, the corrections and the review that follow from it, and the end of the turn's wait are one
transaction. Judging a turn again that has its verdict does nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

from guidance_agent.advisor.events import Corrected, Judged, event_to_json
from guidance_agent.advisor.turn_trace import identity_of
from guidance_agent.compliance.validation_trace import note_verdict, trace_corrections, validation
from guidance_agent.core.types import CustomerProfile, HistoryEntry
from guidance_agent.core.verdicts import LIVE, NewCorrection, NewVerdict, ReviewCause, VerdictRecords
from guidance_agent.errors import ConfigurationError, CustomerProfileError, InputError, ModelError
from guidance_agent.tracing.people import people_of
from guidance_agent.tracing.tracer import NO_TRACING, Current, Tracing

if TYPE_CHECKING:
    from guidance_agent.compliance.reply import Reply
    from guidance_agent.compliance.verdict import Verdict
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.delivered_text import DeliveredText

__all__ = ["CUT_OFF", "Judge", "TurnJudge", "new_verdict", "reply_of"]

CUT_OFF = ("length", "content_filter")
"""Ends of an answer that the model did not mean."""

_UK = ZoneInfo("Europe/London")

_logger = logging.getLogger("guidance_agent.judging")


class Judge(Protocol):
    """What gives verdicts; `GuidanceValidator` is one."""

    @property
    def policy_version(self) -> str:
        """Fingerprint of everything that a verdict depends on besides the text; may read files."""

    async def validate(
        self,
        text: str,
        *,
        question: str,
        history: Sequence[HistoryEntry] = (),
        customer: CustomerProfile | None = None,
        complete: bool = True,
        on: date | None = None,
        turn_id: str | None = None,
        consultation_id: str | None = None,
    ) -> Verdict:
        """Return the verdict on a text, or raise `ModelError` when there can be none now."""


class TurnJudge:
    """Judges recorded turns, a few at a time.

    Args:
        deadline: How long after its end a turn is tried before a person must look at it.
        at_once: How many calls of the judge may run at the same time.
        announce: Called with the id of a turn whose judgement has changed.
        tracing: Continues the traces of the turns.
    """

    def __init__(
        self,
        verdicts: VerdictRecords,
        judge: Judge,
        clock: Clock,
        *,
        deadline: timedelta,
        at_once: int,
        announce: Callable[[str], None],
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._tracing = tracing
        self.at_once = at_once
        self.judged = 0
        self.given_up = 0
        self._verdicts = verdicts
        self._judge = judge
        self._clock = clock
        self._deadline = deadline
        self._announce = announce
        self._version: str | None = None
        # Protects the judge's provider, and this loop, from a burst of turns that end together.
        self._calls = asyncio.Semaphore(at_once)

    async def policy_version(self) -> str:
        """Return the judge's version; its first use reads files, so it is read in a thread."""
        if self._version is None:
            self._version = await asyncio.to_thread(lambda: self._judge.policy_version)
        return self._version

    async def attempt(self, turn_id: str) -> Exception | None:
        """Judge a turn if it waits, and return why it must be tried again; None when nothing is left to do.

        Raises:
            StorageError: when the records cannot be used.
        """
        text = await self._verdicts.delivered_text(turn_id)
        if text is None or text.judgement not in ("pending", "unjudged_needs_review"):
            return None
        with self._turns_trace(text):
            try:
                verdict = await self._verdict(text)
            except (ModelError, ConfigurationError, InputError) as error:
                retryable = isinstance(error, ModelError) and error.retryable
                return await self._without_verdict(text, error, retryable=retryable)
            await self._store(text, verdict)
        return None

    def _turns_trace(self, text: DeliveredText) -> Current:
        identity = identity_of(
            self._tracing, text.customer_id, turn_id=text.turn_id, consultation_id=text.consultation_id
        )
        people = people_of(text.customer_id, text.profile)
        return self._tracing.continued(text.traceparent, identity, names=people)

    async def _verdict(self, text: DeliveredText) -> Verdict:
        found = await self._given_before(text)
        if found is not None:
            with validation(self._tracing, text.text, purpose=LIVE) as span:
                note_verdict(span, found, reused=True)
            return found
        async with self._calls:
            with validation(self._tracing, text.text, purpose=LIVE) as span:
                verdict = await self._validate(text)
                note_verdict(span, verdict)
        return verdict

    async def _given_before(self, text: DeliveredText) -> Verdict | None:
        """Return the verdict by which the text passed before it was shown, as long as it would be the same today."""
        found = await self._verdicts.passed_as_candidate(text.turn_id, text.text_hash, await self.policy_version())
        if found is None:
            return None
        # Not imported on the way to a process's first text.
        from guidance_agent.compliance.verdict import Verdict

        verdict = Verdict.model_validate(found.verdict)
        if verdict.rules is not None and verdict.rules.day != _day_of(text):
            return None
        # Paid for as a candidate's, and not twice.
        return verdict.model_copy(update={"cost_usd": 0.0})

    async def _validate(self, text: DeliveredText) -> Verdict:
        reply = reply_of(text)
        return await self._judge.validate(
            reply.text,
            question=reply.question,
            history=reply.history,
            customer=reply.customer,
            complete=reply.complete,
            on=reply.on,
            turn_id=text.turn_id,
            consultation_id=text.consultation_id,
        )

    async def _without_verdict(self, text: DeliveredText, error: Exception, *, retryable: bool) -> Exception | None:
        _logger.warning("no verdict: turn=%s error=%s: %s", text.turn_id, type(error).__name__, error)
        late = self._clock.now() - text.ended_at > self._deadline
        if retryable and not late and text.judgement == "pending":
            return error
        why = "until the deadline" if retryable else "for good"
        detail = f"The judge could not answer, {why}: {type(error).__name__}: {error}"
        if await self._verdicts.give_up(text.turn_id, detail=detail):
            self.given_up += 1
            self._announce(text.turn_id)
        return None

    async def _store(self, text: DeliveredText, verdict: Verdict) -> None:
        turn_id = text.turn_id

        def judged(verdict_id: str, sequence: int) -> dict[str, object]:
            return event_to_json(
                Judged(
                    turn_id=turn_id, sequence=sequence, verdict_id=verdict_id, verdict=verdict.model_dump(mode="json")
                )
            )

        def corrected(verdict_id: str, sequence: int, correction: NewCorrection) -> dict[str, object]:
            return event_to_json(
                Corrected(
                    turn_id=turn_id,
                    sequence=sequence,
                    start=correction.start,
                    end=correction.end,
                    replacement=correction.replacement,
                    reason=correction.reason,
                    verdict_id=verdict_id,
                )
            )

        new = new_verdict(verdict, turn_id=turn_id)
        corrections = _corrections(verdict, len(text.text))
        stored = await self._verdicts.store(new, corrections, judged_payload=judged, corrected_payload=corrected)
        if stored is not None:
            trace_corrections(self._tracing, corrections)
            self.judged += 1
            self._announce(turn_id)


def _corrections(verdict: Verdict, length: int) -> Sequence[NewCorrection]:
    if verdict.passed:
        return ()
    from guidance_agent.compliance.corrections import corrections_for

    return corrections_for(verdict, length=length)


def new_verdict(
    verdict: Verdict, *, turn_id: str, purpose: str = LIVE, text: str | None = None, reviewed: bool = True
) -> NewVerdict:
    """Return a verdict as it is stored.

    Args:
        text: What was judged, where it was not shown.
        reviewed: Whether a person must look where it has not passed.
    """
    detail = verdict.unreadable or ", ".join(dict.fromkeys(failure.check for failure in verdict.failures))
    return NewVerdict(
        turn_id=turn_id,
        text_hash=verdict.text_hash,
        policy_version=verdict.policy_version,
        purpose=purpose,
        passed=verdict.passed,
        needs_review=verdict.needs_review,
        verdict=verdict.model_dump(mode="json"),
        judge_model=verdict.judge_model,
        cost_usd=verdict.cost_usd,
        simulated=verdict.simulated,
        review=_review_cause(verdict) if reviewed else None,
        detail=detail if text is None else f"not shown: {detail}",
        text=text,
    )


def reply_of(text: DeliveredText) -> Reply:
    """Return what a turn delivered as the reply that a judge is asked about."""
    # Not imported on the way to a process's first text.
    from guidance_agent.compliance.reply import Reply

    return Reply(
        text=text.text,
        question=text.question,
        history=[entry._asdict() for entry in text.history],
        customer=_customer(text),
        complete=text.state == "completed" and text.finish_reason not in CUT_OFF,
        on=_day_of(text),
    )


def _day_of(text: DeliveredText) -> date:
    return text.ended_at.astimezone(_UK).date()


def _review_cause(verdict: Verdict) -> ReviewCause | None:
    if verdict.unreadable is not None:
        return "unreadable"
    return None if verdict.passed else "fail"


def _customer(text: DeliveredText) -> CustomerProfile | None:
    try:
        return CustomerProfile.parse({**text.profile, "customer_id": text.customer_id})
    except CustomerProfileError as error:
        # Recorded by another version of the program; the text is judged all the same.
        _logger.warning("profile not readable: turn=%s error=%s", text.turn_id, error)
        return None
