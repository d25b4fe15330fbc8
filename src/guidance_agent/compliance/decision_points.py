"""Whether a text discusses a decision about the customer's own pension, so that warnings and a signpost are due.

A greeting, a definition and a procedure are none: whoever is warned about everything stops reading warnings.
"""

from __future__ import annotations

import re

__all__ = ["LONGEST_READ", "discusses_decision", "speaks_of_pensions"]

LONGEST_READ = 100_000
"""Characters of a text that are looked at, from each of its ends."""

_SENTENCE = re.compile(r"[^.!?\n]+")
_OWN = re.compile(r"\b(?:you|your|yours|yourself|i|we|let['’]s)\b", re.IGNORECASE)
_OPEN = re.compile(
    r"\b(?:can|could|may|might|would|should|want|wish|choose|choosing|choice|choices|decide|decision|decisions|whether|"
    r"if|consider|considering|think|thinking|plan|planning|before you|option|options|either|instead|rather)\b",
    re.IGNORECASE,
)
_ACT = re.compile(
    r"\b(?:annuit(?:y|ies)|drawdown|transfer(?:ring)?|consolidat(?:e|ing)|combin(?:e|ing)|merg(?:e|ing)|"
    r"withdraw(?:al|als|ing)?|defer(?:ring|ral)?|switch(?:ing)?|cash(?:ing)? (?:it |them |this |that )?in|"
    r"invest(?:ing|ed)?|contribut(?:e|ing)|opt(?:ing)? (?:out|in)|retir(?:e|ing)|lump sums?|tax-free|"
    r"(?:tak|mov|leav|keep|draw|pay|buy|access|spend)(?:e|ing)?\b.{0,60}\b(?:pot|pots|pension|pensions|money|cash|"
    r"income|savings|benefits))\b",
    re.IGNORECASE,
)
_PENSIONS = re.compile(
    r"\b(?:pensions?|annuit(?:y|ies)|drawdown|pots?|retire(?:ment|d)?|tax-free|lump sums?|ISAs?|SIPPs?|providers?)\b",
    re.IGNORECASE,
)


def discusses_decision(text: str) -> bool:
    """Return whether a sentence of `text` lays a choice about their own pension before the customer."""
    return any(
        _ACT.search(sentence) and _OPEN.search(sentence) and _OWN.search(sentence)
        for sentence in _SENTENCE.findall(_both_ends(text))
    )


def speaks_of_pensions(text: str) -> bool:
    """Return whether `text` is about pensions at all."""
    return _PENSIONS.search(_both_ends(text)) is not None


def _both_ends(text: str) -> str:
    if len(text) <= 2 * LONGEST_READ:
        return text
    return f"{text[:LONGEST_READ]}\n{text[-LONGEST_READ:]}"
