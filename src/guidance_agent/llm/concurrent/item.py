"""One request of a concurrent batch, from what the caller gave to its result. What goes wrong is a result, too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from guidance_agent.errors import (
    BatchRequestError,
    ModelError,
    ModelTimeoutError,
    StructuredOutputError,
    ToolLimitError,
)
from guidance_agent.llm import structured
from guidance_agent.llm.batch_request import BatchRequest, BatchResult, ItemOutcome, as_message, model_request
from guidance_agent.llm.concurrent.config import BatchConfig
from guidance_agent.llm.messages import Completion, Message, ModelCall, ModelRequest, ToolCall
from guidance_agent.llm.model_answer import NotedCalls
from guidance_agent.llm.structured import Answered
from guidance_agent.llm.tool_loop import complete_with_tools
from guidance_agent.llm.tool_runs import ToolRun
from guidance_agent.llm.tools import AnyTool

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["GivenRequest", "ItemRunner", "Tried"]

GivenRequest: TypeAlias = "BatchRequest | str | Sequence[Message | Mapping[str, Any]]"
"""A request, the user's words alone, or a conversation."""

_LONGEST_WAIT = 60.0
_NO_LIMIT: AbstractAsyncContextManager[None] = nullcontext()


class Tried(NamedTuple):
    """A result, and the error that made it a failure."""

    result: BatchResult
    error: Exception | None


@dataclass(slots=True)
class _Account:
    """What is known of an item while it runs: kept when it fails, too."""

    calls: list[list[ModelCall]] = field(default_factory=list)
    runs: tuple[ToolRun, ...] = ()
    completion: Completion | None = None
    parsed: Any = None
    repaired: tuple[str, ...] = ()


class ItemRunner:
    """Runs the requests of one batch. Knows what they share; of a single one it keeps nothing, but for `sequential`.

    Args:
        gateway: The way to models.
        model: For requests that name none.
        system_prompt: The same.
        tools: The same.
        max_tool_iterations: The same.
        config: How the batch runs.
    """

    def __init__(
        self,
        gateway: ModelGateway,
        *,
        model: str | None,
        system_prompt: str | None,
        tools: Sequence[AnyTool],
        max_tool_iterations: int | None,
        config: BatchConfig,
    ) -> None:
        self.tracing = gateway.tracing
        self._gateway = gateway
        self._model = model
        self._system_prompt = system_prompt
        self._tools = tuple(tools)
        self._iterations = max_tool_iterations
        self._config = config
        self._history = tuple(as_message(message, "history") for message in config.history)
        self._ids: set[int] = set()

    async def run(self, index: int, given: GivenRequest) -> Tried:
        """Return the result of a request; only a cancellation is raised."""
        began = time.monotonic()
        account = _Account()
        request: BatchRequest | None = None
        attempts = 0
        error: Exception | None = None
        custom_id = str(index)
        seconds = self._config.timeout
        try:
            request = self._completed(given, index)
            custom_id = request.custom_id or str(index)
            self._check_id(custom_id)
            prepared = model_request(
                request, custom_id, model=self._model, operation=self._config.operation, runs_tools=True
            )
            seconds = seconds if request.timeout is None else request.timeout
            async with _NO_LIMIT if seconds is None else asyncio.timeout(seconds):
                while True:
                    attempts += 1
                    try:
                        await self._answer(request, self._in_conversation(prepared), account)
                        break
                    except ModelError as fault:
                        if not fault.retryable or attempts > self._config.retry_failed:
                            raise
                        await asyncio.sleep(min(_LONGEST_WAIT, fault.retry_after or self._config.retry_wait))
            self._remember(prepared, account)
        except Exception as fault:  # what becomes of it is for the batch's error strategy
            error = fault
            if isinstance(fault, TimeoutError) and seconds is not None:
                error = ModelTimeoutError(
                    f"The request {custom_id!r} had no answer within {seconds:g} s. Give it longer, or ask for less.",
                    phase="turn",
                )
                error.__cause__ = fault
        metadata = {} if request is None else request.metadata
        elapsed = time.monotonic() - began
        return Tried(_result(custom_id, account, error, metadata, max(1, attempts), elapsed), error)

    def _completed(self, given: GivenRequest, index: int) -> BatchRequest:
        """Return the request with what the whole batch has where it says nothing itself."""
        if isinstance(given, str):
            given = BatchRequest(user_message=given)
        elif not isinstance(given, BatchRequest):
            given = BatchRequest(messages=_conversation(given, index))
        changes: dict[str, Any] = {}
        if given.system_prompt is None and self._system_prompt is not None:
            changes["system_prompt"] = self._system_prompt
        if not given.tools and self._tools:
            changes["tools"] = self._tools
        if given.max_tool_iterations is None and self._iterations is not None:
            changes["max_tool_iterations"] = self._iterations
        return replace(given, **changes) if changes else given

    def _check_id(self, custom_id: str) -> None:
        # Hashes, because ids of a hundred thousand requests are kept until the last.
        known = hash(custom_id)
        if known in self._ids:
            raise BatchRequestError(f"The id {custom_id!r} stands for another request of the batch. Give each its own.")
        self._ids.add(known)

    def _in_conversation(self, request: ModelRequest) -> ModelRequest:
        if not self._history:
            return request
        place = _end_of_system(request.messages)
        return replace(request, messages=(*request.messages[:place], *self._history, *request.messages[place:]))

    def _remember(self, request: ModelRequest, account: _Account) -> None:
        if self._config.history_mode == "sequential" and account.completion is not None:
            asked = request.messages[_end_of_system(request.messages) :]
            self._history = (*self._history, *asked, Message("assistant", account.completion.text))

    async def _answer(self, request: BatchRequest, asked: ModelRequest, account: _Account) -> None:
        door = NotedCalls(self._gateway)
        account.calls.append(door.calls)

        async def ask(asked: ModelRequest) -> Answered:
            if not (asked.tools and request.execute_tools):
                account.completion = await door.complete(asked)
                return Answered(account.completion, asked.messages)
            try:
                answer = await complete_with_tools(
                    door, asked, request.tools, max_iterations=request.max_tool_iterations, options=self._config.tools
                )
            except ToolLimitError as error:
                account.runs += error.runs
                raise
            account.completion = answer.completion
            account.runs += answer.runs
            return Answered(answer.completion, answer.messages)

        if request.response_schema is None:
            await ask(asked)
            return
        config = self._config
        try:
            typed = await structured.complete(
                door,
                asked,
                output=request.response_schema,
                attempts=config.schema_attempts,
                repair=config.repair,
                ask=ask,
            )
        except StructuredOutputError:
            if account.completion is not None and account.completion.tool_calls:
                # A call of a tool that the caller carries out: the answer of the schema comes after it.
                return
            raise
        account.parsed, account.repaired = typed.value, typed.repairs


