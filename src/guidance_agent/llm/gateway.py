"""The only way to a model: one door for streams, whole answers and embeddings.

The gateway resolves the model's name, asks the provider's profile for traits and a cache plan, chooses the transport,
retries and falls back before the first token, keeps reasoning apart from text, and leaves one record per call in the
log and in every sink. What is sent and read is the transports' business.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from guidance_agent.core.clock import Clock, SystemClock
from guidance_agent.llm.attempts import try_call
from guidance_agent.llm.caching import CacheHistory
from guidance_agent.llm.call_metrics import CallMetrics
from guidance_agent.llm.call_record import CallRecorder, Prices, UsageSink
from guidance_agent.llm.endpoints import Resolved, qualified_name, resolve, resolve_async
from guidance_agent.llm.limits import LimitStore
from guidance_agent.llm.messages import Completion, Cost, Delta, ModelCall, ModelRequest, Usage
from guidance_agent.llm.model_stream import ModelStream, StreamCore
from guidance_agent.llm.pricing import PriceTable
from guidance_agent.llm.providers.base import CachePlan, ModelTraits
from guidance_agent.llm.rate_limiter import RateLimiter
from guidance_agent.llm.reasoning_filter import separated
from guidance_agent.llm.tokens import estimate_tokens
from guidance_agent.llm.transports.base import PreparedCall, RawCompletion, RawEmbeddings, Transport
from guidance_agent.llm.transports.registry import check_transport, make_transport, transport_name
from guidance_agent.settings import RetrySettings, Settings
from guidance_agent.tracing.tracer import NO_TRACING, Tracing

if TYPE_CHECKING:
    from guidance_agent.llm.response_cache import CacheableCall, ResponseCache

__all__ = ["Embeddings", "ModelGateway", "ModelStream", "UsageSink"]

Raw = TypeVar("Raw", RawCompletion, RawEmbeddings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors in the order of the texts, with what they cost."""

    vectors: Sequence[Sequence[float]]
    call: ModelCall


