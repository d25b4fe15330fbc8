"""The text of an answer as it is written, opened when it is first read; calls of tools happen in between."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from guidance_agent.llm.messages import Delta, ModelCall, ModelRequest
from guidance_agent.llm.tool_loop import stream_with_tools
from guidance_agent.llm.tool_runs import ToolRun
from guidance_agent.llm.tools import AnyTool

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["TextStream"]


class TextStream:
    """Yields text; `async with` it, or read it to its end.

    Attributes:
        runs: The calls of tools that were carried out so far.
        call: The record of the call, once it is over; None before, and where there are tools.
    """

    def __init__(
        self,
        opened: Callable[[], Awaitable[tuple[ModelGateway, ModelRequest]]],
        tools: Sequence[AnyTool],
        max_tool_iterations: int | None,
    ) -> None:
        self.runs: list[ToolRun] = []
        self.call: ModelCall | None = None
        self._opened = opened
        self._tools = tools
        self._limit = max_tool_iterations
        self._texts = self._run()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """Return the next piece of text.

        Raises:
            ModelError: the call failed; before the first text only after retries and fallbacks.
        """
        return await anext(self._texts)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the provider's answer. May be called at any time and more than once."""
        await self._texts.aclose()

    async def _run(self) -> AsyncGenerator[str, None]:
        gateway, request = await self._opened()
        if self._tools:
            parts = stream_with_tools(gateway, request, self._tools, max_iterations=self._limit)
            try:
                async for part in parts:
                    if isinstance(part, ToolRun):
                        self.runs.append(part)
                    elif part.text:
                        yield part.text
            finally:
                await parts.aclose()
            return
        stream = gateway.stream(request)
        try:
            async with stream:
                delta: Delta
                async for delta in stream:
                    if delta.text:
                        yield delta.text
        finally:
            self.call = stream.call
