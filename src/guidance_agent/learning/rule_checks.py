"""What the program itself says of a rule: one that steers, promises, hurries, relaxes or states a figure is refused.

The gate's own rules judge a rule as they judge a reply, with the difference that doubt refuses: nobody waits for a
rule. They know how a reply steers; `rule_wording.yaml` adds how an instruction does. A rule may name an identifier of
a requirement or of a handbook, and no other number; and nothing by which a person could be recognised.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from guidance_agent.compliance.rule_results import TextRules
from guidance_agent.core.text import is_storable
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.learning.answers import LONGEST_RULE
from guidance_agent.learning.wordings import wordings
from guidance_agent.tracing.redaction import Redactor

__all__ = ["RuleChecks", "RuleFinding"]

_IDENTIFIER = re.compile(r"\b(?:R-[A-Z]{2,4}-\d+[a-z]?|(?:PERG|COBS|PRIN|FG|CONC|DISP)\s?\d+[A-Z]?(?:[./]\d+[A-Z]?)*)")
_QUOTED = re.compile(r"[\"“][^\"”]{0,160}[\"”]")
_OF_QUOTATIONS_TOO = frozenset({"figures", "contacts", "marks"})
_SHORTEST = 20


class RuleFinding(NamedTuple):
    """Why a rule is refused, with the words that say so."""

    check: str
    quote: str
    reason: str


class RuleChecks:
    """Judges rules without a model. Reads files on first use; may be used from any thread.

    Args:
        knowledge: The dated facts that the gate's rules compare figures with.
    """

    def __init__(self, knowledge: Knowledge) -> None:
        self._rules = TextRules(knowledge)
        self._redactor = Redactor()

    def examine(self, rule: str, *, on: date, names: Sequence[str] = ()) -> tuple[RuleFinding, ...]:
        """Return why a rule is refused; nothing for one that may become a draft.

        Args:
            rule: Its text.
            on: The day whose figures are right.
            names: The customer whose failure led to it, and whom they told of; see `people_of`.
        """
        found = [*_form(rule), *_wording(rule)]
        if not is_storable(rule):
            return (RuleFinding("form", "", "It holds characters that cannot be stored."),)
        examined = self._rules.examine(rule, question="", on=on)
        found += [RuleFinding(each.check, each.quote or "", each.explanation) for each in examined.breaches]
        if not examined.breaches and examined.record.result["decision"] != "pass":
            found.append(RuleFinding("undecided", rule, "The gate's rules cannot tell whether it steers."))
        redacted = self._redactor.redact(rule, known=tuple(names))
        if redacted != rule:
            found.append(RuleFinding("personal_data", redacted, "It holds what belongs to a person."))
        return tuple(found)


def _form(rule: str) -> list[RuleFinding]:
    if len(rule) > LONGEST_RULE:
        return [RuleFinding("form", f"{rule[:40]}…", f"It has {len(rule)} characters; {LONGEST_RULE} are the most.")]
    if len(rule.strip()) < _SHORTEST:
        return [RuleFinding("form", rule, "It is too short to say what is to be done when.")]
    return []


def _wording(rule: str) -> list[RuleFinding]:
    # What stands between quotation marks in order to be avoided is judged by the gate's rules, which know a quotation.
    plain = _IDENTIFIER.sub(lambda found: "R" * len(found.group()), rule)
    unquoted = _QUOTED.sub(lambda found: " " * len(found.group()), plain)
    return [
        RuleFinding(wording.name, rule[hit.start() : hit.end()].strip(), wording.reason)
        for wording in wordings("rule_wording.yaml")
        if (hit := wording.first_in(plain if wording.name in _OF_QUOTATIONS_TOO else unquoted)) is not None
    ]
