"""What the stream tools read: any async iterable of text, of a model's deltas, or of a turn's events.

The tools know an item by what it says of itself, so that they serve streams of packages above them: text is itself, a
delta has `text`, anything else has `customer_text` and perhaps `failure` and `usage`.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from guidance_agent.errors import MidStreamError
from guidance_agent.llm.messages import Delta, ModelCall, Usage

__all__ = [
    "AnyStream",
    "CustomerItem",
    "Ending",
    "StreamBase",
    "StreamItem",
    "call_of",
    "close_stream",
    "text_of",
    "usage_of",
]


class CustomerItem(Protocol):
    """An item of a stream that is neither text nor a delta, such as the event of a turn."""

    @property
    def customer_text(self) -> str:
        """What of it the customer reads."""

    @property
    def failure(self) -> str | None:
        """Why the stream ended, if this item says that it failed."""


StreamItem: TypeAlias = str | Delta | CustomerItem
AnyStream: TypeAlias = AsyncIterable[StreamItem]


def text_of(item: object) -> str:
    """Return what of `item` the customer reads.

    Raises:
        TypeError: when it is no text, no delta and says nothing of a customer.
    """
    if isinstance(item, str):
        return item
    if isinstance(item, Delta):
        return item.text
    text = getattr(item, "customer_text", None)
    if isinstance(text, str):
        return text
    raise TypeError(f"A stream of {type(item).__name__} cannot be read. Pass a stream of str, of deltas or of events.")


def usage_of(item: object) -> Usage | None:
    """Return the usage that `item` tells."""
    usage = getattr(item, "usage", None)
    return usage if isinstance(usage, Usage) else None


class Ending:
    """Whether a stream came to the end of its answer.

    Some streams end in silence whatever became of the answer: events end after the one that says that the turn failed,
    and a stream that is closed under its reader just stops. To take that for the end would be to report a failure as a
    success.
    """

    def __init__(self) -> None:
        self._failure: str | None = None
        self._has_items = False
        self._finished = False

    def note(self, item: object) -> None:
        if not isinstance(item, str | Delta):
            self._has_items = True
            self._failure = getattr(item, "failure", None) or self._failure
            self._finished = self._finished or getattr(item, "finish_reason", None) is not None

    def check(self, stream: AnyStream) -> None:
        """Raise what ended `stream`, unless that was the end of its answer."""
        error = getattr(stream, "exception", None)
        if isinstance(error, Exception):
            raise error
        if self._failure is not None:
            raise MidStreamError(
                f"The answer was not completed: {self._failure} What came before is not the whole of it; ask again.",
                retryable=False,
            )
        call = call_of(stream)
        unfinished = self._has_items and not self._finished
        if unfinished or (call is not None and call.outcome != "completed"):
            raise MidStreamError(
                "The stream was closed before its answer was complete. What came before is not the whole of it.",
                retryable=False,
            )


def call_of(stream: object) -> ModelCall | None:
    """Return the record of the model's call behind `stream`, once there is one."""
    call = getattr(stream, "call", None)
    return call if isinstance(call, ModelCall) else None


async def close_stream(stream: object) -> None:
    """Close what can be closed. A stream that another task reads ends there, unless it is a generator."""
    if inspect.isasyncgen(stream) and stream.ag_running:
        return
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


class StreamBase:
    """What every stream that a tool returns is besides its items: a context manager, and a window to its source."""

    def __init__(self, source: AnyStream) -> None:
        self._source = source

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the source, and with it the provider's socket. May be called more than once."""
        await close_stream(self._source)

    @property
    def call(self) -> ModelCall | None:
        """The record of the model's call, once it is over; None where the source keeps none."""
        return call_of(self._source)

    @property
    def exception(self) -> Any:
        """What ended the source, where it keeps that, as a turn does."""
        return getattr(self._source, "exception", None)
