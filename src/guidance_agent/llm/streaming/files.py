"""A stream's text in a file, which has its name only when all of the text is in it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from guidance_agent.errors import FileWriteError
from guidance_agent.llm.messages import ModelCall
from guidance_agent.llm.streaming.ordered_thread import OrderedThread
from guidance_agent.llm.streaming.part_file import PartFile, read_part
from guidance_agent.llm.streaming.rechunking import rechunk
from guidance_agent.llm.streaming.sources import AnyStream, call_of, close_stream

__all__ = ["WrittenFile", "partial_text", "to_file"]

_BLOCK = 65_536
_LONGEST_UNWRITTEN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """A file that holds the whole text of a stream.

    `characters` and `size` (in bytes) are those of the file; `call` is the record of the model's call, where the stream
    is a model's.
    """

    path: Path
    characters: int
    size: int
    call: ModelCall | None = None


async def to_file(
    stream: AnyStream, path: str | os.PathLike[str], *, resume: bool = False, mode: int = 0o600
) -> WrittenFile:
    """Write the text of `stream` to `path` in UTF-8, and close the stream.

    Until the whole text is on disk it stands in `<name>.part` in the same folder; then it takes the name in one step,
    in the place of what was there. When the stream fails or is cancelled, all text that came stays in the part, a note
    on the error says so, and the file of that name is as it was. Text that has come is written after half a second at
    the latest. Nothing is left behind when no text came.

    Args:
        stream: Text, a model's deltas or a turn's events; only what the customer reads is written.
        path: The file. Its folder must exist.
        resume: False drops what an earlier attempt left in the part. True writes after it: the stream must then be the
            rest of the text, after what `partial_text` returns.
        mode: Permissions of the file: by default its owner's alone, because answers may repeat what a customer said.

    Raises:
        FileWriteError: the file cannot be written; before anything was read from the stream if that could be known.
        ModelError, GuidanceAgentError: what ended the stream before its end.
    """
    file = PartFile(Path(path), resume=resume, mode=mode)
    try:
        with OrderedThread() as thread:
            await _write_all(stream, file, thread)
    finally:
        await close_stream(stream)
    return WrittenFile(path=file.target, characters=file.characters, size=file.size, call=call_of(stream))


async def _write_all(stream: AnyStream, file: PartFile, thread: OrderedThread) -> None:
    pieces = rechunk(stream, characters=_BLOCK, max_delay=_LONGEST_UNWRITTEN)
    try:
        await thread.run(file.open)
        async for piece in pieces:
            await thread.run(file.write, piece)
        await thread.run(file.finish)
    except BaseException as error:
        try:
            await pieces.aclose()
        finally:
            await _keep(pieces.held, file, thread, error)
        raise


async def _keep(rest: str, file: PartFile, thread: OrderedThread, error: BaseException) -> None:
    """Leave all text that came in the part, and say so on the error."""
    try:
        await thread.run(file.keep, rest)
    except FileWriteError as another:
        if not isinstance(error, FileWriteError):
            error.add_note(f"Not all of the text that came before could be kept: {another}")
        return
    if file.whole:
        error.add_note(f"The text was whole before that, and is in {str(file.target)!r}.")
    elif file.characters:
        error.add_note(f"The text that came before ({file.characters:,} characters) is in {str(file.part)!r}.")


async def partial_text(path: str | os.PathLike[str]) -> str:
    """Return the text that an interrupted `to_file` left for `path`; empty when there is none.

    Raises:
        FileWriteError: when it cannot be read, or is not text.
    """
    return await asyncio.to_thread(read_part, Path(path))
