"""How much of a prompt the providers' published caching rules let a request read: a second, plain reading of the rules.

Written from the rules and not from the simulator, so that either can be held against the other. Nothing here is fast or
clever: what earlier requests left behind is kept prefix by prefix, and every rule is a sentence.

- *Anthropic*: a prefix is stored where a breakpoint ends it and can be read once the answer that stored it has begun. A
  breakpoint finds the longest stored prefix among the twenty positions that end with it. Five minutes or an hour,
  counted from the start of the request; a read renews it. Shorter prefixes than the model's minimum are not stored.
- *OpenAI from GPT-5.6*: a prefix is stored and found only exactly at a breakpoint, for thirty minutes since it was
  last stored or read, under the key of the request. The latest fifty breakpoints are looked at, four are written.
- *OpenAI before*: the start of the prompt is stored by itself, in steps of 128 tokens from 1,024 on, for five idle
  minutes and at most an hour, under the key of the request.
- About fifteen requests a minute fit under one key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

__all__ = [
    "REQUESTS_PER_MINUTE_AND_KEY",
    "Allowed",
    "AnthropicRules",
    "BreakpointRules",
    "LoggedRequest",
    "PrefixRules",
    "Rules",
    "Span",
    "best_marks",
    "fewest_keys",
]

REQUESTS_PER_MINUTE_AND_KEY = 15

_POSITIONS = 20
_BREAKPOINTS_READ = 50
_BREAKPOINTS_WRITTEN = 4
_HALF_HOUR = 1_800.0
_STEP = 128
_IDLE = 300.0
_LONGEST = 3_600.0
_EVER = math.inf


class Span(NamedTuple):
    """One block of a prompt as it was sent.

    Attributes:
        content: What has to be equal for a prefix to be the same: role and text.
        tokens: Its length, with what the provider's framing adds before it.
        life: Seconds that its breakpoint asks for; None without a breakpoint.
    """

    content: Hashable
    tokens: int
    life: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """A request in the order of its arrival.

    Attributes:
        key: Cache key that was sent, or "".
        group: Requests that an ideal plan would give the same key, such as those of one consultation.
        spans: The prompt, in the order of the wire.
        started: When it arrived, in seconds.
        begun: When its answer began.
    """

    key: str
    group: str
    spans: tuple[Span, ...]
    started: float
    begun: float

    @property
    def sizes(self) -> list[int]:
        """For each span the tokens of the prefix that ends with it."""
        total = 0
        return [total := total + span.tokens for span in self.spans]

    @property
    def prefixes(self) -> list[tuple[Hashable, ...]]:
        """For each span the prefix that ends with it."""
        contents = tuple(span.content for span in self.spans)
        return [contents[: upto + 1] for upto in range(len(contents))]


class Allowed(NamedTuple):
    """Tokens that a request may read, and those that it then stores for a short and for a long life."""

    read: int
    short: int
    long: int


@dataclass(slots=True)
class _Stored:
    life: float
    since: float
    until: float
    readable: float


class _Store:
    """What earlier requests left behind."""

    def __init__(self) -> None:
        self._stored: dict[Hashable, _Stored] = {}

    def alive(self, prefix: Hashable, now: float) -> _Stored | None:
        found = self._stored.get(prefix)
        return found if found is not None and found.readable <= now < found.until else None

    def keep(self, prefix: Hashable, request: LoggedRequest, life: float) -> None:
        """Store what a request left; of two that stored the same at once the longer life counts."""
        known = self._stored.get(prefix)
        stored = _Stored(life, request.started, request.started + life, request.begun)
        if known is not None and known.until > request.begun:
            stored = replace(known, life=max(known.life, life), until=max(known.until, stored.until))
        self._stored[prefix] = stored


class AnthropicRules:
    """Breakpoints with a look-back. `positions` is how many of them a breakpoint looks at."""

    def __init__(self, minimum: int, *, positions: float = _POSITIONS) -> None:
        self._minimum = minimum
        self._positions = positions
        self._store = _Store()

    def ask(self, request: LoggedRequest) -> Allowed:
        """Return what the request may read and stores, and remember it."""
        sizes, prefixes, now = request.sizes, request.prefixes, request.started
        marks = [
            place for place, span in enumerate(request.spans) if span.life is not None and sizes[place] >= self._minimum
        ]
        best, source = -1, None
        for mark in marks:
            first = max(0, mark - self._positions + 1)
            for place in range(mark, int(first) - 1, -1):
                found = self._store.alive(prefixes[place], now)
                if found is not None:
                    found.until = max(found.until, now + found.life)
                    if place > best:
                        best, source = place, found
                    break
        read = sizes[best] if source is not None else 0
        long_end = max([read, *(sizes[mark] for mark in marks if (request.spans[mark].life or 0) > _IDLE)])
        end = max([read, *(sizes[mark] for mark in marks)])
        for mark in marks:
            life = request.spans[mark].life or _IDLE
            if source is not None and mark < best:
                # Nothing is computed for a breakpoint inside what was read.
                life = min(life, source.life)
            if self._store.alive(prefixes[mark], now) is None:
                self._store.keep(prefixes[mark], request, life)
        return Allowed(read, end - long_end, long_end - read)


class BreakpointRules:
    """Exact matches at breakpoints, under the key of the request."""

    def __init__(self, minimum: int) -> None:
        self._minimum = minimum
        self._store = _Store()

    def ask(self, request: LoggedRequest) -> Allowed:
        """Return what the request may read and stores, and remember it."""
        sizes, now = request.sizes, request.started
        prefixes = [(request.key, prefix) for prefix in request.prefixes]
        marks = [place for place, span in enumerate(request.spans) if span.life is not None]
        long_enough = [place for place in marks if sizes[place] >= self._minimum]
        read = 0
        for place in marks[-_BREAKPOINTS_READ:]:
            found = self._store.alive(prefixes[place], now) if place in long_enough else None
            if found is not None:
                found.until = now + found.life
                read = sizes[place]
        new = [place for place in long_enough if self._store.alive(prefixes[place], now) is None]
        new = new[-_BREAKPOINTS_WRITTEN:]
        for place in new:
            self._store.keep(prefixes[place], request, _HALF_HOUR)
        return Allowed(read, max(0, sizes[new[-1]] - read) if new else 0, 0)


class PrefixRules:
    """Automatic prefixes in steps, under the key of the request.

    Args:
        minimum: Shortest prefix that is stored, in tokens.
        tokens: Cuts a text into its tokens.
        framing: Tokens that stand before the first one of a span.
    """

    def __init__(self, minimum: int, *, tokens: Callable[[str], Sequence[str]], framing: int) -> None:
        self._minimum = minimum
        self._tokens = tokens
        self._framing = framing
        self._store = _Store()

    def ask(self, request: LoggedRequest) -> Allowed:
        """Return what the request may read, and remember what it leaves behind."""
        now, read = request.started, 0
        steps = [(size, (request.key, prefix)) for size, prefix in self._steps(request.spans)]
        for size, prefix in steps:
            found = self._store.alive(prefix, now)
            if found is not None:
                found.until = max(found.until, min(now + _IDLE, found.since + _LONGEST))
                read = size
        for _, prefix in steps:
            if self._store.alive(prefix, now) is None:
                self._store.keep(prefix, request, _IDLE)
        return Allowed(read, 0, 0)

    def _steps(self, spans: Sequence[Span]) -> Iterator[tuple[int, Hashable]]:
        """Yield each whole number of steps that is long enough, with what the prompt says up to there."""
        before: tuple[Hashable, ...] = ()
        done = 0
        for span in spans:
            role, text = _role_and_text(span)
            done += self._framing
            tokens = self._tokens(text)
            first = -(-max(done + 1, self._minimum) // _STEP) * _STEP
            for size in range(first, done + len(tokens) + 1, _STEP):
                yield size, (*before, role, "".join(tokens[: size - done]))
            done += len(tokens)
            before = (*before, role, text)


Rules = AnthropicRules | BreakpointRules | PrefixRules


def _role_and_text(span: Span) -> tuple[str, str]:
    match span.content:
        case (str(role), str(text)):
            return role, text
    raise ValueError(f"automatic prefixes are told apart by role and text, got {span.content!r}")


def best_marks(request: LoggedRequest) -> LoggedRequest:
    """Return the request as if a breakpoint with the longest life ended every span, which no request may have."""
    return replace(request, spans=tuple(span._replace(life=_LONGEST) for span in request.spans))


def fewest_keys(requests: Sequence[LoggedRequest]) -> list[LoggedRequest]:
    """Return the requests under as few keys as the number of requests a minute allows, a key for each group."""
    starts = [request.started for request in requests]
    busiest = max((sum(1 for other in starts if start <= other < start + 60.0) for start in starts), default=0)
    keys = max(1, -(-busiest // REQUESTS_PER_MINUTE_AND_KEY))
    groups = {group: place for place, group in enumerate(dict.fromkeys(request.group for request in requests))}
    return [replace(request, key=f"best-{groups[request.group] % keys}") for request in requests]
