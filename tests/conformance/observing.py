"""What a caller of the gateway sees of one answer, in values that can be compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from guidance_agent.errors import GuidanceAgentError, ModelError, ModelTimeoutError, TimeoutPhase
from guidance_agent.llm.gateway import ModelStream
from guidance_agent.llm.messages import Completion, Delta, FinishReason, ToolCall, Usage
from guidance_agent.llm.transports.tool_pieces import assemble_tool_calls

__all__ = ["LONGEST", "Observed", "observe", "observe_whole", "within"]

LONGEST = 20.0
"""Seconds after which an answer counts as hanging; every time-out under test is far shorter."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """An answer and its end. `error` is the class of the failure, `failure` the failure itself.

    `deltas` are what was read, for tests that look at the order of things.
    """

    text: str = ""
    reasoning: str = ""
    tools: tuple[ToolCall, ...] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None
    outcome: str | None = None
    error: type[GuidanceAgentError] | None = None
    phase: TimeoutPhase | None = None
    status: int | None = None
    code: str | None = None
    retryable: bool | None = None
    retry_after: float | None = None
    failure: GuidanceAgentError | None = field(default=None, compare=False)
    deltas: tuple[Delta, ...] = field(default=(), compare=False, repr=False)


async def within(work: Awaitable[T], seconds: float = LONGEST) -> T:
    """Return what `work` returns; a hang fails the test and says so."""
    try:
        async with asyncio.timeout(seconds) as limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise AssertionError(f"it hung for {seconds:g} s") from None
        raise


async def observe(stream: ModelStream) -> Observed:
    """Read `stream` to its end, whatever that is. Only the package's own errors are an end."""
    deltas: list[Delta] = []
    try:
        await within(_read(stream, deltas))
    except GuidanceAgentError as error:
        await _ended_for_good(stream, error)
        return _observed(stream, deltas, error)
    assert await stream.read() is None
    return _observed(stream, deltas, None)


async def observe_whole(work: Awaitable[Completion]) -> Observed:
    """Wait for a whole answer or its failure."""
    try:
        answer = await within(work)
    except GuidanceAgentError as error:
        return Observed(**_of_error(error), outcome=f"error:{type(error).__name__}")
    return Observed(
        text=answer.text,
        reasoning=answer.reasoning,
        tools=answer.tool_calls,
        finish=answer.finish_reason,
        usage=answer.usage,
        outcome=answer.call.outcome,
    )


async def _read(stream: ModelStream, deltas: list[Delta]) -> None:
    while (arrived := await stream.read()) is not None:
        assert arrived, "a read returned no delta before the end"
        deltas.extend(arrived)


async def _ended_for_good(stream: ModelStream, error: GuidanceAgentError) -> None:
    """An answer that failed stays failed: nobody who asks again is told that it is complete."""
    try:
        again: Sequence[Delta] | None = await within(stream.read())
    except GuidanceAgentError as second:
        assert second is error
        return
    raise AssertionError(f"after {error!r} the next read returned {again!r}")


def _observed(stream: ModelStream, deltas: Sequence[Delta], error: GuidanceAgentError | None) -> Observed:
    return Observed(
        text="".join(delta.text for delta in deltas),
        reasoning="".join(delta.reasoning for delta in deltas),
        tools=assemble_tool_calls(delta.tool_call for delta in deltas if delta.tool_call is not None),
        finish=stream.finish_reason,
        usage=stream.usage,
        outcome=None if stream.call is None else stream.call.outcome,
        deltas=tuple(deltas),
        **({} if error is None else _of_error(error)),
    )


def _of_error(error: GuidanceAgentError) -> dict[str, Any]:
    found: dict[str, Any] = {"error": type(error), "failure": error}
    if isinstance(error, ModelError):
        found |= {"status": error.status, "code": error.code}
        found |= {"retryable": error.retryable, "retry_after": error.retry_after}
    if isinstance(error, ModelTimeoutError):
        found["phase"] = error.phase
    return found
