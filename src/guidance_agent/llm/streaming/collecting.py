"""A stream read to its end, as one answer."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, overload

from guidance_agent.llm.messages import Completion, Delta
from guidance_agent.llm.streaming.callbacks import ObservedStream
from guidance_agent.llm.streaming.sources import AnyStream, CustomerItem, Ending, call_of, close_stream, text_of
from guidance_agent.llm.transports.tool_pieces import ToolCallAssembler

if TYPE_CHECKING:
    from guidance_agent.llm.model_stream import ModelStream

__all__ = ["collect"]

_BLOCK = 65_536


@overload
async def collect(stream: ModelStream | ObservedStream[Delta]) -> Completion: ...


@overload
async def collect(stream: AsyncIterable[str] | AsyncIterable[CustomerItem]) -> str: ...


async def collect(stream: AnyStream) -> str | Completion:
    """Read `stream` to its end, close it, and return the whole text.

    Of a model's stream the result is what the gateway's `complete` returns: text, reasoning, finish reason, tool calls,
    and the record of the call with usage, cost and times.

    Raises:
        ModelError, GuidanceAgentError: what ended the stream before its end, also where a stream of events only tells
            it. The text that came before is in no result; use `to_file` or `with_callbacks` where it matters.
    """
    text = reasoning = ""
    pieces: list[str] = []
    held = 0
    tools = ToolCallAssembler()
    has_deltas = False
    ending = Ending()
    try:
        async for item in stream:
            piece = text_of(item)
            if piece:
                pieces.append(piece)
                held += len(piece)
                if held >= _BLOCK:
                    # A local string that nobody else holds grows in place; a list of all pieces would cost more than
                    # ten times their text.
                    block = "".join(pieces)
                    text += block
                    pieces.clear()
                    held = 0
            if isinstance(item, Delta):
                has_deltas = True
                if item.reasoning:
                    reasoning += item.reasoning
                if item.tool_call is not None:
                    tools.add(item.tool_call)
            ending.note(item)
    finally:
        await close_stream(stream)
    ending.check(stream)
    block = "".join(pieces)
    text += block
    call = call_of(stream)
    if call is None or not has_deltas:
        return text
    return Completion(
        text=text,
        reasoning=reasoning,
        finish_reason=call.finish_reason or "other",
        tool_calls=tools.calls(),
        call=call,
    )
