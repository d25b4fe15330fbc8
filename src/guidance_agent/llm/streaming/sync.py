"""Any stream, read from code without `await`."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

from guidance_agent.core.loop_thread import iterate_in_thread

__all__ = ["iterate_sync"]

T = TypeVar("T")


def iterate_sync(
    stream: AsyncIterable[T] | Callable[[], AsyncIterable[T]],
    *,
    owner: AbstractAsyncContextManager[Any] | None = None,
) -> Iterator[T]:
    """Yield what `stream` yields, for scripts and notebooks; it runs on an event loop in a thread of its own.

    An item is read when it is asked for. Leaving the iterator early closes the stream, and with it the provider's
    socket, before returning. The stream must not have been read before: what it has open belongs to another loop.

    Args:
        stream: The stream, or what opens it once its owner is open.
        owner: What the stream needs, such as a gateway or a runtime; opened before the stream and closed after it, on
            the same loop.

    Raises:
        Exception: what the stream or its owner raises.
    """

    def opened() -> AsyncIterable[T]:
        return stream() if callable(stream) else stream

    return iterate_in_thread(nullcontext() if owner is None else owner, opened)
