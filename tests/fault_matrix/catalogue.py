"""What can go wrong at a provider, where in an answer it can, and which cells of the matrix that makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from tests.conformance.subjects import SUBJECTS, Subject, Wire

__all__ = ["CASES", "POSITIONS", "WIRES", "Case", "Cell", "Position", "Stage", "cells", "exists"]

Position = Literal["before the first text", "in the thinking", "after the first text", "not streamed"]
POSITIONS: tuple[Position, ...] = get_args(Position)
WIRES: tuple[Wire, ...] = get_args(Wire)

Stage = Literal["instead of an answer", "in a body", "in an event stream", "at the end of an answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that goes wrong.

    Attributes:
        name: Its row in the tables.
        stage: Where in an exchange it can happen; decides which cells exist.
        fault: Fields of the simulator's `Fault`; empty when the simulator fails of its own accord.
        wires: The wire formats that know it.
        simulator: Changes to the simulator's settings.
        settings: Changes to ours: short time-outs where the provider is silent, fewer attempts where waits are long.
        limited: Whether the simulator's rate limits are used up before the call.
    """

    name: str
    stage: Stage
    fault: Mapping[str, Any] = field(default_factory=dict, hash=False)
    wires: tuple[Wire, ...] = WIRES
    simulator: Mapping[str, Any] = field(default_factory=dict, hash=False)
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    limited: bool = False


def _status(name: str, status: int, **fault: Any) -> Case:
    return Case(name=name, stage="instead of an answer", fault={"kind": "status", "status": status, **fault})


_TINY_WINDOWS = {"context_windows": {"claude-haiku-5-5": 8, "gpt-6-luna": 8}}
# Where waiting is real, two attempts show what three would, in less time.
_TWO_ATTEMPTS = {"retry": {"max_attempts": 2}}
_SILENCE = {"timeouts": {"first_event": 0.5, "between_events": 0.5, "turn": 0.5}, **_TWO_ATTEMPTS}

CASES: tuple[Case, ...] = (
    Case(
        name="no fault; the 200 carries `Retry-After`",
        stage="instead of an answer",
        wires=("anthropic",),
    ),
    _status("429 with `Retry-After`", 429, retry_after=0.1),
    _status("429 with a `Retry-After` beyond `max_wait`", 429, retry_after=600),
    _status("429 without `Retry-After`", 429),
    Case(
        name="429, quota used up",
        stage="instead of an answer",
        fault={"kind": "status", "status": 429, "insufficient_quota": True},
        wires=("openai",),
    ),
    Case(
        name="requests per minute used up",
        stage="instead of an answer",
        simulator={"requests_per_minute": 60},
        settings=_TWO_ATTEMPTS,
        limited=True,
    ),
    Case(
        name="tokens per minute used up",
        stage="instead of an answer",
        simulator={"tokens_per_minute": 18_000},
        settings=_TWO_ATTEMPTS,
        limited=True,
    ),
    _status("500", 500),
    _status("503", 503),
    _status("529", 529),
    _status("503 with `Retry-After`", 503, retry_after=0.1),
    _status("400", 400),
    Case(name="400, prompt too long", stage="instead of an answer", simulator=_TINY_WINDOWS),
    _status("401", 401),
    _status("402", 402),
    _status("403", 403),
    _status("404", 404),
    _status("413", 413),
    Case(name="slow headers", stage="instead of an answer", fault={"kind": "slow_headers"}, settings=_SILENCE),
    Case(name="accepted, then reset", stage="instead of an answer", fault={"kind": "accept_then_drop"}),
    Case(
        name="accepted, then closed",
        stage="instead of an answer",
        fault={"kind": "accept_then_drop", "abrupt": False},
    ),
    Case(name="redirect", stage="instead of an answer", fault={"kind": "redirect", "location": "/elsewhere"}),
    Case(name="web page with status 200", stage="instead of an answer", fault={"kind": "wrong_content_type"}),
    Case(name="connection reset", stage="in a body", fault={"kind": "drop", "pause": 0.05}),
    Case(name="connection closed", stage="in a body", fault={"kind": "drop", "abrupt": False, "pause": 0.05}),
    Case(name="stall", stage="in a body", fault={"kind": "stall"}, settings=_SILENCE),
    Case(name="truncation", stage="in a body", fault={"kind": "truncate"}),
    Case(name="garbage", stage="in a body", fault={"kind": "garbage"}),
    Case(name="error event, overloaded", stage="in an event stream", fault={"kind": "error_event", "status": 529}),
    Case(name="error event, rate limit", stage="in an event stream", fault={"kind": "error_event", "status": 429}),
    Case(name="error event, server error", stage="in an event stream", fault={"kind": "error_event", "status": 500}),
    Case(name="error event, invalid request", stage="in an event stream", fault={"kind": "error_event", "status": 400}),
    Case(name="start sent twice", stage="in an event stream", fault={"kind": "duplicate_start"}),
    Case(name="another stream spliced in", stage="in an event stream", fault={"kind": "splice"}),
    Case(name="refusal", stage="at the end of an answer", fault={"kind": "refusal"}),
    Case(name="`max_tokens`", stage="at the end of an answer", fault={"kind": "max_tokens"}),
)


class Cell(NamedTuple):
    """One square of the matrix."""

    case: Case
    position: Position
    subject: Subject

    def __str__(self) -> str:
        return f"{self.case.name.replace('`', '')} {self.position} {self.subject}"


def exists(case: Case, position: Position, wire: Wire) -> bool:
    """Return whether a cell can be.

    - A wire format has only the failures that its provider knows.
    - What comes instead of an answer comes before its first text or thinking, and to whole answers as well.
    - What happens inside an event stream cannot happen to an answer that is not streamed.
    - Thinking is streamed by the Anthropic format; the other hides it.
    """
    if wire not in case.wires:
        return False
    if position == "in the thinking" and wire != "anthropic":
        return False
    if case.stage == "instead of an answer":
        return position in ("before the first text", "not streamed")
    return case.stage != "in an event stream" or position != "not streamed"


def cells(*, wire: Wire | None = None) -> Iterator[Cell]:
    """Yield every cell that can be, of one wire format or of all."""
    for case in CASES:
        for position in POSITIONS:
            for subject in SUBJECTS:
                if wire in (None, subject.wire) and exists(case, position, subject.wire):
                    yield Cell(case, position, subject)