class ModelGateway:
    """Every model behind one door. Transports are opened on first use and closed with the gateway.

    Args:
        settings: Transport choice, time-outs, retries, keys and addresses.
        environ: Where provider keys and addresses are read, once for each model; None is the process environment.
        clock: Wall clock, monotonic clock and ids; None is the real one.
        sinks: Take the record of every call.
        prices: What calls cost; None is the bundled price map with the user's price file before it.
        transports: Replace the transports of these names; a name is a wire format or `litellm`.
        rng: Where the jitter of retries comes from.
        responses: The local cache of whole answers; None keeps none.
        tracing: Makes the span of every call.
        limits: Keeps what is left of rate limits; None keeps it in this process.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        sinks: Sequence[UsageSink] = (),
        prices: Prices | None = None,
        transports: Mapping[str, Transport] | None = None,
        rng: random.Random | None = None,
        responses: ResponseCache | None = None,
        tracing: Tracing = NO_TRACING,
        limits: LimitStore | None = None,
    ) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._environ = os.environ if environ is None else environ
        self._sinks = (*sinks, CallMetrics())
        self._prices: Prices = prices if prices is not None else PriceTable.load(settings.prices_file)
        self._responses = responses
        self.tracing = tracing
        self.prices_read = False
        self._closed = False
        self._history = CacheHistory(clock=self.clock.monotonic)
        self._resolved: dict[str, Resolved] = {}
        self._transports: dict[str, Transport] = dict(transports or {})
        self._open: set[StreamCore] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self.limiter = RateLimiter(settings, clock=self.clock, own=self.own, store=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the streams that are still open, then the connections."""
        self._closed = True
        await self.release()

    @property
    def is_in_use(self) -> bool:
        """Whether calls run or connections are kept, on whichever event loop."""
        return bool(self._transports or self._open or self._tasks)

    async def release(self) -> None:
        """Close open streams and connections; a later call opens new ones, on whichever event loop it runs."""
        await self.limiter.aclose()
        for core in tuple(self._open):
            await core.aclose("closed_early")
        while self._tasks:
            await asyncio.wait(self._tasks)
        transports, self._transports = self._transports, {}
        for transport in transports.values():
            await transport.aclose()

    def stream(self, request: ModelRequest) -> ModelStream:
        """Return the stream of an answer; nothing is sent before it is read."""
        recorder = self._recorder(request)
        recorder.trace.streams()
        return ModelStream(StreamCore(self, request, recorder, self._cacheable(request)))

    async def complete(self, request: ModelRequest) -> Completion:
        """Return the whole answer.

        Raises:
            ModelError: the call failed, after retries and fallbacks.
            ConfigurationError: the model cannot be called as things are set up.
        """

        recorder = self._recorder(request)
        cacheable = self._cacheable(request)

        async def once(call: PreparedCall, transport: Transport) -> RawCompletion:
            raw = await transport.complete(call)
            if cacheable is not None:
                cacheable.keep_whole(call, raw)
            return raw

        async def answer() -> RawCompletion:
            found = None if cacheable is None else await cacheable.find()
            if found is None:
                return await try_call(self, request, recorder, once)
            recorder.replayed(found.call)
            return found.whole

        raw = await self._recorded(recorder, answer)
        text, reasoning = _separated(raw)
        recorder.saw((Delta(text=text, reasoning=reasoning, finish_reason=raw.finish_reason),))
        recorder.trace.released(text, reasoning)
        recorder.trace.called_tools(raw.tool_calls)
        call = recorder.finish("completed")
        return Completion(
            text=text,
            reasoning=reasoning,
            finish_reason=raw.finish_reason,
            tool_calls=raw.tool_calls,
            call=call,
        )

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        dimensions: int | None = None,
        operation: str = "embedding",
        metadata: Mapping[str, str] | None = None,
    ) -> Embeddings:
        """Return one vector for each text.

        Args:
            model: Embedding model such as `openai/text-embedding-3-small`.
            texts: What to embed, as many as the provider takes in one call.
            dimensions: Length of the vectors; None is the model's own.
            operation: What the call is for; kept with its usage.
            metadata: Ids that the call's record keeps.

        Raises:
            ModelError: the call failed after its retries.
            ConfigurationError: the model cannot be called as things are set up, or cannot embed.
        """

        async def once(call: PreparedCall, transport: Transport) -> RawEmbeddings:
            return await transport.embed(call, texts, dimensions)

        recorder = self._recorder(ModelRequest(model=model, messages=(), operation=operation, metadata=metadata or {}))
        recorder.trace.texts(texts)
        raw = await self._recorded(recorder, lambda: try_call(self, recorder.request, recorder, once))
        if raw.usage is None:
            recorder.usage = Usage(input_tokens=sum(map(estimate_tokens, texts)), estimated=True)
        return Embeddings(vectors=raw.vectors, call=recorder.finish("completed"))

    def prepare(self, request: ModelRequest) -> PreparedCall:
        """Return `request` with everything that is decided before it is sent. Nothing is sent.

        Raises:
            ConfigurationError: the model cannot be called as things are set up.
        """
        return self._prepared(request, self._resolve(request.model))

    def cost(self, model: str, usage: Usage, *, batch: bool = False) -> Cost | None:
        """Return what `usage` costs, or None where the model has no price; `await prices_ready()` first.

        Args:
            model: Name with its provider.
            usage: The tokens.
            batch: Whether they went through the provider's batch API.
        """
        return self._prices.cost(model, usage, batch=batch)

    def traits(self, model: str) -> ModelTraits:
        """Return what `model` can do, once it is known that it can be called.

        Raises:
            ConfigurationError: the model cannot be called as things are set up.
        """
        endpoint, profile = self._resolve(model)
        check_transport(model, endpoint, self.settings)
        return profile.traits(qualified_name(model).partition("/")[2])

    async def address(self, model: str) -> str:
        """Return provider and address that answer for `model`, in one line.

        Raises:
            ConfigurationError: the model cannot be called as things are set up.
        """
        call, _ = await self.routed(ModelRequest(model=model, messages=()))
        return f"{call.endpoint.provider} {call.endpoint.base_url or ''}".rstrip()

    def _resolve(self, model: str) -> Resolved:
        return self._resolved.get(model) or resolve(model, self.settings, self._environ)

    # What streams and attempts need.

    async def ready(self, request: ModelRequest) -> tuple[PreparedCall, Transport]:
        """Return the prepared call and the way to its provider, opened off the event loop on first use."""
        call, transport = await self.routed(request)
        return call, await self._transport(transport)

    async def routed(self, request: ModelRequest) -> tuple[PreparedCall, str]:
        """Return the prepared call and the name of its transport, which is not opened."""
        if self._closed:
            raise RuntimeError("The gateway is closed. Make calls inside its `async with` block.")
        resolved = self._resolved.get(request.model)
        if resolved is None:
            resolved = await resolve_async(request.model, self.settings, self._environ)
            self._resolved[request.model] = resolved
        call = self._prepared(request, resolved)
        return call, transport_name(call, self.settings)

    def retry_settings(self, provider: str, operation: str) -> RetrySettings:
        """Return the retry settings of a call; see `Settings.retry_for`."""
        return self.settings.retry_for(provider, operation)

    def own(self, work: Awaitable[object]) -> asyncio.Task[object]:
        """Run `work` as a task that closing the gateway waits for."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def prices_ready(self) -> None:
        """Return when prices can be read without blocking."""
        if not self.prices_read:
            await self._prices.ready()
            self.prices_read = True

    def warm_prices(self) -> None:
        """Begin to read the prices, if they are not read yet."""
        if not self.prices_read:
            self.own(self.prices_ready())

    def opened(self, core: StreamCore) -> None:
        self._open.add(core)

    def closed(self, core: StreamCore) -> None:
        self._open.discard(core)

    def _recorder(self, request: ModelRequest) -> CallRecorder:
        return CallRecorder(
            request,
            clock=self.clock,
            prices=self._prices,
            history=self._history,
            sinks=self._sinks,
            tracing=self.tracing,
        )

    def _prepared(self, request: ModelRequest, resolved: Resolved) -> PreparedCall:
        endpoint, profile = resolved
        if (name := qualified_name(request.model)) != request.model:
            request = replace(request, model=name)
        if not self.settings.enable_prompt_caching and request.use_cache:
            request = replace(request, use_cache=False)
        return PreparedCall(
            request=request,
            endpoint=endpoint,
            traits=profile.traits(request.model.split("/", 1)[1]),
            plan=profile.cache_plan(request) if request.messages else CachePlan(caching="none"),
            timeouts=self.settings.timeouts,
            extra=profile.extra_fields(request) if request.messages else {},
        )

    def _cacheable(self, request: ModelRequest) -> CacheableCall | None:
        return None if self._responses is None else self._responses.call(self, request)

    async def _transport(self, name: str) -> Transport:
        if name not in self._transports:
            made = await make_transport(name, self.settings)
            # Another call may have made one while this one waited; an unused one holds nothing that needs closing.
            self._transports.setdefault(name, made)
        return self._transports[name]

    async def _recorded(self, recorder: CallRecorder, answer: Callable[[], Awaitable[Raw]]) -> Raw:
        """Return what a call that does not stream answered, with its figures noted; on failure leave its record."""
        try:
            raw = await answer()
        except asyncio.CancelledError as error:
            recorder.finish("cancelled", error)
            raise
        except Exception as error:
            await self.prices_ready()
            recorder.finish(f"error:{type(error).__name__}", error)
            raise
        await self.prices_ready()
        recorder.answered(raw.headers, raw.request_id)
        recorder.usage = raw.usage
        return raw


def _separated(raw: RawCompletion) -> tuple[str, str]:
    text, inner = separated(raw.text, cut_off=raw.finish_reason not in ("stop", "tool_calls"))
    return text, raw.reasoning + inner
