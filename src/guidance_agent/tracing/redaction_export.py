"""The last step before spans leave the process: an exporter that hands redacted copies to the real one.

    span ends ── batch processor's queue ── its thread: RedactingSpanExporter ── OTLP exporter

It works where the batch processor calls it, in that processor's thread, so what the caller pays is putting a span into
a queue. Everything with text in a span is redacted: its name, attributes, events, exceptions, stack traces, status,
links and trace state. The resource and the instrumentation scope are the program's own words and stay.

Names of a trace's customer come from `TraceNames`: the turn writes them down when it opens its trace, in the memory of
this process, and the exporter looks them up. They are in no span, so nothing has to take them out again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, Status
from opentelemetry.trace.span import TraceState

from guidance_agent.core.types import CustomerProfile
from guidance_agent.tracing.redaction import FAILED, Redactor, truncate_redacted

__all__ = ["RedactingSpanExporter", "TraceNames", "names_of_customer"]

_logger = logging.getLogger("guidance_agent.tracing")


class TraceNames:
    """The names to redact in a trace, by trace id, for the newest `limit` traces.

    The event loop writes and the exporter's thread reads. Every step is one operation on a dict or a deque, which the
    interpreter does not interrupt, so that a turn never waits for a lock.
    """

    def __init__(self, limit: int = 20_000) -> None:
        self._limit = max(1, limit)
        self._names: dict[int, dict[str, None]] = {}
        self._order: deque[int] = deque()

    def add(self, trace_id: int, names: Iterable[str]) -> None:
        """Remember names for a trace; those it has already stay."""
        known = self._names.get(trace_id)
        if known is None:
            self._order.append(trace_id)
            known = self._names.setdefault(trace_id, {})
            while len(self._order) > self._limit:
                self._names.pop(self._order.popleft(), None)
        known.update(dict.fromkeys(name for name in names if name.strip()))

    def of(self, trace_id: int) -> tuple[str, ...]:
        """Return the names of a trace; none if it is unknown or long gone."""
        return tuple(self._names.get(trace_id, ()))

    def __len__(self) -> int:
        return len(self._names)


def names_of_customer(customer: CustomerProfile) -> tuple[str, ...]:
    """Return what identifies a customer by name: the profile's name, an id that says more than a number, relatives."""
    said = " ".join(
        f"My {label}: {text}."
        for label, text in (
            ("partner", customer.partner),
            ("children", customer.dependants),
            ("friend", customer.notes),
        )
        if text
    )
    names = (customer.first_name or "", customer.customer_id, *sorted(Redactor().names_in(said)))
    return tuple(dict.fromkeys(name for name in names if len(name.strip()) > 1))


class RedactingSpanExporter(SpanExporter):
    """Hands redacted copies of finished spans to another exporter.

    Args:
        exporter: The exporter that sends them.
        redactor: What redacts; a `Redactor` with its defaults if None.
        names: The names of each trace's customer.
        redact: False hands on the spans as they are, for a collector that may see everything.
        max_length: Characters of a text that are sent, redacted or not; the rest is cut with a mark. None cuts nothing.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        redactor: Redactor | None = None,
        names: TraceNames | None = None,
        redact: bool = True,
        max_length: int | None = None,
    ) -> None:
        self._exporter = exporter
        self._redactor = Redactor() if redactor is None else redactor
        self._names = TraceNames() if names is None else names
        self._redact = redact
        self._max_length = max_length

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Redact the spans, together for each trace, and send them; a span that cannot be copied is left out."""
        learned: dict[int, frozenset[str]] = {}
        if self._redact:
            for span in spans:
                trace_id = _trace_of(span)
                learned[trace_id] = learned.get(trace_id, frozenset()) | self._learned(span)
        copies = []
        for span in spans:
            try:
                trace_id = _trace_of(span)
                copies.append(self._copy(span, self._names.of(trace_id), learned.get(trace_id, frozenset())))
            except Exception as error:  # whatever went wrong, the span must not leave as it is
                _logger.warning("A span could not be redacted (%s) and is not exported.", type(error).__name__)
        return self._exporter.export(copies) if copies else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Shut the other exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the other exporter."""
        return self._exporter.force_flush(timeout_millis)

    def _learned(self, span: ReadableSpan) -> frozenset[str]:
        words: set[str] = set()
        for text in _texts_of(span):
            try:
                words |= self._redactor.names_in(text)
            except Exception:  # the text itself fails again where it is redacted, and closed
                _logger.debug("Names could not be read in a text of %d characters.", len(text))
        return frozenset(words)

    def _copy(self, span: ReadableSpan, known: tuple[str, ...], learned: frozenset[str]) -> ReadableSpan:
        def text(value: str) -> str:
            if not self._redact:
                return truncate_redacted(value, len(value), self._max_length)
            redacted = self._redactor.redact(value, known=known, learned=learned, limit=self._max_length)
            return truncate_redacted(redacted, len(value), self._max_length)

        def safe(value: str) -> str:
            return self._redactor.safely(text, value)

        def attributes(values: Mapping[str, Any] | None) -> BoundedAttributes:
            try:
                if self._redact:
                    redacted = self._redactor.redact_attributes(
                        values or {}, known=known, learned=learned, limit=self._max_length
                    )
                else:
                    redacted = {key: _cut(value, text) for key, value in (values or {}).items()}
            except Exception:  # closed: no attribute leaves when one cannot be judged
                redacted = dict.fromkeys(map(safe, values or {}), FAILED)
            copy = BoundedAttributes(attributes=redacted, immutable=False)
            copy.dropped = getattr(values, "dropped", 0)
            return copy

        status = span.status
        return ReadableSpan(
            name=safe(span.name),
            context=_context(span.context, safe),
            parent=_context(span.parent, safe),
            resource=span.resource,
            attributes=attributes(span.attributes),
            events=[Event(safe(event.name), attributes(event.attributes), event.timestamp) for event in span.events],
            links=[_link(link, attributes, safe) for link in span.links],
            kind=span.kind,
            status=Status(status.status_code, safe(status.description)) if status.description else status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )


def _link(link: Link, attributes: Any, safe: Any) -> Link:
    context = _context(link.context, safe)
    return Link(link.context if context is None else context, attributes(link.attributes))


def _context(context: SpanContext | None, safe: Any) -> SpanContext | None:
    if context is None or not context.trace_state:
        return context
    # An entry that redaction would change is not valid any more, so it is left out as a whole.
    kept = [(key, value) for key, value in context.trace_state.items() if safe(value) == value and safe(key) == key]
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags, TraceState(kept))


def _cut(value: Any, text: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, tuple | list):
        return tuple(_cut(item, text) for item in value)
    return value


def _trace_of(span: ReadableSpan) -> int:
    return 0 if span.context is None else span.context.trace_id


def _texts_of(span: ReadableSpan) -> Iterable[str]:
    for attributes in (span.attributes, *(event.attributes for event in span.events)):
        for value in (attributes or {}).values():
            yield from _texts_in(value)
    if span.status.description:
        yield span.status.description


def _texts_in(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for below in value.values():
            yield from _texts_in(below)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        for item in value:
            yield from _texts_in(item)
