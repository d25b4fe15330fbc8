"""The validator: judges a whole reply by rules and by a model, and computes the verdict from what they say.

A judge answers nine checks and nothing else. Whether the reply passed is computed (`verdict.py`); which checks apply is
decided here; what the rules found counts whatever the judge says. The ways in which a judge can be wrong all end on the
same side:

- An answer that cannot be read in exactly one way makes a verdict without the judge: unreadable, not passed.
- A check that the judge leaves out, or calls not applicable, has failed.
- A quote that is not in the text is dropped, and the verdict says so.
- A provider that fails is an error and no verdict: whoever asked tries again, and the reply stays unjudged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from guidance_agent.compliance.judge_answer import JudgeAnswer, contradiction_in
from guidance_agent.compliance.judge_prompt import judge_prompt
from guidance_agent.compliance.judge_results import JudgedText, results_of_nothing
from guidance_agent.compliance.policy_version import judging_version
from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.clock import Clock, SystemClock
from guidance_agent.core.text import is_storable
from guidance_agent.core.transcript import text_hash
from guidance_agent.core.types import CustomerProfile, HistoryEntry
from guidance_agent.errors import ConfigurationError, InputError, StructuredOutputError
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.llm import structured
from guidance_agent.llm.messages import ModelCall, ModelRequest

if TYPE_CHECKING:
    from guidance_agent.compliance.rule_results import ExaminedText, TextRules
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["ComplianceValidator", "GuidanceValidator"]

_ANSWER_TOKENS = 8_000
_THINKING_TOKENS = 8_000
"""More for a model that cannot but think: what it thinks counts towards its longest answer."""


class GuidanceValidator:
    """Judges replies. Holds nothing of them; may be shared.

    Args:
        gateway: The way to the judge.
        model: The judge, such as `anthropic/claude-sonnet-5`; better not the model that wrote the reply.
        knowledge: The dated figures that replies are compared with.
        clock: Says which day it is, where a call does not.
    """

    def __init__(self, gateway: ModelGateway, model: str, knowledge: Knowledge, *, clock: Clock | None = None) -> None:
        self.model = model
        self._gateway = gateway
        self._knowledge = knowledge
        self._clock = clock or SystemClock()

    @cached_property
    def policy_version(self) -> str:
        """Fingerprint of rules, policy, checks and the judge's prompt; the first use reads files."""
        return judging_version()

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
        """Return the verdict on a reply.

        Args:
            text: The reply as the customer saw it; offsets of the verdict count its code points.
            question: What it answers.
            history: What was said before, as the advisor takes it.
            customer: The customer's profile, so that needs for care are seen.
            complete: Whether the reply came to its end; what a reply cut off has left out is not held against it.
            on: The day on which it was said; None is today.
            turn_id: Kept with the usage of the call, as `consultation_id` is.

        Raises:
            ModelError: the judge could not be asked; `retryable` says whether it is worth another try.
            ConfigurationError: the judge cannot be called as things are set up.
            InputError: what was passed is no text that can be stored, or no history.
        """
        if not is_storable(text):
            raise InputError("The reply holds NUL or a lone surrogate. Pass the text as it was delivered.")
        day = on or self._clock.today()
        if not text.strip():
            return Verdict(
                checks=results_of_nothing(complete=complete),
                confidence=1.0,
                reasoning="The reply holds no text, so nobody was asked.",
                policy_version=self.policy_version,
                text_hash=text_hash(text),
            )
        ids = {"turn_id": turn_id, "consultation_id": consultation_id}
        messages = await asyncio.to_thread(
            judge_prompt,
            text,
            question=question,
            history=history,
            customer=customer,
            complete=complete,
            on=day,
            knowledge=self._knowledge,
        )
        request = ModelRequest(
            model=self.model,
            messages=messages,
            max_tokens=_ANSWER_TOKENS,
            temperature=0.0,
            operation="judge",
            metadata={name: value for name, value in ids.items() if value is not None},
        )
        examined = await asyncio.to_thread(self._examine, text, question, day)
        try:
            answered = await structured.complete(
                self._gateway, request, output=JudgeAnswer, thinking_tokens=_THINKING_TOKENS
            )
        except StructuredOutputError as error:
            return self._unreadable(
                text,
                examined,
                why=str(error),
                judge_model=error.model,
                cost_usd=error.cost_usd,
                simulated=error.simulated,
            )
        answer, call = answered.value, answered.completion.call
        contradiction = contradiction_in(answer)
        if contradiction is not None:
            why = f"The answer of {call.model!r} contradicts itself: {contradiction}."
            return self._unreadable(
                text, examined, why=why, judge_model=call.model, cost_usd=_cost_of(call), simulated=call.simulated
            )
        said = [entry["content"] for entry in history]
        known = [] if customer is None else [str(customer.prompt_values())]
        judged = JudgedText(text, answer, examined, around=[question, *said, *known], complete=complete)
        return Verdict(
            checks=await asyncio.to_thread(judged.results),
            confidence=answer.confidence,
            reasoning=answer.reasoning,
            judge_model=call.model,
            policy_version=self.policy_version,
            text_hash=text_hash(text),
            cost_usd=_cost_of(call),
            simulated=call.simulated,
            rules=examined.record,
        )

    validate_async = validate

    def validate_sync(
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
        """Return what `validate` returns, for scripts without `await`.

        The gateway is used on an event loop of its own for this call, and its connections are closed afterwards; one
        that is in use elsewhere cannot be.
        """
        from guidance_agent.core.loop_thread import LoopThread

        if self._gateway.is_in_use or _in_event_loop():
            raise ConfigurationError(
                "The synchronous call uses the gateway on an event loop of its own, and one runs here or has "
                "connections of the gateway. Use `await validate(...)`, which notebooks understand too."
            )

        async def work() -> Verdict:
            try:
                return await self.validate(
                    text,
                    question=question,
                    history=history,
                    customer=customer,
                    complete=complete,
                    on=on,
                    turn_id=turn_id,
                    consultation_id=consultation_id,
                )
            finally:
                await self._gateway.release()

        with LoopThread() as loop:
            return loop.call(work())

    @cached_property
    def _rules(self) -> TextRules:
        # The rules take longer to import than everything else here, and are not needed before a reply has ended.
        from guidance_agent.compliance.rule_results import TextRules

        return TextRules(self._knowledge)

    def _examine(self, text: str, question: str, on: date) -> ExaminedText:
        return self._rules.examine(text, question=question, on=on)

    def _unreadable(
        self,
        text: str,
        examined: ExaminedText,
        *,
        why: str,
        judge_model: str | None,
        cost_usd: float | None,
        simulated: bool,
    ) -> Verdict:
        return Verdict(
            checks=examined.breaches,
            confidence=0.0,
            reasoning="",
            unreadable=why,
            judge_model=judge_model,
            policy_version=self.policy_version,
            text_hash=text_hash(text),
            cost_usd=cost_usd,
            simulated=simulated,
            rules=examined.record,
        )


ComplianceValidator = GuidanceValidator


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _cost_of(call: ModelCall) -> float | None:
    return None if call.cost is None else call.cost.usd
