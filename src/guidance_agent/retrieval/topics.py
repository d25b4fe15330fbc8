"""The topic router: subjects whose key facts are always found, whatever the similarity says.

Which words belong to which topic, and which facts it brings, stands in `topics.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from guidance_agent.core.shipped import read_shipped
from guidance_agent.core.types import CustomerProfile
from guidance_agent.retrieval.lexical import PhraseMatcher, stem, words

__all__ = ["RoutedTopic", "TopicRouter", "load_topics"]

_BIRTH_YEAR = re.compile(r"\bborn\b[^.?!\d]{0,24}(?:\d{1,2}[^.?!\d]{1,12})?(19\d\d|20\d\d)\b", re.IGNORECASE)
_AGE = re.compile(
    r"\b(?:i['’]?m|i am|aged?|turn(?:ed|ing)?|nearly|almost|only|just)\s+(\d\d)\b(?!\s*(?:%|k\b|years (?:in|of|with)))",
    re.IGNORECASE,
)


class _Topic(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    cues: tuple[str, ...] = ()
    together_with: tuple[str, ...] = Field(default=(), alias="with")
    pension_kinds: frozenset[str] = frozenset()
    birth_years: tuple[int, int] | None = None
    facts: tuple[str, ...] = ()
    unknowns: tuple[str, ...] = ()


class _TopicFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    core_figures: tuple[str, ...]
    topics: tuple[_Topic, ...]


@dataclass(frozen=True, slots=True)
class RoutedTopic:
    """A topic that was raised, with the ids it brings, the most needed first."""

    name: str
    facts: tuple[str, ...]
    unknowns: tuple[str, ...]


class TopicRouter:
    """Tells which topics a text raises.

    Attributes:
        core_figures: Ids of the figures that every turn is given, because answers quote them on any subject.
        fact_ids: Ids of all facts that a topic may bring.
        unknown_ids: Ids of all unknowns that a topic may bring.
    """

    def __init__(self, core_figures: Iterable[str], topics: Sequence[_Topic]) -> None:
        self.core_figures = tuple(core_figures)
        self.fact_ids = frozenset(fact for topic in topics for fact in topic.facts)
        self.unknown_ids = frozenset(unknown for topic in topics for unknown in topic.unknowns)
        self._topics = tuple(topics)
        self._cues = PhraseMatcher({topic.name: topic.cues for topic in topics})
        self._company = PhraseMatcher({topic.name: topic.together_with for topic in topics})

    def route(self, text: str, *, day: date, profile: CustomerProfile | None = None) -> tuple[RoutedTopic, ...]:
        """Return the topics that `text` raises, in the order of their urgency.

        Args:
            text: What the customer says.
            day: Today, by which an age becomes a year of birth.
            profile: What is known of the customer: age and kinds of pension count as cues.
        """
        stems = [stem(word) for word in words(text)]
        said, company = set(self._cues.find(stems)), set(self._company.find(stems))
        kinds = {pension.kind for pension in profile.pensions} if profile else set()
        years = _birth_years(text, day, profile.age if profile else None)
        return tuple(
            RoutedTopic(topic.name, topic.facts, topic.unknowns)
            for topic in self._topics
            if (not topic.together_with or topic.name in company)
            and (
                topic.name in said
                or not topic.pension_kinds.isdisjoint(kinds)
                or any(topic.birth_years[0] <= year <= topic.birth_years[1] for year in years if topic.birth_years)
            )
        )


def _birth_years(text: str, day: date, age: int | None) -> set[int]:
    years = {int(year) for year in _BIRTH_YEAR.findall(text)}
    ages = {int(said) for said in _AGE.findall(text)}
    # Somebody of a given age was born in one of two years; the later one is the careful reading for a rising age.
    return years | {day.year - one for one in (ages if age is None else ages | {age})}


@lru_cache(maxsize=1)
def load_topics() -> TopicRouter:
    """Return the topics of the package. Reading blocks for some milliseconds the first time."""
    content = read_shipped(Path(__file__).with_name("topics.yaml"), _TopicFile)
    return TopicRouter(content.core_figures, content.topics)
