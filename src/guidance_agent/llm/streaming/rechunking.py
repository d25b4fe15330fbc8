"""Another rhythm for a stream's text: fewer and larger pieces, whole words or sentences, and no long wait for any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import Self

from guidance_agent.errors import InputError
from guidance_agent.llm.streaming.pieces import PieceBuffer, Unit
from guidance_agent.llm.streaming.pump import Pump
from guidance_agent.llm.streaming.sources import AnyStream, Ending, StreamBase, close_stream, text_of

__all__ = ["TextPieces", "rechunk"]

_MOST_CHARACTERS = 65_536


class TextPieces(StreamBase):
    """The text of another stream in pieces of another size. Leaving it early, in whatever way, closes that stream."""

    def __init__(self, source: AnyStream, buffer: PieceBuffer, pieces: AsyncGenerator[str, None]) -> None:
        super().__init__(source)
        self._buffer = buffer
        self._pieces = pieces

    @property
    def held(self) -> str:
        """Text that has arrived and was not handed out: after the stream was left or cancelled, what would be lost."""
        return self._buffer.held

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[str]:
        return self._pieces.__anext__()

    async def aclose(self) -> None:
        await close_stream(self._pieces)
        await super().aclose()


def rechunk(
    stream: AnyStream,
    *,
    characters: int | None = None,
    words: int | None = None,
    sentences: int | None = None,
    max_delay: float | None = 0.5,
) -> TextPieces:
    """Return the text of `stream` in pieces of so many characters, words or sentences; at most one of them is given.

    The first text is passed on as it comes, whatever its size, so that nobody waits for it. Joined, the pieces are the
    text of the stream, however that was cut. What is held when the stream ends or fails is handed out before the end or
    the error; what is held when it is left stays in `held`.

    Args:
        stream: Text, a model's deltas or a turn's events; only what the customer reads is passed on.
        characters: Code points of a piece, 1 to 65,536; less where a character would be torn apart.
        words: Words of a piece, at least 1; the white space after a word belongs to it.
        sentences: Sentences of a piece, at least 1; a line break ends one, too.
        max_delay: Seconds after which held text is handed out although its piece is not whole. None waits for the
            piece. Without a size, text is gathered for so long.

    Raises:
        InputError: more than one size, none and no `max_delay`, or one that is out of range.
        ModelError, GuidanceAgentError: while iterating, what ended the stream before its end.
    """
    unit, size = _chosen({"characters": characters, "words": words, "sentences": sentences})
    if max_delay is None and unit is None:
        raise InputError("rechunk needs to know when a piece is whole. Give characters, words, sentences or max_delay.")
    if max_delay is not None and not max_delay > 0:
        raise InputError(f"max_delay={max_delay!r} is no time to wait. Give seconds above 0, or None.")
    buffer = PieceBuffer(unit, size)
    pieces = _as_it_comes(stream, buffer) if max_delay is None else _in_time(stream, buffer, max_delay)
    return TextPieces(stream, buffer, pieces)


def _chosen(sizes: dict[Unit, int | None]) -> tuple[Unit | None, int]:
    given = [(unit, size) for unit, size in sizes.items() if size is not None]
    if len(given) > 1:
        raise InputError(f"rechunk was given {' and '.join(unit for unit, _ in given)}. Give one of them.")
    if not given:
        return None, 0
    [(unit, size)] = given
    if size < 1 or (unit == "characters" and size > _MOST_CHARACTERS):
        most = f" to {_MOST_CHARACTERS:,}" if unit == "characters" else " or more"
        raise InputError(f"{unit}={size!r} is no size of a piece. Give 1{most}.")
    return unit, size


async def _as_it_comes(stream: AnyStream, buffer: PieceBuffer) -> AsyncGenerator[str, None]:
    ending = Ending()
    failure: Exception | None = None
    try:
        items = aiter(stream)
        while True:
            try:
                item = await anext(items)
            except StopAsyncIteration:
                break
            except Exception as error:  # the reader gets it after the text that came before
                failure = error
                break
            ending.note(item)
            buffer.add(text_of(item))
            while (piece := buffer.take()) is not None:
                yield piece
        buffer.flush(last=True)
        while (piece := buffer.take()) is not None:
            yield piece
        if failure is not None:
            raise failure
        ending.check(stream)
    finally:
        await close_stream(stream)


async def _in_time(stream: AnyStream, buffer: PieceBuffer, max_delay: float) -> AsyncGenerator[str, None]:
    loop = asyncio.get_running_loop()
    ending = Ending()
    failure: Exception | None = None
    pump = Pump(stream)
    due = 0.0
    try:
        while not pump.ended:
            try:
                item = await pump.next(due if buffer.waiting else None)
            except Exception as error:  # the reader gets it after the text that came before
                failure = error
                break
            if item is not None:
                ending.note(item)
                text = text_of(item)
                buffer.add(text)
                if buffer.waiting <= len(text):
                    # Nothing is left of what came before this item.
                    due = loop.time() + max_delay
            elif not pump.ended:
                buffer.flush()
                due = loop.time() + max_delay
            while (piece := buffer.take()) is not None:
                yield piece
        buffer.flush(last=True)
        while (piece := buffer.take()) is not None:
            yield piece
        if failure is not None:
            raise failure
        ending.check(stream)
    finally:
        try:
            await pump.aclose()
        finally:
            if (item := pump.unread()) is not None:
                buffer.add(text_of(item))
