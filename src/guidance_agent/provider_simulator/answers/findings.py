"""What a simulated judge says of each check: little, and that it is simulated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from guidance_agent.provider_simulator.answers.judgement import Steer

__all__ = ["describe_findings"]

_STEERED = "Simulated judgement: this sentence tells the customer which way to go, which guidance must not do."
_EVIDENCE = "Simulated judgement: words that belong to this check were found; nothing more was examined."
_NOTHING = "Simulated judgement: no plain steer was found; this check was not examined further."
_LOOKED_FOR = {
    "risk": re.compile(r"\brisks?\b|\bfalls?\b|\blos[et]\b|\brun out\b", re.IGNORECASE),
    "understanding": re.compile(r"\?$"),
    "signpost": re.compile(r"MoneyHelper|Pension Wise|regulated adviser"),
    "transfer": re.compile(r"\btransfer values?\b|\bdefined benefit\b|\bguarantees?\b", re.IGNORECASE),
    "scam": re.compile(r"\bscams?\b|FCA Register", re.IGNORECASE),
    "figure": re.compile(r"£\d|\b20\d\d/\d\d\b|\d%"),
}
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_LONGEST_QUOTE = 300


def describe_findings(value: Any, *, text: str, steer: Steer | None, system: Sequence[str]) -> None:
    """Fill a value made for a judge's schema with quotes of the judged text and with requirements of the prompt.

    Only string fields with the usual names (`quote`, `explanation`, `requirement`, `reasoning`) are replaced, in the
    value itself and in the entries of its list of checks.
    """
    if not isinstance(value, dict):
        return
    _put(value, "reasoning", _NOTHING if steer is None else _STEERED)
    checks = value.get("checks")
    for entry in checks if isinstance(checks, list) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("check"), str):
            continue
        name = entry["check"]
        failed = steer is not None and entry.get("status") == "fail"
        quote = steer.quote if failed and steer is not None else _evidence(name, text)
        _put(entry, "quote", quote)
        _put(entry, "explanation", _STEERED if failed else _EVIDENCE if quote else _NOTHING)
        _put(entry, "requirement", _requirement(name, system))


def _put(entry: dict[str, Any], field: str, words: str) -> None:
    if isinstance(entry.get(field), str):
        entry[field] = words


def _evidence(name: str, text: str) -> str:
    pattern = next((pattern for part, pattern in _LOOKED_FOR.items() if part in name), None)
    if pattern is None:
        return ""
    sentences = (found.group().strip() for found in _SENTENCE.finditer(text))
    return next((sentence for sentence in sentences if pattern.search(sentence) and len(sentence) < _LONGEST_QUOTE), "")


def _requirement(name: str, system: Sequence[str]) -> str:
    """The first identifier that stands after the name of the check in the instructions."""
    found = re.search(rf"`{re.escape(name)}`.*?\b([A-Z]{{1,4}}-[A-Z]{{2,4}}-\d+)\b", "\n".join(system), re.DOTALL)
    return "" if found is None else str(found[1])
