"""The rules by which this package judges: one place that says which they are."""

from __future__ import annotations

from functools import lru_cache

from guidance_agent.compliance.fitted_models import load_models
from guidance_agent.compliance.fitted_rules import FittedRules
from guidance_agent.compliance.judging_rules import SentenceRules

__all__ = ["sentence_rules"]


@lru_cache(maxsize=1)
def sentence_rules() -> SentenceRules:
    """Return the package's rules of sentences, figures apart; the first call reads files and takes a moment."""
    return FittedRules(load_models())
