"""Sums for an answer, worked out before it begins: a fast model chooses what to work out, the program works it out.

The model is asked once, with the calculators as tools. What it calls is carried out here, and the answer's prompt shows
the arguments and the results; nothing that a model multiplied itself is called a result. A model that fails, is slow or
calls nothing costs the answer no more than the deadline.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from guidance_agent.advisor.prompts import CalculationLine
from guidance_agent.errors import ModelError
from guidance_agent.llm.tool_runs import ToolOptions, run_calls
from guidance_agent.llm.tools import runnable

if TYPE_CHECKING:
    from guidance_agent.knowledge.loader import Knowledge
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.llm.messages import ModelCall, ModelRequest
    from guidance_agent.llm.tools import Tool
    from guidance_agent.tracing.tracer import Tracing

__all__ = ["CALCULATION_TOKENS", "CalculationStep", "Sums", "calculator_tools", "may_need_sums"]

CALCULATION_TOKENS = 400
"""Room for the calls of a few calculators."""

_MOST_CALLS = 6
_MAY_NEED = re.compile(
    r"\d|\bhow (?:much|many|long|old)\b|\bwhat age\b|\bwhen (?:can|could|do|will|would)\b", re.IGNORECASE
)
_OPTIONS = ToolOptions(timeout=5.0, longest_result=4_000, at_once=_MOST_CALLS)
_logger = logging.getLogger("guidance_agent.advisor")


class Sums(NamedTuple):
    """What was worked out, and the call of the model that chose it; None where it gave no answer."""

    lines: tuple[CalculationLine, ...] = ()
    call: ModelCall | None = None


def may_need_sums(question: str) -> bool:
    """Whether a question names a figure or asks for one; a model is asked about no other."""
    return _MAY_NEED.search(question) is not None


_made: dict[tuple[str, date], tuple[Tool, ...]] = {}


async def calculator_tools(knowledge: Knowledge, day: date) -> tuple[Tool, ...]:
    """Return the calculators of a day as tools; made once, in a thread, because their schemas take milliseconds."""
    key = (knowledge.version, day)
    if (tools := _made.get(key)) is None:
        tools = await asyncio.to_thread(_make_tools, knowledge, day)
        # Another day, or other figures: the ones before are asked for no more.
        _made.clear()
        _made[key] = tools
    return tools


def _make_tools(knowledge: Knowledge, day: date) -> tuple[Tool, ...]:
    from guidance_agent.calculators import PensionCalculators
    from guidance_agent.llm.tools import tool

    return tuple(tool(each) for each in PensionCalculators(knowledge, today=day).tools)


class CalculationStep:
    """The step before an answer in which sums are worked out.

    Args:
        request: Asks the fast model; its tools are those of `tools`.
        tools: What may be called.
        deadline: Seconds for the model.
    """

    def __init__(self, request: ModelRequest, tools: Sequence[Tool], deadline: float) -> None:
        self.request = request
        self._tools = runnable(tools)
        self._deadline = deadline

    async def run(self, gateway: ModelGateway, tracing: Tracing) -> Sums:
        """Ask the model, and work out what it calls; what fails is left out."""
        try:
            async with asyncio.timeout(self._deadline):
                completion = await gateway.complete(self.request)
        except (ModelError, TimeoutError) as error:
            turn = self.request.metadata.get("turn_id")
            _logger.warning("no sums were worked out: turn=%s error=%s", turn, type(error).__name__)
            return Sums()
        calls = completion.tool_calls[:_MOST_CALLS]
        done = await run_calls(self._tools, calls, _OPTIONS, number=1, tracing=tracing)
        lines = tuple(
            CalculationLine(name=run.name, arguments=run.arguments, result=run.result)
            for run in done
            if run.error is None and not run.cut
        )
        return Sums(lines, completion.call)
