"""The rules by which this package judges: one place that says which they are."""

from __future__ import annotations

from functools import lru_cache

from guidance_agent.compliance.book_rules import BookRules
from guidance_agent.compliance.judging_rules import SentenceRules
from guidance_agent.compliance.rulebook import load_rulebook

__all__ = ["sentence_rules"]


@lru_cache(maxsize=1)
def sentence_rules() -> SentenceRules:
    """Return the package's rules of sentences, figures apart; the first call reads files and takes a moment."""
    return BookRules(load_rulebook())
