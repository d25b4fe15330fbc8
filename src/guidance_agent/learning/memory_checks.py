"""What the program itself says of a reflection: one that steers, instructs, counts or invents is not remembered.

A reflection stands in later prompts beside what the customer said. So it may only report: it is one sentence that
begins with a word of reporting, the gate's rules find no breach in it, and every figure and every name in it stands in
the observations that it names as evidence; a number or an address that identifies a person stands in none. Where the
gate's rules cannot tell, the wording decides, because they know replies, and a report of a wish is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import NamedTuple

from guidance_agent.compliance.rule_results import TextRules
from guidance_agent.core.text import is_storable
from guidance_agent.knowledge.loader import Knowledge
from guidance_agent.learning.stated_figures import figures_in
from guidance_agent.learning.wordings import wordings
from guidance_agent.retrieval.lexical import words
from guidance_agent.tracing.redaction import Redactor

__all__ = ["LONGEST_REFLECTION", "Breaches", "MemoryChecks", "MemoryFinding", "gate_breaches"]

LONGEST_REFLECTION = 240
"""Characters of a reflection at most: four memories stand in each prompt."""

_SHORTEST = 15
_RULES_OF_NAMES = ("known_name", "announced_name", "given_name", "label")
"""A name may be remembered where the customer gave it; a number that identifies somebody may not."""
_REPORTS = re.compile(r"(?:Said|Asked|Told|Mentioned|Repeated|Took|Confused|Explained|Described)\b")

_SECOND_CLAUSE = re.compile(r"[;:–—]|[.!?][\"”’']?\s+\S")
"""Where a sentence ends or breaks off before the reflection does: what follows would be a claim and no report."""

Breaches = Callable[[str, date], Sequence[str]]
"""Returns the names of checks that a text fails on a day, without asking a model."""


class MemoryFinding(NamedTuple):
    """Why a reflection is not remembered, with the words that say so."""

    check: str
    quote: str
    reason: str


def gate_breaches(knowledge: Knowledge) -> Breaches:
    """Return the judgement of the gate's rules, as `MemoryChecks` asks for it."""
    rules = TextRules(knowledge)

    def examine(text: str, on: date) -> Sequence[str]:
        return [each.check for each in rules.examine(text, question="", on=on).breaches]

    return examine


class MemoryChecks:
    """Judges reflections without a model. Reads files on first use; may be used from any thread.

    Args:
        breaches: What the rules of compliance find in a text.
    """

    def __init__(self, breaches: Breaches) -> None:
        self._breaches = breaches
        self._names = Redactor()
        self._numbers = Redactor(without=_RULES_OF_NAMES)

    def examine(self, text: str, evidence: Sequence[str], *, on: date) -> tuple[MemoryFinding, ...]:
        """Return why a reflection is not remembered; nothing for one that is.

        Args:
            text: What it says.
            evidence: The observations that it names.
            on: The day whose figures are right.
        """
        if not is_storable(text):
            return (MemoryFinding("form", "", "It holds characters that cannot be stored."),)
        found = [*_form(text), *_wording(text)]
        if invented := figures_in(text) - frozenset().union(*map(figures_in, evidence)):
            quote = ", ".join(sorted(invented))
            found.append(MemoryFinding("figures", quote, "It states a figure that its evidence does not have."))
        said = {word for observation in evidence for word in words(observation)}
        if strange := {name for name in self._names.names_in(text) if not said.issuperset(words(name))}:
            quote = ", ".join(sorted(strange))
            found.append(MemoryFinding("personal_data", quote, "It names somebody whom its evidence does not name."))
        if (redacted := self._numbers.redact(text)) != text:
            found.append(MemoryFinding("personal_data", redacted, "It holds what identifies a person."))
        if not found:
            found += [
                MemoryFinding(check, text, "The gate's rules find a breach.") for check in self._breaches(text, on)
            ]
        return tuple(found)


def _form(text: str) -> list[MemoryFinding]:
    if len(text) > LONGEST_REFLECTION:
        told = f"It has {len(text)} characters; {LONGEST_REFLECTION} are the most."
        return [MemoryFinding("form", f"{text[:40]}…", told)]
    if len(text.strip()) < _SHORTEST:
        return [MemoryFinding("form", text, "It is too short to say what was said.")]
    if _REPORTS.match(text) is None:
        return [MemoryFinding("form", text[:40], "It does not begin as a report of what the customer said.")]
    if (second := _SECOND_CLAUSE.search(text)) is not None:
        return [MemoryFinding("form", text[second.start() :][:40], "It is more than one plain sentence.")]
    return []


def _wording(text: str) -> list[MemoryFinding]:
    return [
        MemoryFinding(wording.name, hit.group().strip(), wording.reason)
        for wording in wordings("memory_wording.yaml")
        if (hit := wording.first_in(text)) is not None
    ]
