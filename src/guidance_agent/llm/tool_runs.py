"""One call of a tool: checked, run, and turned into text that goes back to the model.

Whatever goes wrong in a tool (unknown name, wrong arguments, an exception, too slow) is a result too: the model is told
in a sentence and may do better. A result that is too long is cut, and says so.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic_core
from pydantic import ValidationError

from guidance_agent.llm.messages import ToolCall
from guidance_agent.llm.tools import Tool
from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.tracer import NO_TRACING, Tracing

__all__ = ["ToolOptions", "ToolRun", "run_call", "run_calls"]

_LONGEST_FAULT = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOptions:
    """How calls of tools are carried out.

    Attributes:
        timeout: Seconds for one call, where the tool names none. A function that is not async cannot be stopped: its
            thread goes on, and what it returns later is thrown away.
        longest_result: Characters of a result; more are cut.
        at_once: How many calls of one answer run at the same time.
    """

    timeout: float = 60.0
    longest_result: int = 65_536
    at_once: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRun:
    """A call that was carried out.

    Attributes:
        round: In which answer of the model it was asked for, from 1.
        arguments: JSON, as the model wrote it.
        result: What the model was told.
        error: The class of what went wrong; None where nothing did.
        elapsed: Seconds.
        cut: Whether the result was too long.
    """

    round: int
    id: str
    name: str
    arguments: str
    result: str
    error: str | None = None
    elapsed: float = 0.0
    cut: bool = False


async def run_calls(
    tools: Mapping[str, Tool],
    calls: tuple[ToolCall, ...],
    options: ToolOptions,
    *,
    number: int,
    tracing: Tracing = NO_TRACING,
) -> list[ToolRun]:
    """Carry out the calls of one answer, at most so many at once, and return them in their order.

    Args:
        tools: What may be called, by name.
        calls: What is called.
        options: Time and size of calls.
        number: Of the answer, from 1.
        tracing: Makes the span of each call.
    """
    room = asyncio.Semaphore(options.at_once)

    async def run(call: ToolCall) -> ToolRun:
        async with room:
            with tracing.work("tool", "TOOL") as span:
                done = await run_call(tools, call, options, number=number)
                span.set(
                    {
                        names.TOOL_NAME: done.name,
                        names.INPUT_VALUE: done.arguments,
                        names.INPUT_MIME_TYPE: names.JSON,
                        names.OUTPUT_VALUE: done.result,
                        names.OUTPUT_MIME_TYPE: names.TEXT,
                    }
                )
                return done

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(call)) for call in calls]
    return [task.result() for task in tasks]


async def run_call(tools: Mapping[str, Tool], call: ToolCall, options: ToolOptions, *, number: int) -> ToolRun:
    """Carry out one call; never raises what the tool raises."""
    began = time.monotonic()
    error: str | None = None
    try:
        text = _text(await _returned(tools, call, options))
    except Exception as fault:  # whatever a tool raises is for the model to see
        error, text = type(fault).__name__, _fault(tools, call, fault, options)
    cut = len(text) > options.longest_result
    if cut:
        text = f"{text[: options.longest_result]}\n[cut: {options.longest_result} of {len(text)} characters]"
    return ToolRun(
        round=number,
        id=call.id,
        name=call.name,
        arguments=call.arguments,
        result=text,
        error=error,
        elapsed=time.monotonic() - began,
        cut=cut,
    )


class _UnknownTool(LookupError):
    pass


class _ToolLeft(Exception):
    """Stands for what ends a program and not only a tool, such as `SystemExit`."""


async def _returned(tools: Mapping[str, Tool], call: ToolCall, options: ToolOptions) -> Any:
    tool = tools.get(call.name)
    if tool is None:
        raise _UnknownTool(call.name)
    arguments = tool.arguments(call.arguments)
    async with asyncio.timeout(tool.timeout or options.timeout):
        if inspect.iscoroutinefunction(tool.function):
            return await _awaited(tool.function(**arguments))
        value = await _in_thread(tool.function, arguments)
        return await _awaited(value) if inspect.isawaitable(value) else value


async def _awaited(work: Awaitable[Any]) -> Any:
    """Wait for an async tool; where it cancels itself, or would end the program, that is a failure of the tool."""
    try:
        return await work
    except SystemExit as error:
        raise _ToolLeft(type(error).__name__) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise _ToolLeft(type(error).__name__) from error


async def _in_thread(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Run a function in a thread of its own, which ends with the process: one that hangs keeps nothing else waiting."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((value, error))

    def run() -> None:
        value, error = None, None
        try:
            value = context.run(function, **arguments)
        except BaseException as raised:  # handed over to the loop, whatever it is
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name="guidance-agent-tool", daemon=True).start()
    value, error = await done
    if isinstance(error, Exception):
        raise error
    if error is not None:
        raise _ToolLeft(type(error).__name__) from error
    return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    # Decimals become texts, exactly.
    return pydantic_core.to_json(value).decode()


def _fault(tools: Mapping[str, Tool], call: ToolCall, fault: Exception, options: ToolOptions) -> str:
    match fault:
        case _UnknownTool():
            return f"There is no tool {call.name!r}. There are: {', '.join(sorted(tools)) or 'none'}."
        case json.JSONDecodeError():
            return f"The arguments are no JSON object (character {fault.pos}). Call the tool again with one."
        case ValidationError():
            faults = [
                f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}"
                for each in fault.errors(include_url=False, include_input=False, include_context=False)
            ]
            return f"The arguments are not what the tool takes: {'; '.join(faults)[:_LONGEST_FAULT]}."
        case TimeoutError():
            limit = tools[call.name].timeout or options.timeout
            return f"The tool did not answer within {limit:g} s."
        case pydantic_core.PydanticSerializationError():
            return "The tool returned something that cannot be written as JSON."
        case _:
            name = str(fault) if isinstance(fault, _ToolLeft) else type(fault).__name__
            words = "" if isinstance(fault, _ToolLeft) else f": {fault}"
            return f"The tool failed ({name}{words})"[:_LONGEST_FAULT]
