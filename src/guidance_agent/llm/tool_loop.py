"""Ask a model that may call tools, until it answers without.

Each answer that calls tools is followed by their results, all calls of one answer at once; the history of calls comes
with the last answer. A call of a tool that is only described ends the loop: whoever described it runs it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from guidance_agent.errors import ToolLimitError
from guidance_agent.llm.messages import Completion, Delta, Message, ModelCall, ModelRequest, ToolCall
from guidance_agent.llm.tool_runs import ToolOptions, ToolRun, run_calls
from guidance_agent.llm.tools import AnyTool, Tool, runnable, specs_of
from guidance_agent.llm.transports.tool_pieces import ToolCallAssembler
from guidance_agent.tracing.tracer import Tracing

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["DEFAULT_ITERATIONS", "Answering", "ToolAnswer", "complete_with_tools", "stream_with_tools"]

DEFAULT_ITERATIONS = 8
_NO_OPTIONS = ToolOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolAnswer:
    """The answer after all calls of tools.

    Attributes:
        completion: The last answer.
        messages: What it was given: the request's messages, each answer that called tools, and the results.
        runs: The calls that were carried out, in order.
        calls: The record of each answer, the last one's too.
    """

    completion: Completion
    messages: tuple[Message, ...]
    runs: tuple[ToolRun, ...] = ()
    calls: tuple[ModelCall, ...] = ()


class Answering(Protocol):
    """What answers whole requests: the gateway, or what stands before it."""

    tracing: Tracing

    async def complete(self, request: ModelRequest) -> Completion:
        """Return the whole answer."""


async def complete_with_tools(
    gateway: Answering,
    request: ModelRequest,
    tools: Sequence[AnyTool],
    *,
    max_iterations: int | None = None,
    options: ToolOptions = _NO_OPTIONS,
) -> ToolAnswer:
    """Return the answer of a model that was given the tools.

    Args:
        gateway: The way to the model.
        request: The request; its `tools` are replaced.
        tools: Functions with types, `Tool`s, or descriptions of tools that are run elsewhere.
        max_iterations: How many answers may call tools; None is 8.
        options: Time and size of calls.

    Raises:
        ToolDefinitionError: a function cannot be a tool.
        ToolLimitError: the model calls tools once more than it may.
        ModelError: a call of the model failed, after retries and fallbacks.
    """
    loop = _Loop(request, tools, max_iterations, options, gateway.tracing)
    calls: list[ModelCall] = []
    while True:
        completion = await gateway.complete(loop.request)
        calls.append(completion.call)
        wanted = loop.wanted(completion.tool_calls)
        if not wanted:
            return ToolAnswer(
                completion=completion, messages=loop.request.messages, runs=tuple(loop.runs), calls=tuple(calls)
            )
        await loop.run(completion.text, wanted)


async def stream_with_tools(
    gateway: ModelGateway,
    request: ModelRequest,
    tools: Sequence[AnyTool],
    *,
    max_iterations: int | None = None,
    options: ToolOptions = _NO_OPTIONS,
) -> AsyncGenerator[Delta | ToolRun, None]:
    """Yield the deltas of all answers, and each call of a tool once it was carried out.

    Arguments and errors as of `complete_with_tools`. Text before a call of a tool is yielded too: a model may say what
    it looks up. Leave it with `aclose`, such as by `contextlib.aclosing`, to close the provider's socket at once.
    """
    loop = _Loop(request, tools, max_iterations, options, gateway.tracing)
    while True:
        pieces, texts = ToolCallAssembler(), list[str]()
        async with gateway.stream(loop.request) as stream:
            async for delta in stream:
                if delta.tool_call is not None:
                    pieces.add(delta.tool_call)
                texts.append(delta.text)
                yield delta
        wanted = loop.wanted(pieces.calls())
        if not wanted:
            return
        for run in await loop.run("".join(texts), wanted):
            yield run


class _Loop:
    """The rounds: what is asked next, and what was run."""

    def __init__(
        self,
        request: ModelRequest,
        tools: Sequence[AnyTool],
        limit: int | None,
        options: ToolOptions,
        tracing: Tracing,
    ) -> None:
        self.request = replace(request, tools=specs_of(tools))
        self.runs: list[ToolRun] = []
        self._tools: dict[str, Tool] = runnable(tools)
        self._described = {spec.name for spec in self.request.tools} - self._tools.keys()
        self._limit = DEFAULT_ITERATIONS if limit is None else limit
        self._options = options
        self._tracing = tracing
        self._round = 0

    def wanted(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        """Return the calls that are to be carried out here."""
        if not calls or any(call.name in self._described for call in calls):
            return ()
        if self._round >= self._limit:
            raise ToolLimitError(
                f"{self.request.model!r} still calls {calls[0].name!r} after {self._limit} rounds of tools. Raise "
                "max_tool_iterations, or make the tool's result say what is missing.",
                model=self.request.model,
                runs=tuple(self.runs),
            )
        # Some servers give calls no ids; the results need them.
        return tuple(
            call if call.id else replace(call, id=f"call_{self._round + 1}_{number}")
            for number, call in enumerate(calls, start=1)
        )

    async def run(self, text: str, calls: tuple[ToolCall, ...]) -> list[ToolRun]:
        """Carry out the calls, and put them and their results into the next request."""
        self._round += 1
        done = await run_calls(self._tools, calls, self._options, number=self._round, tracing=self._tracing)
        self.runs += done
        said = Message("assistant", text, tool_calls=calls)
        told = [Message("tool", run.result, tool_call_id=run.id) for run in done]
        self.request = replace(self.request, messages=(*self.request.messages, said, *told))
        return done
