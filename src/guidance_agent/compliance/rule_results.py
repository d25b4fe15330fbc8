"""What the rules of the gate say of a whole text, in the words of a verdict."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from guidance_agent import __version__
from guidance_agent.compliance.checks import check_text
from guidance_agent.compliance.dated_rules import GateRules
from guidance_agent.compliance.policy import CheckPolicy, load_policy, policy_fingerprint
from guidance_agent.compliance.policy_version import judging_version
from guidance_agent.compliance.sentences import Finding, SentenceVerdict
from guidance_agent.compliance.verdict import CheckName, CheckResult, RulesRecord, Severity
from guidance_agent.knowledge.loader import Knowledge

__all__ = ["CHECK_OF_RULE", "ExaminedText", "TextRules"]

CHECK_OF_RULE: Mapping[str, tuple[CheckName, Severity]] = {
    "advice_boundary": ("advice_boundary", "high"),
    "false_guarantee": ("clear_not_misleading", "high"),
    "pressure": ("clear_not_misleading", "medium"),
    "scam": ("scam", "critical"),
    "safeguarded_benefits": ("db_transfer", "critical"),
    "figure_amount": ("figures", "high"),
    "figure_year": ("figures", "medium"),
}
"""Which check of a verdict a check of the rules belongs to, and how grave it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedText:
    """What is known of a text without a model: all of it in `record`, the breaches in the words of a verdict."""

    discusses_decision: bool
    breaches: tuple[CheckResult, ...]
    record: RulesRecord


class TextRules:
    """Applies the rules to whole texts. Reads files on first use; may be used from any thread."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge

    def examine(self, text: str, *, question: str, on: date) -> ExaminedText:
        """Return what the rules decide; a long text takes a while, so call it off the event loop.

        Args:
            text: The text.
            question: What it answers.
            on: The day on which it was said.
        """
        policy = self._policy
        breaches: list[CheckResult] = []

        def judged(start: int, verdict: SentenceVerdict) -> None:
            if verdict.decision == "breach":
                found = [finding for finding in verdict.findings if finding.score > 0]
                for check in dict.fromkeys(finding.check for finding in found):
                    together = [finding for finding in found if finding.check == check]
                    breaches.append(_result(together, text, start, policy[check].requirement))

        checked = check_text(text, self._rules.on(on), policy, before=question, heard=judged)
        # As JSON reads it back, so that what is computed again can be compared with what was stored.
        result = json.loads(json.dumps(dataclasses.asdict(checked)))
        return ExaminedText(
            discusses_decision=checked.decision_point,
            breaches=tuple(breaches),
            record=RulesRecord(day=on, version=self.version, result=result),
        )

    @cached_property
    def version(self) -> str:
        """Fingerprint of rules, policy, knowledge and package: equal ones say the same of the same text."""
        # The package's own version, too, because what reads the rules is program.
        return policy_fingerprint(self._rules.version, judging_version(), __version__, policy=self._policy)

    @cached_property
    def _policy(self) -> Mapping[str, CheckPolicy]:
        # Whatever is done about a breach while a text streams, here all of it is read to its end.
        return load_policy(dict.fromkeys(load_policy(), "flag"))

    @cached_property
    def _rules(self) -> GateRules:
        return GateRules(self._knowledge)


def _result(findings: Sequence[Finding], text: str, offset: int, requirement: str) -> CheckResult:
    """Return one result for what was found of one check in one sentence."""
    check, severity = CHECK_OF_RULE[findings[0].check]
    start = min(finding.start for finding in findings) + offset
    end = max(finding.end for finding in findings) + offset
    rules = ", ".join(finding.rule for finding in findings)
    return CheckResult(
        check=check,
        status="fail",
        severity=severity,
        requirement=requirement,
        explanation=f"A breach by the rules {rules}.",
        quote=text[start:end],
        start=start,
        end=end,
        source="rules",
    )
