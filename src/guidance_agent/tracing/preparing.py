"""From a span that has ended to what leaves the process: cut, redacted, and such as every back end can read.

Runs in the exporter's thread. What is cut is cut at the end of a margin, redacted, and then shortened by the margin, so
that nothing that was cut in half is taken for something that needs no redaction.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.redacted_texts import RedactedTexts
from guidance_agent.tracing.redaction_key import pseudonym
from guidance_agent.tracing.span import LONGEST_KEPT, CutText, Span, SpanContext, SpanEvent

__all__ = ["LONGEST_VALUE", "FinishedEvent", "FinishedSpan", "NoRedaction", "Preparation", "Redactor", "Sendable"]

Sendable: TypeAlias = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]

MARGIN = 256
"""Longer than anything that redaction looks for."""

LONGEST_VALUE = LONGEST_KEPT - MARGIN
"""Characters of one text that are exported."""

_SHORTEST_NUMBER = 100_000
"""Smaller numbers are figures, whatever they stand under; a larger one may be an account."""

_LARGEST_INTEGER = 2**63 - 1


class Redactor(Protocol):
    """Takes personal data out of texts. Equal arguments must give equal results."""

    def redact(self, key: str, value: str, names: tuple[str, ...]) -> str:
        """Return a text without what must not leave.

        Args:
            key: Where it stands: the name of an attribute, `name` for that of a span or an event, `status` for what a
                status says, `key` for the name of an attribute itself.
            value: The text.
            names: The customer's own names, and what is told of other people (`people.Told`).
        """


class NoRedaction:
    """Leaves every text as it is."""

    def redact(self, key: str, value: str, names: tuple[str, ...]) -> str:
        return value


class FinishedEvent(NamedTuple):
    """An event of a span, ready to leave."""

    name: str
    at: int
    attributes: Mapping[str, Sendable]


class FinishedSpan(NamedTuple):
    """A span, ready to leave. Times are nanoseconds since the epoch.

    `status` is None for nothing, True for well, False for an error; `original` is the span that it was made of.
    """

    name: str
    context: SpanContext
    parent: SpanContext | None
    link: SpanContext | None
    started: int
    finished: int
    attributes: Mapping[str, Sendable]
    events: Sequence[FinishedEvent]
    status: bool | None
    message: str
    original: Span


class Preparation:
    """Makes spans ready. Belongs to one thread.

    `breathe` is called after each piece of work with the seconds that it took, so that others have their turn.

    Args:
        redactor: Takes personal data out.
        longest: Characters of one text that leave.
        key: Key of the pseudonyms of ids that hold personal data.
    """

    def __init__(self, redactor: Redactor, *, longest: int = LONGEST_VALUE, key: bytes = b"") -> None:
        self._redactor = redactor
        self._key = key
        self.breathe: Callable[[float], None] = _no_breath
        self._longest = max(1, min(longest, LONGEST_VALUE))
        self._texts = RedactedTexts(self._redacted)

    def prepare(self, span: Span) -> FinishedSpan:
        """Return the span as it leaves."""
        words = span.names
        attributes = self._all(span.attributes, words)
        attributes[names.SPAN_KIND] = span.kind
        return FinishedSpan(
            name=self._text("name", span.name, words),
            context=span.context,
            parent=span.parent,
            link=span.link,
            started=span.started,
            finished=span.started if span.finished is None else span.finished,
            attributes=attributes,
            events=[self._event(event, words) for event in tuple(span.events)],
            status=span.status,
            message=self._text("status", span.message, words),
            original=span,
        )

    def _event(self, event: SpanEvent, words: tuple[str, ...]) -> FinishedEvent:
        name = event.name if event.name in names.OWN_EVENTS else self._text("name", event.name, words)
        return FinishedEvent(name, event.at, self._all(event.attributes, words))

    def _all(self, attributes: Mapping[str, object], words: tuple[str, ...]) -> dict[str, Sendable]:
        made: dict[str, Sendable] = {}
        for key, value in tuple(attributes.items()):
            if value is not None:
                shown = key if names.is_own_key(key) else self._text("key", key, words)
                made[shown] = self._value(key, value, words)
        return made

    def _value(self, key: str, value: object, words: tuple[str, ...]) -> Sendable:
        if isinstance(value, str):
            return self._text(key, value, words)
        if isinstance(value, CutText):
            return self._text(key, value.text, words, length=value.length)
        if isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return self._integer(key, value, words)
        if isinstance(value, bytes | bytearray):
            return self._text(key, bytes(value).decode("utf-8", "replace"), words)
        if isinstance(value, Sequence):
            return self._list(key, value, words)
        return self._text(key, _written(value), words)

    def _integer(self, key: str, value: int, words: tuple[str, ...]) -> Sendable:
        if abs(value) >= _SHORTEST_NUMBER:
            written = str(value)
            text = self._text(key, written, words)
            if text != written or abs(value) > _LARGEST_INTEGER:
                return text
        return value

    def _list(self, key: str, values: Sequence[object], words: tuple[str, ...]) -> Sendable:
        items = [item for item in values if item is not None]
        kinds = {type(item) for item in items}
        if kinds == {float} or kinds == {bool}:
            return items  # type: ignore[return-value]
        if kinds == {int}:
            numbers = [self._integer(key, item, words) for item in items]  # type: ignore[arg-type]
            return numbers if {type(item) for item in numbers} == {int} else [str(item) for item in numbers]  # type: ignore[return-value]
        return [self._text(key, item if isinstance(item, str) else str(item), words) for item in items]

    def _text(self, key: str, value: str, words: tuple[str, ...], *, length: int | None = None) -> str:
        if names.is_of_program(key):
            return readable(value)[: self._longest]
        if length is None:
            length = len(value)
        if length <= self._longest:
            text = self._texts.of(key, value, words)
            # An id that was redacted would be the same for everybody; a pseudonym keeps conversations apart.
            return pseudonym(value, self._key) if key in names.OF_CALLERS and text != value else text
        kept = self._longest
        text = self._texts.of(key, value[: kept + MARGIN], words)
        return text[: max(0, min(kept, len(text) - MARGIN))] + f" … [cut: {length:,} characters in all]"

    def _redacted(self, key: str, value: str, words: tuple[str, ...]) -> str:
        began = time.perf_counter()
        made = self._redactor.redact(key, readable(value), words)
        self.breathe(time.perf_counter() - began)
        return made


def _no_breath(worked: float) -> None:
    pass


def _written(value: object) -> str:
    if isinstance(value, Mapping):
        with contextlib.suppress(TypeError, ValueError):
            return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def readable(text: str) -> str:
    """Return a text that is UTF-8 and that every database holds: what is neither becomes U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "�")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
