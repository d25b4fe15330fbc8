"""One model under one name, for those who want answers and nothing to set up.

    async with get_model("openai/gpt-6-luna") as model:
        answer = await model.complete("What is drawdown?")
        async for text in model.stream("And tax?"): ...
        response = await model.batch(["One?", "Two?"])

Behind it is the same door as everywhere: retries, limits, fallbacks, caching and prices come from the settings. It is
opened at the first call and closed with the block; where no provider is set up, the simulator answers and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from guidance_agent.core.loop_thread import LoopThread, iterate_in_thread
from guidance_agent.errors import ConfigurationError
from guidance_agent.llm import structured
from guidance_agent.llm.batch_request import BatchRequest, model_request
from guidance_agent.llm.concurrent import (
    BatchConfig,
    BatchErrorStrategy,
    BatchProgress,
    BatchResponse,
    BatchStream,
    HistoryMode,
    ResultOrder,
    batch_complete,
    stream_batch,
)
from guidance_agent.llm.concurrent.calls import check_many
from guidance_agent.llm.concurrent.item import GivenRequest
from guidance_agent.llm.concurrent.stream import GivenRequests
from guidance_agent.llm.lazy_gateway import LazyGateway
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.llm.model_answer import ModelAnswer, NotedCalls
from guidance_agent.llm.opening import OpenedGateway
from guidance_agent.llm.structured import Answered, Schema
from guidance_agent.llm.structured_stream import TypedStream
from guidance_agent.llm.text_stream import TextStream
from guidance_agent.llm.tool_loop import complete_with_tools
from guidance_agent.llm.tool_runs import ToolRun
from guidance_agent.llm.tools import AnyTool

if TYPE_CHECKING:
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.settings import Settings

__all__ = ["Model", "ModelAnswer", "Prompt", "get_model"]

Prompt: TypeAlias = "str | Sequence[Message | Mapping[str, Any]]"
"""The user's words, or a conversation whose last message is the user's."""

T = TypeVar("T")


def get_model(
    name: str | None = None, *, settings: Settings | None = None, gateway: ModelGateway | None = None
) -> Model:
    """Return a model; nothing is opened or sent before it is asked.

    Args:
        name: Name with its provider, such as `anthropic/claude-sonnet-5-5`; None is the default model of the settings.
        settings: None loads them from file and environment.
        gateway: An open gateway to go through; it stays open.
    """
    return Model(name, settings=settings, gateway=gateway)


class Model:
    """A model; see `get_model`. An async context manager; without a block, end with `aclose`."""

    def __init__(
        self, name: str | None = None, *, settings: Settings | None = None, gateway: ModelGateway | None = None
    ) -> None:
        if gateway is not None and name is None:
            raise ConfigurationError("A gateway has no default model. Name the model: get_model('provider/model', …).")
        self.name = name
        self._settings = settings
        self._given = gateway
        self._door: LazyGateway | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what was opened for this model; the next call opens it anew."""
        door, self._door = self._door, None
        if door is not None:
            await door.aclose()

    async def complete(
        self,
        prompt: Prompt,
        *,
        output: Schema | None = None,
        tools: Sequence[AnyTool] = (),
        max_tool_iterations: int | None = None,
        system_prompt: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        operation: str = "completion",
        attempts: int = 3,
        repair: bool = True,
    ) -> ModelAnswer:
        """Return the whole answer.

        Args:
            prompt: The user's words, or a conversation.
            output: A pydantic model, or a JSON Schema, that the answer must satisfy.
            tools: What the model may call.
            max_tool_iterations: How many answers may call tools; None is 8.
            system_prompt: Text before all messages.
            temperature: None leaves the provider's default.
            max_tokens: Upper bound for the answer; None is 1,024.
            operation: What the call is for, as records and settings name it.
            attempts: How often an answer of the type `output` is asked for until it can be read.
            repair: Whether such an answer is repaired where that is safe.

        Raises:
            ModelError: the call failed, after retries and fallbacks; `StructuredOutputError` where no answer can be
                read, `ToolLimitError` where calls of tools do not end.
            InputError: the prompt or a tool is none.
            ConfigurationError: the model cannot be called as things are set up.
        """
        door = await self._open()
        request = self._request(door, prompt, system_prompt, temperature, max_tokens, operation)
        noting = NotedCalls(door.gateway)
        runs: list[ToolRun] = []

        async def ask(asked: ModelRequest) -> Answered:
            if not tools:
                return Answered(await noting.complete(asked), asked.messages)
            answer = await complete_with_tools(noting, asked, tools, max_iterations=max_tool_iterations)
            runs.extend(answer.runs)
            return Answered(answer.completion, answer.messages)

        if output is None:
            completion, _ = await ask(request)
            value, tried, repairs = None, 1, tuple[str, ...]()
        else:
            typed = await structured.complete(
                noting, request, output=output, attempts=attempts, repair=repair, ask=ask if tools else None
            )
            completion, value, tried, repairs = typed.completion, typed.value, typed.attempts, typed.repairs
        return ModelAnswer(
            text=completion.text,
            value=value,
            runs=tuple(runs),
            calls=tuple(noting.calls),
            completion=completion,
            attempts=tried,
            repairs=repairs,
        )

    def stream(
        self,
        prompt: Prompt,
        *,
        tools: Sequence[AnyTool] = (),
        max_tool_iterations: int | None = None,
        system_prompt: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        operation: str = "completion",
    ) -> TextStream:
        """Return the text of the answer as it is written; leaving it early closes the provider's socket.

        Arguments and errors are those of `complete`.
        """

        async def opened() -> tuple[ModelGateway, ModelRequest]:
            door = await self._open()
            return door.gateway, self._request(door, prompt, system_prompt, temperature, max_tokens, operation)

        return TextStream(opened, tools, max_tool_iterations)

    async def stream_typed(
        self,
        prompt: Prompt,
        output: Schema,
        *,
        system_prompt: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        operation: str = "completion",
        attempts: int = 3,
        repair: bool = True,
    ) -> TypedStream[Any]:
        """Return snapshots of a typed answer as it is written; its `result` is the whole.

        Arguments and errors are those of `complete`.
        """
        door = await self._open()
        request = self._request(door, prompt, system_prompt, temperature, max_tokens, operation)
        return TypedStream(door.gateway, request, output=output, attempts=attempts, repair=repair)

    async def batch(
        self,
        requests: Sequence[GivenRequest],
        *,
        system_prompt: str | None = None,
        tools: Sequence[AnyTool] = (),
        max_tool_iterations: int | None = None,
        schema: Schema | None = None,
        max_concurrent: int = 10,
        error_strategy: BatchErrorStrategy = BatchErrorStrategy.CONTINUE,
        history_mode: HistoryMode = "independent",
        on_progress: Callable[[BatchProgress], object] | None = None,
        show_progress: bool = False,
        config: BatchConfig | None = None,
    ) -> BatchResponse:
        """Return the results of many requests, in their order; see `batch_complete`.

        Args:
            requests: Texts, conversations or `BatchRequest`s.
            system_prompt: For requests that have none.
            tools: The same.
            max_tool_iterations: The same.
            schema: The same, for texts and conversations.
            max_concurrent: How many requests run at once.
            error_strategy: What a failed request means for the others.
            history_mode: Which conversation each request stands in.
            on_progress: Called with the progress after each result.
            show_progress: Whether a bar is drawn where standard error is a terminal.
            config: Everything at once, instead of the four before it.
        """
        door = await self._open()
        config = config or BatchConfig(
            max_concurrent=max_concurrent,
            error_strategy=error_strategy,
            history_mode=history_mode,
            on_progress=on_progress,
            show_progress=show_progress,
        )
        check_many(requests)
        asked = requests if schema is None else [_with_schema(request, schema) for request in requests]
        return await batch_complete(
            asked, door.model, system_prompt, tools, max_tool_iterations, config, gateway=door.gateway
        )

    async def batch_stream(
        self,
        requests: GivenRequests,
        *,
        system_prompt: str | None = None,
        tools: Sequence[AnyTool] = (),
        max_tool_iterations: int | None = None,
        order: ResultOrder = "finished",
        config: BatchConfig | None = None,
    ) -> BatchStream:
        """Return the results of any number of requests as they come; see `stream_batch`."""
        door = await self._open()
        return stream_batch(
            requests,
            door.model,
            system_prompt,
            tools,
            max_tool_iterations,
            config,
            order=order,
            gateway=door.gateway,
        )

    def complete_sync(self, prompt: Prompt, **options: Any) -> ModelAnswer:
        """Do what `complete` does, for code without `await`, also where an event loop runs."""
        return self._in_thread(lambda own: own.complete(prompt, **options))

    def batch_sync(self, requests: Sequence[GivenRequest], **options: Any) -> BatchResponse:
        """Do what `batch` does, for code without `await`, also where an event loop runs."""
        return self._in_thread(lambda own: own.batch(requests, **options))

    def stream_sync(self, prompt: Prompt, **options: Any) -> Iterator[str]:
        """Do what `stream` does, for code without `await`, also where an event loop runs."""
        own = self._for_another_loop()
        return iterate_in_thread(own, lambda: own.stream(prompt, **options))

    def _in_thread(self, work: Callable[[Model], Coroutine[Any, Any, T]]) -> T:
        own = self._for_another_loop()
        with LoopThread() as thread:
            try:
                return thread.call(work(own))
            finally:
                thread.call(own.aclose())

    def _for_another_loop(self) -> Model:
        """Return the same model with connections of its own, because connections belong to their loop."""
        if self._given is not None:
            raise ConfigurationError(
                "A model with a gateway of yours cannot be used without await: the gateway belongs to your event loop. "
                "Leave the gateway out."
            )
        return Model(self.name, settings=self._settings)

    async def _open(self) -> OpenedGateway:
        if self._given is not None and self.name is not None:
            return OpenedGateway(self._given, self.name)
        loop = asyncio.get_running_loop()
        if self._door is not None and self._door.loop is not loop:
            if not self._door.loop.is_closed():
                raise RuntimeError("This model belongs to another event loop. Get another one here, or close that one.")
            self._door = None
        if self._door is None:
            self._door = LazyGateway(loop, self.name, self._settings)
        return await self._door.opened()

    def _request(
        self,
        door: OpenedGateway,
        prompt: Prompt,
        system_prompt: str | None,
        temperature: float | None,
        max_tokens: int | None,
        operation: str,
    ) -> ModelRequest:
        asked = BatchRequest(
            **({"user_message": prompt} if isinstance(prompt, str) else {"messages": prompt}),
            system_prompt=system_prompt,
            temperature=temperature,
            max_tokens=max_tokens,
        )
        return model_request(asked, "prompt", model=door.model, operation=operation)


def _with_schema(given: GivenRequest, schema: Schema) -> GivenRequest:
    if isinstance(given, BatchRequest):
        return given
    if isinstance(given, str):
        return BatchRequest(user_message=given, response_schema=schema)
    return BatchRequest(messages=given, response_schema=schema)
