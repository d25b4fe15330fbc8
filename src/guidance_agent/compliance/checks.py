"""The deterministic checks of a whole text: what the gate would say of it, without a stream and without a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from guidance_agent.compliance.decision_points import discusses_decision
from guidance_agent.compliance.gate import SentenceGate
from guidance_agent.compliance.judging_rules import SentenceRules
from guidance_agent.compliance.policy import CheckPolicy
from guidance_agent.compliance.sentences import Finding, SentenceVerdict

__all__ = ["TextFinding", "TextVerdict", "check_text"]

TextDecision = Literal["pass", "undecided", "replace", "stop", "flag"]

_GRAVITY: tuple[TextDecision, ...] = ("pass", "undecided", "flag", "replace", "stop")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFinding(Finding):
    """A finding with the requirement behind its check; offsets count code points of the whole text."""

    requirement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextVerdict:
    """What the rules say of a text.

    Attributes:
        decision: The gravest of its sentences: `undecided` is left to a judge, the others follow the policy.
        cued: Whether a sentence was held.
        decision_point: Whether the text discusses a choice about the customer's own pension, so that warnings are due.
        findings: What was found, in the order of the text.
    """

    decision: TextDecision
    cued: bool
    decision_point: bool
    findings: tuple[TextFinding, ...]


def check_text(
    text: str,
    rules: SentenceRules,
    policy: Mapping[str, CheckPolicy],
    *,
    before: str = "",
    heard: Callable[[int, SentenceVerdict], None] | None = None,
) -> TextVerdict:
    """Judge every sentence of `text` as the gate would while it streamed.

    Args:
        before: What stands before the text, such as the question that it answers.
        heard: Told the verdict on every sentence that was held, with the place of the sentence in the text.
    """
    findings: list[TextFinding] = []
    decisions: list[TextDecision] = ["pass"]

    def judged(start: int, verdict: SentenceVerdict) -> None:
        if heard is not None:
            heard(start, verdict)
        for found in verdict.findings:
            shifted = dataclasses.replace(found, start=found.start + start, end=found.end + start)
            values = {field.name: getattr(shifted, field.name) for field in dataclasses.fields(Finding)}
            findings.append(TextFinding(**values, requirement=policy[found.check].requirement))
        if verdict.decision == "undecided":
            decisions.append("undecided")
        elif verdict.decision == "breach":
            decisions.extend(policy[found.check].action for found in verdict.findings if found.score > 0)

    gate = SentenceGate(rules, policy, before=before, judged=judged)
    gate.feed(text)
    gate.finish()
    return TextVerdict(
        decision=max(decisions, key=_GRAVITY.index),
        cued=gate.sentences_held > 0,
        decision_point=discusses_decision(text),
        findings=tuple(findings),
    )
