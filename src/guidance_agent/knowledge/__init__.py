"""Dated facts on UK pensions, with their sources and the days on which they hold."""

from __future__ import annotations

from guidance_agent.knowledge.loader import Knowledge, load_knowledge
from guidance_agent.knowledge.records import Audience, Confidence, DatedFact, Fact, Figure, Unit, Unknown
from guidance_agent.knowledge.tax_years import tax_year, tax_year_dates

__all__ = [
    "Audience",
    "Confidence",
    "DatedFact",
    "Fact",
    "Figure",
    "Knowledge",
    "Unit",
    "Unknown",
    "load_knowledge",
    "tax_year",
    "tax_year_dates",
]
