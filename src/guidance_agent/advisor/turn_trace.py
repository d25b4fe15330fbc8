"""The spans of one turn, seen from the turn: its root, what the gate did, and how it ended.

The root begins before the turn is planned, in the task of whoever asked, so that the application's own span is above
it. Model calls and searches make their own spans, below whichever is current. The turn tells this module what happens;
nothing here changes what happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from guidance_agent.errors import StreamTruncated
from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.people import people_of
from guidance_agent.tracing.span import Outcome, Span, Value
from guidance_agent.tracing.tracer import NO_TRACING, Current, Tracing

if TYPE_CHECKING:
    from guidance_agent.advisor.events import AnswerEnd, TurnTiming
    from guidance_agent.advisor.outbox import Outbox
    from guidance_agent.advisor.turn_plan import TurnPlan
    from guidance_agent.advisor.turn_run import TurnRun
    from guidance_agent.compliance.gate import Question
    from guidance_agent.core.types import CustomerProfile
    from guidance_agent.llm.model_stream import ModelStream

__all__ = ["GateTrace", "TurnTrace", "identity_of", "share_turn"]


def identity_of(tracing: Tracing, customer_id: str, *, turn_id: str, consultation_id: str) -> dict[str, Value]:
    """Return what every span of a turn says of whose it is."""
    return {
        names.SESSION_ID: consultation_id,
        names.USER_ID: tracing.user_id(customer_id),
        names.GEN_AI_CONVERSATION_ID: consultation_id,
        names.CONSULTATION_ID: consultation_id,
        names.TURN_ID: turn_id,
    }


def share_turn(tracing: Tracing, customer: CustomerProfile, *, turn_id: str, consultation_id: str) -> None:
    """Have the current span, and all below it, say whose turn and which consultation they belong to."""
    if tracing.is_on:
        identity = identity_of(tracing, customer.customer_id, turn_id=turn_id, consultation_id=consultation_id)
        tracing.current_span.share(identity, names=people_of(customer.customer_id, dict(customer)))


class GateTrace:
    """What a gate does, as spans below the current one."""

    def __init__(self, tracing: Tracing = NO_TRACING) -> None:
        self._tracing = tracing

    def acted(self, row: Mapping[str, Any]) -> None:
        """Note an action of the gate, or the closing, by the row that is recorded of it."""
        if not self._tracing.is_on:
            return
        action = row["action"]
        replacement = row["replacement"]
        if action == "closing":
            span = self._tracing.span("closing", "GUARDRAIL")
            span.set({names.OUTPUT_VALUE: replacement, names.OUTPUT_MIME_TYPE: names.TEXT})
        else:
            span = self._tracing.span(f"gate.{action}", "GUARDRAIL")
            span.set(
                {
                    names.GATE_CHECK: row["check"],
                    names.GATE_ASKED: row["asked"],
                    names.GATE_FINDINGS: [finding["rule"] for finding in row["findings"]] or None,
                    names.INPUT_VALUE: row["withheld_text"],
                    names.OUTPUT_VALUE: replacement,
                }
            )
        span.set({names.GATE_ACTION: action, names.GATE_POLICY: row["policy_version"]})
        span.end(outcome="completed")

    @contextlib.contextmanager
    def asked(self, question: Question) -> Iterator[Span]:
        """Have a span around a question about a sentence."""
        with self._tracing.work("gate.asked", "GUARDRAIL") as span:
            span.set(
                {
                    names.GATE_ACTION: "asked",
                    names.GATE_CHECK: question.check,
                    names.INPUT_VALUE: question.sentence,
                    names.INPUT_MIME_TYPE: names.TEXT,
                }
            )
            yield span


class TurnTrace:
    """The trace of one turn."""

    def __init__(self, tracing: Tracing) -> None:
        self.root = tracing.span("turn", "AGENT")
        self.gate = GateTrace(tracing)
        self._tracing = tracing
        self._was_cancelled = False

    def current(self) -> Current:
        """Return a context manager in which the turn's span is the current one."""
        return self._tracing.current(self.root)

    @contextlib.contextmanager
    def planning(self) -> Iterator[None]:
        """Have the root current while the turn is planned; a turn that cannot begin ends its trace here."""
        try:
            with self.current():
                yield
        except (asyncio.CancelledError, GeneratorExit):
            self.root.end(outcome="cancelled")
            raise
        except BaseException as error:
            self.root.fail(error)
            self.root.end(outcome="failed")
            raise

    def planned(self, plan: TurnPlan) -> None:
        """Note what the turn is about."""
        if self.root.is_recording:
            self.root.set(
                {
                    names.INPUT_VALUE: plan.question,
                    names.INPUT_MIME_TYPE: names.TEXT,
                    names.MODEL: plan.model,
                    names.SIMULATED: plan.simulated,
                }
            )

    @contextlib.contextmanager
    def candidate(self, number: int) -> Iterator[Span]:
        """Have a span around one version of an answer that nobody sees yet."""
        with self._tracing.work("candidate", "CHAIN", attributes={names.CANDIDATE_NUMBER: number}) as span:
            yield span

    def caller_left(self, *, cancelled: bool) -> None:
        """Note that whoever asked does not want the rest; `cancelled` is whether their task was."""
        self._was_cancelled = cancelled
        if self.root.is_recording:
            self.root.left = not cancelled

    def ended(
        self,
        run: TurnRun,
        *,
        stream: ModelStream | None,
        finish_reason: AnswerEnd | None,
        timing: TurnTiming,
        cost_usd: float | None,
        simulated: bool,
    ) -> None:
        """End the root as the turn has ended."""
        root = self.root
        if not root.is_recording:
            return
        try:
            root.set(
                {
                    names.STATE: run.state,
                    names.FINISH_REASON: finish_reason,
                    names.SIMULATED: simulated,
                    names.COST_USD: cost_usd,
                    **_of_text(run.outbox),
                    **_of_timing(timing),
                    **({} if stream is None else _of_answer(stream)),
                }
            )
        except Exception as fault:  # the turn has ended, whatever is wrong with its span
            self._tracing.fault(fault)
        if run.exception is not None and run.state == "failed":
            root.fail(run.exception)
        root.end(outcome=self._outcome(run))

    def gone(self) -> None:
        """End the root of a turn whose task was cancelled before it began."""
        self.root.end(outcome="cancelled")

    def _outcome(self, run: TurnRun) -> Outcome:
        match run.state:
            case "completed":
                return "completed"
            case "failed":
                return "truncated" if isinstance(run.exception, StreamTruncated) else "failed"
            case _:
                return "cancelled" if self._was_cancelled else "closed_early"


def _of_text(outbox: Outbox) -> dict[str, Value]:
    return {
        names.OUTPUT_VALUE: outbox.text[: outbox.delivered_length],
        names.OUTPUT_MIME_TYPE: names.TEXT,
        names.TEXT_CHARACTERS: outbox.text_length,
        names.DELIVERED_CHARACTERS: outbox.delivered_length,
    }


def _of_timing(timing: TurnTiming) -> dict[str, Value]:
    return {
        names.TIME_TO_FIRST_TOKEN: timing.first_token,
        names.TIME_TO_FIRST_RELEASED: timing.first_text,
        names.TOTAL_SECONDS: timing.total,
        names.CHUNKS: timing.chunks,
        names.TOKENS_PER_SECOND: timing.tokens_per_second,
    }


def _of_answer(stream: ModelStream) -> dict[str, Value]:
    call = stream.call
    made: dict[str, Value] = {names.ANSWER_SPAN_ID: stream.span.span_id, names.MODEL: stream.model}
    if call is not None:
        made[names.CACHE_OUTCOME] = call.cache_outcome
        made[names.USAGE_ESTIMATED] = None if call.usage is None else call.usage.estimated
    return made
