"""The way to a provider through LiteLLM, for every model string that LiteLLM understands.

LiteLLM is imported on first use only. It is asked with retries, callbacks and caches off, and watched from below: see
`litellm_tap`. What is known about an answer is what the wire said, not what LiteLLM made of it.

KNOWN_DIFFERENCES from the native transports:

1. A chunk costs 20 to 40 times the CPU, `read` returns one chunk at a time, and LiteLLM keeps every chunk until the
   stream is closed: memory grows with the answer.
2. A JSON Schema for Anthropic is accompanied by a beta header that the API no longer needs.
3. The first call of a process waits for the import, seconds, before its time-outs begin to run. The import has a
   thread of its own, but holds the interpreter's lock for up to a few hundred milliseconds at a time.
4. Answers in formats other than Anthropic's and OpenAI's are what LiteLLM makes of them: finish reasons, usage, and
   what happens to data that does not follow the format. Usage that was not reported is marked estimated.
5. Providers that are not named in `litellm_request` use connections of LiteLLM's own: pings are no sign of life, the
   connect time-out is part of the first event's, LiteLLM may send a request again when no connection can be made,
   response headers are those that LiteLLM passes on, and an answer of Vertex AI that is cut off between two chunks
   passes for whole, since LiteLLM gives each of them a finish reason.
6. Before LiteLLM asks a model of Ollama by Ollama's own protocol, it asks the server about it with a call that blocks
   the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from guidance_agent.errors import GuidanceAgentError, TimeoutPhase
from guidance_agent.llm.transports.base import PreparedCall, RawCompletion, RawEmbeddings, TransportStream
from guidance_agent.llm.transports.failures import Origin, malformed
from guidance_agent.llm.transports.http import open_session, raise_timeout
from guidance_agent.llm.transports.litellm_answer import completion_of, usage_of
from guidance_agent.llm.transports.litellm_errors import error_of_answer, error_of_call
from guidance_agent.llm.transports.litellm_import import LiteLLMModules, keep_quiet, load
from guidance_agent.llm.transports.litellm_request import Route, chat_arguments, common_arguments, route_of
from guidance_agent.llm.transports.litellm_stream import LiteLLMStream
from guidance_agent.llm.transports.litellm_wire import ReadWhole, read_completion, read_embeddings
from guidance_agent.settings import Settings

__all__ = ["LiteLLMTransport"]

_PROVIDER_PREFIX = "llm_provider-"


class LiteLLMTransport:
    """A `Transport` over LiteLLM. One per event loop; closed with `aclose`."""

    name = "litellm"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clients: Any = None
        self._providers: frozenset[str] = frozenset()
        self._used_own_connections = False
        # Keeps two first calls from making two pools.
        self._opening = asyncio.Lock()

    async def open(self, call: PreparedCall) -> TransportStream:
        """Send the request and return once the response's status is known to be a success.

        Raises:
            ModelError: of the class that status, connection failure or silence means.
            MissingExtraError: when LiteLLM, or what it needs for the provider, is not installed.
            UnknownModelError: when LiteLLM has no such provider.
        """
        modules, route = await self._prepared(call)
        loop = asyncio.get_running_loop()
        began = loop.time()
        wrapper, tap = await self._ask(
            modules,
            route,
            call,
            modules.litellm.acompletion,
            chat_arguments(call, route, stream=True),
            stream=True,
        )
        return LiteLLMStream(
            wrapper,
            tap.origin,
            call,
            sdk=route.client == "sdk",
            body=tap.body,
            headers=tap.headers or _passed_on(wrapper),
            first_event=call.timeouts.first_event - (loop.time() - began),
        )

    async def complete(self, call: PreparedCall) -> RawCompletion:
        """Send the request without streaming and return the whole answer. Raises as `open` does."""
        modules, route = await self._prepared(call)
        arguments = chat_arguments(call, route, stream=False)
        whole = None if route.wire is None else partial(read_completion, wire=route.wire)
        response, tap = await self._ask(
            modules, route, call, modules.litellm.acompletion, arguments, stream=False, whole=whole
        )
        if tap.said is not None:
            said: RawCompletion = tap.said
            return said
        return completion_of(response, tap.origin, tap.headers or _passed_on(response))

    async def embed(self, call: PreparedCall, texts: Sequence[str], dimensions: int | None) -> RawEmbeddings:
        """Return one vector for each text. Raises as `open` does."""
        modules, route = await self._prepared(call)
        arguments: dict[str, Any] = {"model": route.model, "input": list(texts)}
        if route.client == "sdk":
            arguments["encoding_format"] = "float"
        else:
            # LiteLLM embeds through other code than it chats, which does not take the same client.
            route = route._replace(client=None)
        if dimensions is not None:
            arguments["dimensions"] = dimensions
        whole = partial(read_embeddings, expected=len(texts)) if route.client == "sdk" else None
        response, tap = await self._ask(
            modules, route, call, modules.litellm.aembedding, arguments, stream=False, whole=whole
        )
        if tap.said is not None:
            said: RawEmbeddings = tap.said
            return said
        rows = sorted(response.data, key=lambda row: int(row["index"]))
        if [row["index"] for row in rows] != list(range(len(texts))):
            raise malformed(tap.origin, f"holds {len(rows)} vectors for {len(texts)} texts")
        return RawEmbeddings(
            vectors=[row["embedding"] for row in rows],
            usage=usage_of(response.usage),
            headers=tap.headers or _passed_on(response),
        )

    async def aclose(self) -> None:
        """Close connections and LiteLLM's background task on this event loop."""
        clients, self._clients = self._clients, None
        if clients is None:
            return
        await clients.aclose()
        await clients.settle(own_connections=self._used_own_connections)

    async def _prepared(self, call: PreparedCall) -> tuple[LiteLLMModules, Route]:
        modules = await load()
        async with self._opening:
            if self._clients is None:
                session = open_session()
                try:
                    self._clients = await asyncio.to_thread(modules.tap.Clients, session)
                except BaseException:
                    await session.close()
                    raise
                self._providers = frozenset(str(provider.value) for provider in modules.litellm.LlmProviders)
        # On the event loop, since filters that a thread sets are lost when code on the loop leaves `catch_warnings`.
        keep_quiet()
        return modules, route_of(call, self._providers)

    async def _ask(
        self,
        modules: LiteLLMModules,
        route: Route,
        call: PreparedCall,
        function: Any,
        arguments: Mapping[str, Any],
        *,
        stream: bool,
        whole: ReadWhole | None = None,
    ) -> tuple[Any, Any]:
        endpoint, limits = call.endpoint, call.timeouts
        address = route.api_base or "its usual address"
        origin = Origin(endpoint.provider, call.request.model, address, secret=endpoint.api_key)
        tap = modules.tap.Tap(origin, limits, stream=route.wire if stream else None, whole=whole, end=route.end)
        phase: TimeoutPhase = "first_event" if stream else "turn"
        seconds = limits.first_event if stream else limits.turn
        client = self._client(route, endpoint.api_key)
        failure: GuidanceAgentError
        try:
            async with asyncio.timeout(seconds):
                with tap.listening():
                    answer = await function(
                        **arguments, **common_arguments(call, route, seconds=seconds), client=client
                    )
                    if stream and answer.completion_stream is None:
                        # For some providers LiteLLM sends the request only when the first chunk is asked for.
                        await answer.fetch_stream()
            if tap.failure is None:
                return answer, tap
            failure = tap.failure
        except TimeoutError:
            raise_timeout(tap.origin, phase, seconds, None)
        except Exception as error:
            failure = (
                tap.failure
                or error_of_answer(error, tap.origin, tap.body)
                or error_of_call(error, tap.origin, modules.litellm)
            )
        # Raised here, so that LiteLLM's exception, which repeats what was sent, is not its context.
        raise failure

    def _client(self, route: Route, api_key: str | None) -> Any:
        if route.client == "http":
            return self._clients.handler
        if route.client == "sdk" and route.api_base is not None:
            return self._clients.sdk(route.api_base, api_key)
        self._used_own_connections = True
        return None


def _passed_on(answer: Any) -> dict[str, str]:
    """Return the response headers that LiteLLM passes on, under the provider's own names."""
    hidden = getattr(answer, "_hidden_params", None) or {}
    headers = hidden.get("additional_headers") or {}
    return {
        str(name).lower().removeprefix(_PROVIDER_PREFIX): str(value)
        for name, value in headers.items()
        if str(name).lower().startswith(_PROVIDER_PREFIX)
    }
