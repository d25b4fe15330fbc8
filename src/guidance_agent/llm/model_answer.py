"""A whole answer with everything that it took, and the note of calls that it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guidance_agent.llm.messages import Completion, ModelCall, ModelRequest, Usage
from guidance_agent.llm.tool_runs import ToolRun
from guidance_agent.llm.transports.base import PreparedCall

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["ModelAnswer", "NotedCalls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """A whole answer.

    Attributes:
        text: Its text.
        value: What it says, where a type was asked for.
        runs: The calls of tools that were carried out for it.
        calls: The record of each call of the model that it took, the last one's too.
        completion: The last answer.
        attempts: How often an answer of the type was asked for.
        repairs: What was repaired in it.
    """

    text: str
    value: Any = None
    runs: tuple[ToolRun, ...] = ()
    calls: tuple[ModelCall, ...]
    completion: Completion
    attempts: int = 1
    repairs: tuple[str, ...] = ()

    @property
    def usage(self) -> Usage:
        return sum((call.usage for call in self.calls if call.usage is not None), Usage())

    @property
    def cost(self) -> float | None:
        """US dollars of all calls; None where one of them has no price."""
        costs = [None if call.cost is None else call.cost.usd for call in self.calls]
        return None if None in costs else sum(each or 0.0 for each in costs)

    def __str__(self) -> str:
        return self.text


class NotedCalls:
    """The gateway, with a note of every call that was answered."""

    def __init__(self, gateway: ModelGateway) -> None:
        self.calls: list[ModelCall] = []
        self.tracing = gateway.tracing
        self._gateway = gateway

    async def complete(self, request: ModelRequest) -> Completion:
        completion = await self._gateway.complete(request)
        self.calls.append(completion.call)
        return completion

    async def routed(self, request: ModelRequest) -> tuple[PreparedCall, str]:
        return await self._gateway.routed(request)
