"""The typed events of one turn.

Public events are numbered without gaps, written to the journal before the caller receives them, and read back from
it unchanged. `ContextRetrieved` and `ReasoningDelta` are for the application: they carry the number of the public event
before them, `public` is False, and no customer may see them.

Offsets count Unicode code points of the released text: joining all `TextDelta.text` gives that text.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from guidance_agent.llm.messages import FinishReason, Usage

__all__ = [
    "AnswerEnd",
    "Completed",
    "ContextRetrieved",
    "Corrected",
    "Event",
    "Failed",
    "Judged",
    "PublicEvent",
    "ReasoningDelta",
    "TextDelta",
    "TurnStarted",
    "TurnTiming",
    "Withheld",
    "event_from_json",
    "event_to_json",
]


AnswerEnd: TypeAlias = FinishReason | Literal["stopped_by_gate", "safe_answer"]
"""Why an answer ended: as the model says, because the gate ended it, or because reviewed wording took its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnTiming:
    """Times of a turn in seconds from the call; None where it did not come to that."""

    first_token: float | None = None
    first_text: float | None = None
    total: float = 0.0
    chunks: int = 0
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    public: ClassVar[bool] = True
    turn_id: str
    sequence: int

    @property
    def customer_text(self) -> str:
        """What of this event the customer reads; joined over a turn, the released text."""
        return ""

    @property
    def failure(self) -> str | None:
        """Why the turn ended, if this event says that it failed."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStarted(_Base):
    """The turn is on record. `simulated` says that no real model will answer."""

    consultation_id: str
    model: str
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextRetrieved(_Base):
    """What was found for the question: ids of facts, cases, rules and memories."""

    public: ClassVar[bool] = False
    facts: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    memories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningDelta(_Base):
    """A piece of the private reasoning before the answer."""

    public: ClassVar[bool] = False
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta(_Base):
    """A piece of released text, from `start` to `end`."""

    text: str
    start: int
    end: int

    @property
    def customer_text(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld(_Base):
    """The gate replaced what would have stood from `start` to `end`; the replacement follows as `TextDelta`."""

    start: int
    end: int
    check: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed(_Base):
    """The answer is whole; `text` is all that was released."""

    text: str
    finish_reason: AnswerEnd
    usage: Usage | None
    timing: TurnTiming
    cost_usd: float | None
    cache_outcome: str
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(_Base):
    """The turn ended with an error; what was released before it stays."""

    error: str
    message: str

    @property
    def failure(self) -> str | None:
        return f"{self.error}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged(_Base):
    """A verdict on the delivered text has been stored; `verdict` is that of `compliance.verdict.Verdict` as JSON."""

    verdict_id: str
    verdict: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected(_Base):
    """The released text from `start` to `end` is to be read as `replacement`."""

    start: int
    end: int
    replacement: str
    reason: str
    verdict_id: str


PublicEvent: TypeAlias = TurnStarted | TextDelta | Withheld | Completed | Failed | Judged | Corrected
Event: TypeAlias = PublicEvent | ContextRetrieved | ReasoningDelta

_TYPES: tuple[type[Event], ...] = (
    TurnStarted,
    ContextRetrieved,
    ReasoningDelta,
    TextDelta,
    Withheld,
    Completed,
    Failed,
    Judged,
    Corrected,
)
_NAME_OF: dict[type[Event], str] = {kind: re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in _TYPES}
_FIELDS_OF: dict[type[Event], tuple[str, ...]] = {
    kind: tuple(field.name for field in dataclasses.fields(kind)) for kind in _TYPES
}
_TYPE_OF: dict[str, type[Event]] = {name: kind for kind, name in _NAME_OF.items()}


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the event as JSON values; `type` is the class name in snake case."""
    kind = type(event)
    values: dict[str, Any] = {"type": _NAME_OF[kind]}
    for name in _FIELDS_OF[kind]:
        value = getattr(event, name)
        if isinstance(value, Usage | TurnTiming):
            value = dataclasses.asdict(value)
        elif isinstance(value, Mapping):
            value = copy.deepcopy(dict(value))
        values[name] = value
    return values


def event_from_json(values: Mapping[str, Any]) -> Event:
    """Return the event that `event_to_json` made; raise `ValueError` for an unknown `type` or wrong fields."""
    fields = dict(values)
    name = fields.pop("type", None)
    kind = _TYPE_OF.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"unknown event type {name!r}; known are {', '.join(_TYPE_OF)}")
    try:
        if kind is Completed:
            fields["usage"] = None if fields["usage"] is None else Usage(**fields["usage"])
            fields["timing"] = TurnTiming(**fields["timing"])
        if kind is ContextRetrieved:
            fields |= {name: tuple(fields[name]) for name in ("facts", "cases", "rules", "memories")}
        return kind(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the fields of a {name!r} event are not as event_to_json wrote them: {error}") from error
