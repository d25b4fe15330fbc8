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
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from guidance_agent.compliance.judge_answer import JudgeAnswer, JudgedCheck, contradiction_in
from guidance_agent.compliance.judge_checks import judge_checks, words_of
from guidance_agent.compliance.judge_prompt import judge_prompt
from guidance_agent.compliance.policy_version import judging_version
from guidance_agent.compliance.quotes import QuotedText
from guidance_agent.compliance.verdict import CHECKS, CheckName, CheckResult, NotApplicableReason, Verdict
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

_ANSWER_TOKENS = 4_000
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
            return _verdict_on_nothing(text, self.policy_version, complete=complete)
        request = self._request(
            text,
            question=question,
            history=history,
            customer=customer,
            complete=complete,
            on=day,
            ids={"turn_id": turn_id, "consultation_id": consultation_id},
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
        absent = await asyncio.to_thread(_absent_topics, [text, question, *said, *known])
        found = _Findings(text, answer, examined, complete=complete, absent=absent)
        return Verdict(
            checks=tuple(found.results()),
            confidence=answer.confidence,
            reasoning=answer.reasoning,
            judge_model=call.model,
            policy_version=self.policy_version,
            text_hash=text_hash(text),
            cost_usd=_cost_of(call),
            simulated=call.simulated,
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

    def _request(
        self,
        text: str,
        *,
        question: str,
        history: Sequence[HistoryEntry],
        customer: CustomerProfile | None,
        complete: bool,
        on: date,
        ids: dict[str, str | None],
    ) -> ModelRequest:
        return ModelRequest(
            model=self.model,
            messages=judge_prompt(
                text,
                question=question,
                history=history,
                customer=customer,
                complete=complete,
                on=on,
                knowledge=self._knowledge,
            ),
            max_tokens=_ANSWER_TOKENS,
            temperature=0.0,
            operation="judge",
            metadata={name: value for name, value in ids.items() if value is not None},
        )

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
        )


ComplianceValidator = GuidanceValidator


class _Findings:
    """Joins what the judge, the rules and the program say of each check."""

    def __init__(
        self,
        text: str,
        answer: JudgeAnswer,
        examined: ExaminedText,
        *,
        complete: bool,
        absent: frozenset[CheckName],
    ) -> None:
        self._quotes = QuotedText(text)
        self._answer = answer
        self._examined = examined
        self._complete = complete
        self._absent = absent

    def results(self) -> Iterator[CheckResult]:
        for check in CHECKS:
            judged = [each for each in self._answer.checks if each.check == check and each.status != "not_applicable"]
            yield from self._judged(check, judged)
            yield from (breach for breach in self._examined.breaches if breach.check == check)

    def _judged(self, check: CheckName, judged: Sequence[JudgedCheck]) -> Iterator[CheckResult]:
        if not judged:
            yield CheckResult(
                check=check,
                status="fail",
                severity="high",
                requirement=judge_checks()[check].requirement,
                explanation="The judge did not answer this check.",
                source="program",
            )
            return
        reason = self._why_not_applicable(check, judged)
        if reason is not None:
            yield _left_out(check, reason)
            return
        yield from map(self._result, judged)

    def _why_not_applicable(self, check: CheckName, judged: Sequence[JudgedCheck]) -> NotApplicableReason | None:
        if judge_checks()[check].kind == "omission":
            if not self._complete:
                return "turn_ended_early"
            return None if self._examined.discusses_decision else "no_decision_discussed"
        # What was said always counts: an absent subject explains a pass and never excuses a failure.
        passes = all(each.status == "pass" for each in judged)
        return "topic_not_present" if passes and check in self._absent else None

    def _result(self, judged: JudgedCheck) -> CheckResult:
        entry = judge_checks()[judged.check]
        span = self._quotes.find(judged.quote)
        notes = [judged.explanation.strip()]
        if judged.quote.strip() and span is None:
            notes.append("(The judge's quote is not in the text and was dropped.)")
        requirement = judged.requirement if judged.requirement in entry.requirements else entry.requirement
        start, end = span or (None, None)
        return CheckResult(
            check=judged.check,
            status="fail" if judged.status == "fail" else "pass",
            severity=None if judged.severity == "none" else judged.severity,
            requirement=requirement,
            explanation=" ".join(filter(None, notes)),
            quote=None if span is None else self._quotes.text[start:end],
            start=start,
            end=end,
            source="judge",
        )


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _absent_topics(texts: Sequence[str]) -> frozenset[CheckName]:
    """Return the checks whose subject no word of reply, conversation or profile touches."""
    words = words_of(*texts)
    return frozenset(name for name, check in judge_checks().items() if not check.is_about(words))


def _left_out(check: CheckName, reason: NotApplicableReason) -> CheckResult:
    return CheckResult(
        check=check,
        status="not_applicable",
        requirement=judge_checks()[check].requirement,
        explanation="",
        source="program",
        reason=reason,
    )


def _verdict_on_nothing(text: str, policy_version: str, *, complete: bool) -> Verdict:
    """Return the verdict on a reply of blanks: nothing was said, so nothing was said wrongly, and nobody is asked."""
    omitted: NotApplicableReason = "no_decision_discussed" if complete else "turn_ended_early"
    checks = judge_checks().items()
    return Verdict(
        checks=tuple(
            _left_out(name, omitted if check.kind == "omission" else "topic_not_present") for name, check in checks
        ),
        confidence=1.0,
        reasoning="The reply holds no text.",
        policy_version=policy_version,
        text_hash=text_hash(text),
    )


def _cost_of(call: ModelCall) -> float | None:
    return None if call.cost is None else call.cost.usd