def _conversation(given: Sequence[Any], index: int) -> tuple[Message | Mapping[str, Any], ...]:
    if isinstance(given, Sequence) and all(isinstance(each, Message | Mapping) for each in given):
        return tuple(given)
    raise BatchRequestError(
        f"The request at place {index} is {given!r:.200}. Give a text, a list of messages or a BatchRequest."
    )


def _end_of_system(messages: Sequence[Message]) -> int:
    return next((place for place, message in enumerate(messages) if message.role != "system"), len(messages))


def _result(
    custom_id: str,
    account: _Account,
    error: Exception | None,
    metadata: Mapping[str, str],
    attempts: int,
    elapsed: float,
) -> BatchResult:
    calls = [call for tried in account.calls for call in tried]
    completion = account.completion
    costs = [None if call.cost is None else call.cost.usd for call in calls]
    cost = None if None in costs else sum(each or 0.0 for each in costs)
    usage = None
    for call in calls:
        if call.usage is not None:
            usage = call.usage if usage is None else usage + call.usage
    return BatchResult(
        custom_id=custom_id,
        success=error is None,
        outcome=_outcome(error),
        response=None if completion is None else completion.text,
        parsed=account.parsed,
        tool_calls_made=_calls_of(account),
        tool_execution_history=account.runs,
        usage=usage,
        cost=cost,
        interactive_cost=cost,
        error=None if error is None else str(error) or type(error).__name__,
        error_type=None if error is None else type(error).__name__,
        attempts=attempts,
        elapsed=elapsed,
        metadata=metadata,
        route="online",
        simulated=bool(calls) and calls[-1].simulated,
        finish_reason=None if completion is None else completion.finish_reason,
        repaired=account.repaired,
    )


def _calls_of(account: _Account) -> tuple[ToolCall, ...]:
    run = tuple(ToolCall(each.id, each.name, each.arguments) for each in account.runs)
    return run if account.completion is None else (*run, *account.completion.tool_calls)


def _outcome(error: Exception | None) -> ItemOutcome:
    match error:
        case None:
            return "succeeded"
        case StructuredOutputError() | ToolLimitError():
            return "invalid"
        case ModelError(retryable=True):
            return "errored_retryable"
        case _:
            return "errored_fatal"
