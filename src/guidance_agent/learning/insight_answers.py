"""What the two rounds of an insight report answer, as types, and which of its words may stand.

The labels are closed lists, so that the program can count them. Words hold no figure: what is counted is counted by the
program, and a figure that a model states about many consultations is made up more often than not.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from guidance_agent.core.shipped import read_shipped
from guidance_agent.learning.stated_figures import figures_in

__all__ = [
    "NO_CAUSE",
    "CauseWords",
    "ConsultationNote",
    "DayWords",
    "Label",
    "Labels",
    "MisunderstandingWords",
    "TopicWords",
    "insight_labels",
    "may_stand",
]

NO_CAUSE = "none"
LONGEST_NOTE = 240
LONGEST_STATEMENT = 400
LONGEST_SUMMARY = 900


class Label(BaseModel):
    """A name of a closed list: how the records keep it, how a person reads it, and what it covers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    about: str


class Labels(BaseModel):
    """The closed lists."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topics: tuple[Label, ...]
    causes: tuple[Label, ...]

    def title(self, name: str) -> str:
        """Return how a person reads a label; an unknown one as it is."""
        return next((each.title for each in (*self.topics, *self.causes) if each.name == name), name)


@functools.cache
def insight_labels() -> Labels:
    """Return the closed lists of the package."""
    return read_shipped(resources.files("guidance_agent.learning") / "insight_labels.yaml", Labels)


def _topic(name: str) -> str:
    if name not in {each.name for each in insight_labels().topics}:
        raise ValueError("is no topic of the list")
    return name


def _cause(name: str) -> str:
    if name not in {each.name for each in insight_labels().causes}:
        raise ValueError("is no cause of the list")
    return name


def _failing(name: str) -> str:
    if name == NO_CAUSE:
        raise ValueError("is no cause of a failure")
    return _cause(name)


def _topics_only(schema: dict[str, Any]) -> None:
    schema["enum"] = [each.name for each in insight_labels().topics]


def _causes_only(schema: dict[str, Any]) -> None:
    schema["enum"] = [each.name for each in insight_labels().causes]


def _failing_only(schema: dict[str, Any]) -> None:
    schema["enum"] = [each.name for each in insight_labels().causes if each.name != NO_CAUSE]


_Topic = Annotated[str, AfterValidator(_topic), Field(json_schema_extra=_topics_only)]
_Cause = Annotated[str, AfterValidator(_cause), Field(json_schema_extra=_causes_only)]
_FailureCause = Annotated[str, AfterValidator(_failing), Field(json_schema_extra=_failing_only)]
_Note = Annotated[str, StringConstraints(strip_whitespace=True, max_length=LONGEST_NOTE)]
_Statement = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_STATEMENT)]
_Evidence = Annotated[tuple[str, ...], Field(min_length=1)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Misunderstanding(_Answer):
    """Something that a customer took for otherwise than it is."""

    topic: _Topic
    words: Annotated[_Note, StringConstraints(min_length=1)]


class ConsultationNote(_Answer):
    """What one consultation was about, what was misunderstood, and why an answer failed, where one did."""

    topics: Annotated[tuple[_Topic, ...], Field(min_length=1, max_length=3)]
    misunderstandings: Annotated[tuple[Misunderstanding, ...], Field(max_length=3)]
    cause: _Cause
    cause_words: _Note


class TopicWords(_Answer):
    """What consultations on a topic were about."""

    topic: _Topic
    words: _Statement
    evidence: _Evidence


class MisunderstandingWords(_Answer):
    """A misunderstanding that was noted of several consultations, or of one that matters."""

    topic: _Topic
    words: _Statement
    evidence: _Evidence


class CauseWords(_Answer):
    """How answers came to fail for one cause."""

    cause: _FailureCause
    words: _Statement
    evidence: _Evidence


class DayWords(_Answer):
    """The words of a day's report; each statement names the consultations that it rests on."""

    summary: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_SUMMARY)]
    topics: Annotated[tuple[TopicWords, ...], Field(max_length=10)]
    misunderstandings: Annotated[tuple[MisunderstandingWords, ...], Field(max_length=10)]
    causes: Annotated[tuple[CauseWords, ...], Field(max_length=10)]


def may_stand(words: str) -> bool:
    """Whether a model's words may stand in a report: they hold no figure, and say something."""
    return bool(words.strip()) and not figures_in(words)
