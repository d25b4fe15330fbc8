"""Pieces of a streamed response with the moment at which each is due, and how their bytes are cut."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from guidance_agent.provider_simulator.settings import ChunkMode

__all__ = ["Frame", "FrameKind", "cut_bytes", "with_line_ending"]

FrameKind = Literal["head", "text", "tail", "stall", "reset", "close", "end"]


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of a stream.

    `head`, `text` and `tail` carry bytes; `stall` sends nothing more until it is due, `reset` aborts the connection,
    `close` closes it without ending the body, `end` ends the body cleanly. `due` counts seconds from the arrival of the
    request; `pause` is how long the piece waits besides, counted from the moment at which the one before was sent.
    """

    kind: FrameKind
    data: bytes
    due: float
    pause: float = 0.0


def with_line_ending(frames: Iterable[Frame], ending: str) -> Iterator[Frame]:
    """The frames with their line feeds replaced; JSON strings hold none, so only the framing changes."""
    if ending == "\n":
        yield from frames
        return
    replacement = ending.encode()
    for frame in frames:
        yield replace(frame, data=frame.data.replace(b"\n", replacement))


def cut_bytes(data: bytes, mode: ChunkMode, rng: random.Random) -> Iterator[bytes]:
    """Cut `data` for the wire, without regard for characters or lines."""
    if mode == "event":
        yield data
        return
    start = 0
    while start < len(data):
        size = 1 if mode == "byte" else rng.randint(1, 64)
        yield data[start : start + size]
        start += size
