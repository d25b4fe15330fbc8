"""Many requests now, at the interactive price: all results at once, as they come, or just the texts.

Apart from the batch APIs of providers (`core/batch_processing.py`): these answer within a day at half the price, and
survive the process; this answers within seconds, and ends with the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence, Sized
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from guidance_agent.core.loop_thread import LoopThread
from guidance_agent.errors import BatchFailedError, BatchRequestError
from guidance_agent.llm.batch_request import BatchRequest
from guidance_agent.llm.concurrent.config import BatchConfig, BatchErrorStrategy, ResultOrder
from guidance_agent.llm.concurrent.item import GivenRequest, ItemRunner
from guidance_agent.llm.concurrent.response import BatchResponse
from guidance_agent.llm.concurrent.stream import BatchStream, GivenRequests
from guidance_agent.llm.messages import ToolSpec
from guidance_agent.llm.opening import open_gateway
from guidance_agent.llm.tools import AnyTool, Tool, tool

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway

__all__ = ["batch_complete", "batch_complete_simple", "batch_complete_sync", "check_many", "stream_batch"]


async def batch_complete(
    requests: Sequence[GivenRequest],
    model: str | None = None,
    system_prompt: str | None = None,
    tools: Sequence[AnyTool] = (),
    max_tool_iterations: int | None = None,
    config: BatchConfig | None = None,
    *,
    gateway: ModelGateway | None = None,
) -> BatchResponse:
    """Return the results of all requests, in their order.

    Args:
        requests: Texts, conversations or `BatchRequest`s; what these say for themselves wins over the arguments here.
        model: For requests that name none; None is the default model, where no gateway is given.
        system_prompt: The same.
        tools: What the model may call.
        max_tool_iterations: How many answers of a request may call tools; None is 8.
        config: How the batch runs.
        gateway: The way to models; None opens one for this batch, which the simulator answers where no provider is set
            up.

    Raises:
        BatchRequestError: two requests have the same id, or it is one request instead of many; nothing was sent.
        ToolDefinitionError: a function cannot be a tool; nothing was sent.
        BatchFailedError: a request failed, and the strategy is to fail fast; what is done is on the error.
        ConfigurationError: there is no gateway, and none can be opened.
    """
    check_many(requests)
    given = list(requests)
    _check_ids(given)
    stream = _stream(
        given, model, system_prompt, tools, max_tool_iterations, config, gateway, "finished", len(given), keeps=True
    )
    async with stream:
        async for _ in stream:
            pass
    return stream.response()


def stream_batch(
    requests: GivenRequests,
    model: str | None = None,
    system_prompt: str | None = None,
    tools: Sequence[AnyTool] = (),
    max_tool_iterations: int | None = None,
    config: BatchConfig | None = None,
    *,
    order: ResultOrder = "finished",
    gateway: ModelGateway | None = None,
) -> BatchStream:
    """Return the results as they come: any number of requests, with a bounded number in memory at a time.

    `async with` it, or read it to its end. Arguments and errors are those of `batch_complete`, but:

    Args:
        requests: An iterable or async iterable, read no further than results are taken. It must not block.
        order: `finished`, or `input`: then a slow request holds back those after it, and at most four times
            `max_concurrent` results wait.
    """
    check_many(requests)
    total = len(requests) if isinstance(requests, Sized) else None
    return _stream(requests, model, system_prompt, tools, max_tool_iterations, config, gateway, order, total)


async def batch_complete_simple(
    messages: Sequence[str],
    model: str | None = None,
    system_prompt: str | None = None,
    config: BatchConfig | None = None,
    *,
    gateway: ModelGateway | None = None,
) -> list[str]:
    """Return one answer for each message, in their order: as many as there are messages, always.

    Raises:
        BatchFailedError: messages have no answer. All others were still asked, unless the strategy is to fail fast,
            and are on the error's `response`.
    """
    config = config or BatchConfig()
    if config.error_strategy is BatchErrorStrategy.SKIP:
        raise BatchRequestError(
            "The simple form has an answer for every message and cannot skip failures. Choose CONTINUE, or use "
            "batch_complete."
        )
    response = await batch_complete(messages, model, system_prompt, config=config, gateway=gateway)
    if response.failed:
        first = next(result for result in response.results if not result.success)
        raise BatchFailedError(
            f"{response.failed} of {response.total} messages have no answer, the first of them message "
            f"{first.custom_id}: {first.error} The answers that there are are on the error's `response`.",
            response=response,
        )
    return [result.response or "" for result in response.results]


def batch_complete_sync(
    requests: Sequence[GivenRequest],
    model: str | None = None,
    system_prompt: str | None = None,
    tools: Sequence[AnyTool] = (),
    max_tool_iterations: int | None = None,
    config: BatchConfig | None = None,
) -> BatchResponse:
    """Do what `batch_complete` does, for code without `await`; works where an event loop runs, too, such as a notebook.

    The batch runs on an event loop in a thread of its own, with a gateway of its own.
    """
    with LoopThread() as thread:
        return thread.call(batch_complete(requests, model, system_prompt, tools, max_tool_iterations, config))


def _stream(
    requests: GivenRequests,
    model: str | None,
    system_prompt: str | None,
    tools: Sequence[AnyTool],
    max_tool_iterations: int | None,
    config: BatchConfig | None,
    gateway: ModelGateway | None,
    order: ResultOrder,
    total: int | None,
    *,
    keeps: bool = False,
) -> BatchStream:
    config = config or BatchConfig()
    # Once for the whole batch: a function's schema takes a millisecond to make.
    made = [each if isinstance(each, Tool | ToolSpec) else tool(each) for each in tools]

    def runner(door: ModelGateway, default: str | None) -> ItemRunner:
        return ItemRunner(
            door,
            model=model or default,
            system_prompt=system_prompt,
            tools=made,
            max_tool_iterations=max_tool_iterations,
            config=config,
        )

    @asynccontextmanager
    async def opened() -> AsyncIterator[ItemRunner]:
        if gateway is not None:
            yield runner(gateway, None)
            return
        async with open_gateway() as own:
            yield runner(own.gateway, own.model)

    owner: AbstractAsyncContextManager[ItemRunner] = opened()
    return BatchStream(requests, owner, config=config, order=order, total=total, keeps=keeps)


def check_many(requests: object) -> None:
    """Refuse one request where many are expected: a text would be asked letter by letter."""
    if isinstance(requests, str | Mapping | BatchRequest) or not isinstance(requests, Iterable | AsyncIterable):
        raise BatchRequestError(
            f"{requests!r:.80} is not many requests. Give a list of requests, also of a single one."
        )


def _check_ids(requests: Iterable[GivenRequest]) -> None:
    seen: set[str] = set()
    for request in requests:
        if isinstance(request, BatchRequest) and request.custom_id is not None:
            if request.custom_id in seen:
                raise BatchRequestError(
                    f"Two requests have the id {request.custom_id!r}. Give each its own; nothing was sent."
                )
            seen.add(request.custom_id)
