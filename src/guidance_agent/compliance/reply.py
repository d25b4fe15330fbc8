"""A reply before a judge, whichever way it is asked: what it is asked, and the verdict that its answer makes.

Interactive judging (`validator.py`) and audits in batches (`audit.py`) differ in how they reach the judge. The request,
the rules that are applied besides, and what counts as an answer are here, once for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from guidance_agent.compliance.judge_answer import JudgeAnswer, contradiction_in
from guidance_agent.compliance.judge_prompt import judge_prompt
from guidance_agent.compliance.judge_results import JudgedText, results_of_nothing
from guidance_agent.compliance.policy_version import judging_version
from guidance_agent.compliance.verdict import Verdict
from guidance_agent.core.transcript import text_hash
from guidance_agent.core.types import CustomerProfile, HistoryEntry
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.llm.messages import ModelRequest

if TYPE_CHECKING:
    from guidance_agent.compliance.rule_results import ExaminedText, TextRules

__all__ = ["THINKING_TOKENS", "Asked", "Reply", "ReplyJudging"]

ANSWER_TOKENS = 8_000
THINKING_TOKENS = 8_000
"""More for a model that cannot but think: what it thinks counts towards its longest answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply with everything that its judge is told.

    Attributes:
        text: The reply as the customer saw it; offsets of verdicts count its code points.
        question: What it answers.
        history: What was said before.
        customer: The customer's profile, so that needs for care are seen.
        complete: Whether the reply came to its end; what a reply cut off has left out is not held against it.
        on: The day on which it was said.
    """

    text: str
    question: str
    history: Sequence[HistoryEntry] = ()
    customer: CustomerProfile | None = None
    complete: bool = True
    on: date


class Asked(NamedTuple):
    """Who was asked, what that cost in US dollars, and whether a simulator answered."""

    model: str | None
    cost_usd: float | None
    simulated: bool


class ReplyJudging:
    """Makes requests of replies, and verdicts of answers. May be used from any thread; asks nobody itself."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge

    @cached_property
    def policy_version(self) -> str:
        """Fingerprint of rules, policy, checks and the judge's prompt; the first use reads files."""
        return judging_version()

    @cached_property
    def rules(self) -> TextRules:
        """The rules, which take longer to import than everything else here."""
        from guidance_agent.compliance.rule_results import TextRules

        return TextRules(self._knowledge)

    def request(self, reply: Reply, *, model: str, metadata: Mapping[str, str] | None = None) -> ModelRequest:
        """Return what the judge is asked; the type of its answer and its thinking are added by who asks.

        Raises:
            HistoryError: when an entry of the history is none.
        """
        messages = judge_prompt(
            reply.text,
            question=reply.question,
            history=reply.history,
            customer=reply.customer,
            complete=reply.complete,
            on=reply.on,
            knowledge=self._knowledge,
        )
        return ModelRequest(
            model=model,
            messages=messages,
            max_tokens=ANSWER_TOKENS,
            temperature=0.0,
            operation="judge",
            metadata=dict(metadata or {}),
        )

    def examine(self, reply: Reply) -> ExaminedText:
        """Return what the rules say of a reply; a long one takes a while."""
        return self.rules.examine(reply.text, question=reply.question, on=reply.on)

    def verdict(self, reply: Reply, examined: ExaminedText, answer: JudgeAnswer, asked: Asked) -> Verdict:
        """Return the verdict that an answer makes; one that contradicts itself makes an unreadable one."""
        contradiction = contradiction_in(answer)
        if contradiction is not None:
            why = f"The answer of {asked.model!r} contradicts itself: {contradiction}."
            return self.unreadable(reply, examined, why=why, asked=asked)
        said = [entry["content"] for entry in reply.history]
        known = [] if reply.customer is None else [str(reply.customer.prompt_values())]
        around = [reply.question, *said, *known]
        judged = JudgedText(reply.text, answer, examined, around=around, complete=reply.complete)
        return Verdict(
            checks=judged.results(),
            confidence=answer.confidence,
            reasoning=answer.reasoning,
            judge_model=asked.model,
            policy_version=self.policy_version,
            text_hash=text_hash(reply.text),
            cost_usd=asked.cost_usd,
            simulated=asked.simulated,
            rules=examined.record,
        )

    def unreadable(self, reply: Reply, examined: ExaminedText, *, why: str, asked: Asked) -> Verdict:
        """Return the verdict where no answer could be read: not passed, with what the rules found."""
        return Verdict(
            checks=examined.breaches,
            confidence=0.0,
            reasoning="",
            unreadable=why,
            judge_model=asked.model,
            policy_version=self.policy_version,
            text_hash=text_hash(reply.text),
            cost_usd=asked.cost_usd,
            simulated=asked.simulated,
            rules=examined.record,
        )

    def of_nothing(self, reply: Reply) -> Verdict:
        """Return the verdict on a reply of blanks, about which nobody is asked."""
        return Verdict(
            checks=results_of_nothing(complete=reply.complete),
            confidence=1.0,
            reasoning="The reply holds no text, so nobody was asked.",
            policy_version=self.policy_version,
            text_hash=text_hash(reply.text),
        )
