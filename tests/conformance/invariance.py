"""Reads the same bytes cut in thousands of ways through the native transports' own parsing, and compares.

A socket would join what was cut; so the pieces go to where a transport takes what a socket gave it. Everything that a
caller can see is compared: deltas in their order, neighbours joined, usage, finish reason, tool calls, outcome.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guidance_agent.errors import ModelError
from guidance_agent.llm.messages import Delta, ToolCall
from guidance_agent.llm.transports.anthropic_reader import AnthropicReader
from guidance_agent.llm.transports.failures import Origin
from guidance_agent.llm.transports.native import NativeStream, WireReader
from guidance_agent.llm.transports.openai_reader import OpenAIReader
from guidance_agent.llm.transports.tool_pieces import assemble_tool_calls
from guidance_agent.settings import TimeoutSettings
from tests.conformance.specimens import SPECIMENS, specimen
from tests.conformance.splitting import SPLITS, split
from tests.conformance.subjects import Wire
from tests.conformance.wires import WIRES

__all__ = ["Reading", "Tally", "read_in_pieces", "tally"]

_READERS: Mapping[Wire, type[AnthropicReader] | type[OpenAIReader]] = {
    "anthropic": AnthropicReader,
    "openai": OpenAIReader,
}
_NEWLINES = (b"\n", b"\r\n", b"\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a caller sees of an answer; `joined` are its deltas, neighbours of a kind made one."""

    joined: tuple[tuple[object, ...], ...]
    tools: tuple[ToolCall, ...]
    outcome: str


@dataclass(slots=True)
class Tally:
    """How many splits of one kind were read, in how many pieces, and how many of them differed from the whole."""

    splits: int = 0
    pieces: int = 0
    different: int = 0


class _Response:
    """As much of a response as a stream needs that is given its bytes by hand."""

    content_type = "text/event-stream"
    content = None
    closed = False

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def close(self) -> None:
        self.closed = True


def read_in_pieces(wire: Wire, pieces: Iterable[bytes]) -> Reading:
    """Return what the native transport of a wire format makes of a body that arrives in these pieces."""
    origin = Origin(wire, f"{wire}/model", "http://127.0.0.1")
    reader: WireReader = _READERS[wire](origin)
    response: Any = _Response()
    stream = NativeStream(response, origin, reader, TimeoutSettings(), first_event=60, linger=lambda _: None)
    deltas: list[Delta] = []
    for piece in pieces:
        deltas += stream._parsed(piece)
        if stream._over:
            break
    else:
        deltas += stream._last_deltas()
    failure: ModelError | None = stream._failure
    stream._watchdog.stop()
    stream._finalizer.detach()
    return Reading(
        joined=_joined(deltas),
        tools=assemble_tool_calls(delta.tool_call for delta in deltas if delta.tool_call is not None),
        outcome="completed" if failure is None else f"{type(failure).__name__}: {failure}",
    )


def _joined(deltas: Sequence[Delta]) -> tuple[tuple[object, ...], ...]:
    found: list[tuple[object, ...]] = []
    for delta in deltas:
        for kind, words in (("text", delta.text), ("reasoning", delta.reasoning)):
            if words and found and found[-1][0] == kind:
                found[-1] = (kind, f"{found[-1][1]}{words}")
            elif words:
                found.append((kind, words))
        if delta.tool_call is not None:
            found.append(("tool", delta.tool_call))
        if delta.finish_reason is not None or delta.usage is not None:
            found.append(("end", delta.finish_reason, delta.usage))
    return tuple(found)


async def tally(wire: Wire, splits: int) -> dict[str, Tally]:
    """Return how so many seeded splits of the specimens were read, by the way of cutting."""
    bodies = {name: specimen(name, WIRES[wire]) for name in SPECIMENS}
    promised = {name: read_in_pieces(wire, [body]) for name, body in bodies.items()}
    found = {way: Tally() for way in SPLITS}
    for number in range(splits):
        rng = random.Random(f"{wire}:{number}")
        name, way, newline = rng.choice(SPECIMENS), SPLITS[number % len(SPLITS)], rng.choice(_NEWLINES)
        pieces = split(bodies[name].replace(b"\n", newline), way, rng)
        counted = found[way]
        counted.splits += 1
        counted.pieces += len(pieces)
        counted.different += read_in_pieces(wire, pieces) != promised[name]
        if number % 100 == 0:
            await asyncio.sleep(0)
    return found
