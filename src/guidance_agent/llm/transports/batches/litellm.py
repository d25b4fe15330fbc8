"""Batches through LiteLLM, in OpenAI's form: for providers whose batch APIs only LiteLLM speaks.

LiteLLM is imported on first use, with everything off that a library should not do by itself. What differs from one
provider to the next, and what is not promised:

1. The address, project, bucket or role that a provider needs beyond key and address is read by LiteLLM from variables
   of its own (`AZURE_API_VERSION`, `VERTEXAI_PROJECT`, `AWS_S3_BUCKET_NAME`, ...).
2. Bedrock and Mistral list no batches: whether an unclear submission was accepted is for a person to find out.
   Mistral's cannot be cancelled either.
3. Only OpenAI's form, vLLM and a proxy of LiteLLM's give results piece by piece. Those of other providers stand in
   memory.
4. Once a batch has ended LiteLLM would download its results in the background whenever it is looked at, to work out
   costs. It is told not to; so it is with retries and callbacks.
5. LiteLLM uses connections of its own, and says the same of a connection that was never made and of one that broke.
   So what is not refused with a status counts as unclear, and is looked for before it is sent again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO, NamedTuple

from guidance_agent.errors import GuidanceAgentError, MidStreamError, ModelError, RequestRejectedError
from guidance_agent.llm.providers.base import CachePlan
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.batches.base import BatchLimits, BatchPlace, ProviderBatch, ResultRow
from guidance_agent.llm.transports.batches.http import SIMULATOR_HEADER, lines_of
from guidance_agent.llm.transports.batches.openai import BATCH_KEY, ENDPOINT, openai_batch, openai_row
from guidance_agent.llm.transports.batches.rows import encoded, read_rows
from guidance_agent.llm.transports.failures import Origin, malformed
from guidance_agent.llm.transports.http import raise_timeout
from guidance_agent.llm.transports.litellm_errors import error_of_call
from guidance_agent.llm.transports.litellm_import import LiteLLMModules, keep_quiet, load
from guidance_agent.llm.transports.openai_body import build_openai_body

__all__ = ["LiteLLMBatches"]

_PAGE = 100
_TRANSFER_SECONDS = 600.0
_PIECE = 1024 * 1024
_CLIENT_MAKERS = (("litellm.batches.main", "openai_batches_instance"), ("litellm.files.main", "openai_files_instance"))
_NO_CACHE = CachePlan(caching="none")


_clients: ContextVar[_Clients | None] = ContextVar("guidance_agent_litellm_clients", default=None)


class _Way(NamedTuple):
    """What LiteLLM can do with a provider's batches; `named` says that it has to be told the model each time."""

    keeps_keys: bool = False
    lists: bool = True
    cancels: bool = True
    pieces: bool = False
    named: bool = False


_OPENAI = _Way(keeps_keys=True, pieces=True)
_WAYS: Mapping[str, _Way] = {
    "openai": _OPENAI,
    "hosted_vllm": _OPENAI,
    "litellm_proxy": _OPENAI,
    "azure": _Way(keeps_keys=True),
    "vertex_ai": _Way(),
    "xai": _Way(),
    "bedrock": _Way(lists=False, named=True),
    "mistral": _Way(lists=False, cancels=False, named=True),
}


class _Clients:
    """The clients that LiteLLM would make for each call anew, and never close; closed with `aclose`."""

    def __init__(self) -> None:
        self._made: dict[tuple[str | None, str | None], Any] = {}
        # Keeps two calls, in threads of LiteLLM's, from making a client each; held while one is made.
        self._lock = threading.Lock()

    def get(self, address: str | None, key: str | None, make: Callable[[], Any]) -> Any:
        with self._lock:
            if (address, key) not in self._made:
                self._made[address, key] = make()
            return self._made[address, key]

    async def aclose(self) -> None:
        made, self._made = self._made, {}
        for client in made.values():
            await client.close()


class LiteLLMBatches:
    """Speaks to the batch API of one provider through LiteLLM; one that it does not know is spoken to as OpenAI."""

    limits = BatchLimits(items=50_000, bytes=195 * 1024 * 1024)
    primes = False
    before, between, after = b"", b"\n", b"\n"

    def __init__(self, provider: str) -> None:
        self._provider = provider if provider in _WAYS else "openai"
        self._way = _WAYS[self._provider]
        self.keeps_keys = self._way.keeps_keys
        self.lists = self._way.lists
        self._modules: LiteLLMModules | None = None
        self._clients = _Clients()

    async def aclose(self) -> None:
        await self._clients.aclose()
        modules, self._modules = self._modules, None
        if modules is not None:
            await modules.tap.settle(own_connections=True)

    def row(self, wire_id: str, call: PreparedCall) -> bytes:
        if self._provider != "openai":
            # Marks of a cache would be refused, or sent on as they are.
            call = replace(call, plan=_NO_CACHE)
        body = build_openai_body(call, stream=False)
        return encoded({"custom_id": wire_id, "method": "POST", "url": ENDPOINT, "body": body})

    async def upload(self, place: BatchPlace, key: str, file: BinaryIO) -> str:
        named = (f"{key}.jsonl", file, "application/jsonl")
        made = await self._ask(place, "acreate_file", seconds=_TRANSFER_SECONDS, file=named, purpose="batch")
        if not isinstance(getattr(made, "id", None), str):
            raise malformed(self._origin(place), f"is no file: {str(made)[:200]!r}")
        return str(made.id)

    async def create(self, place: BatchPlace, key: str, source: BinaryIO | str) -> ProviderBatch:
        made = await self._ask(
            place,
            "acreate_batch",
            pays=True,
            completion_window="24h",
            endpoint=ENDPOINT,
            input_file_id=source,
            metadata={BATCH_KEY: key},
        )
        return self._batch(place, made)

    async def find(self, place: BatchPlace, batch_id: str) -> ProviderBatch | None:
        try:
            made = await self._ask(place, "aretrieve_batch", batch_id=batch_id)
        except ModelError as error:
            if error.status == 404:
                return None
            raise
        return self._batch(place, made)

    async def listed(self, place: BatchPlace, since: datetime) -> AsyncIterator[ProviderBatch]:
        after: str | None = None
        while True:
            page = await self._ask(place, "alist_batches", after=after, limit=_PAGE)
            batches = [self._batch(place, made) for made in _of(page, "data") or ()]
            for batch in batches:
                if batch.created_at < since:
                    return
                yield batch
            if not batches or not _of(page, "has_more") or batches[-1].id == after:
                return
            after = batches[-1].id

    async def cancel(self, place: BatchPlace, batch_id: str) -> None:
        if not self._way.cancels:
            return
        try:
            await self._ask(place, "acancel_batch", batch_id=batch_id)
        except ModelError as error:
            # It is refused where there is nothing left to cancel, which is what was asked for.
            refused = isinstance(error, RequestRejectedError) or error.status in (400, 409)
            found = await self.find(place, batch_id) if refused else None
            if found is None or found.state == "running":
                raise

    async def rows(self, place: BatchPlace, batch: ProviderBatch) -> AsyncIterator[ResultRow]:
        origin = self._origin(place)
        for file in batch.results:
            content = await self._ask(
                place,
                "afile_content",
                seconds=_TRANSFER_SECONDS,
                file_id=file,
                stream=self._way.pieces,
                chunk_size=_PIECE,
            )
            simulated = SIMULATOR_HEADER in {str(name).lower() for name in _headers(content)}
            async for row in read_rows(_lines(content, origin), partial(openai_row, origin=origin)):
                yield replace(row, simulated=simulated)

    async def _ask(
        self, place: BatchPlace, function: str, *, seconds: float | None = None, pays: bool = False, **arguments: Any
    ) -> Any:
        """Call a function of LiteLLM's; one that `pays` costs twice where it is carried out twice."""
        modules = self._modules = await _loaded()
        endpoint, origin = place.endpoint, self._origin(place)
        seconds = seconds or place.timeouts.turn
        if self._way.named:
            arguments["model"] = f"{self._provider}/{place.model}"
        if endpoint.headers:
            arguments["extra_headers"] = dict(endpoint.headers)
        failure: GuidanceAgentError
        token = _clients.set(self._clients)
        try:
            async with asyncio.timeout(seconds):
                return await getattr(modules.litellm, function)(
                    custom_llm_provider=self._provider,
                    api_key=endpoint.api_key,
                    api_base=endpoint.base_url,
                    timeout=seconds,
                    max_retries=0,
                    litellm_metadata={"batch_ignore_default_logging": True},
                    **{"no-log": True},
                    **arguments,
                )
        except TimeoutError:
            raise_timeout(origin, "first_event", seconds, None)
        except Exception as error:
            failure = error_of_call(error, origin, modules.litellm)
            if pays and not _was_refused(error):
                failure = _broke_off(origin, error)
        finally:
            _clients.reset(token)
        # Raised here, so that LiteLLM's exception, which repeats what was sent, is not its context.
        raise failure

    def _batch(self, place: BatchPlace, made: Any) -> ProviderBatch:
        shown = made if isinstance(made, Mapping) else made.model_dump()
        return openai_batch(place, shown)

    def _origin(self, place: BatchPlace) -> Origin:
        endpoint = place.endpoint
        return Origin(endpoint.provider, "a batch", endpoint.base_url or "its usual address", secret=endpoint.api_key)


async def _loaded() -> LiteLLMModules:
    modules = await load()
    # On the event loop, since filters that a thread sets are lost when code on the loop leaves `catch_warnings`.
    keep_quiet()
    for home, name in _CLIENT_MAKERS:
        maker = getattr(import_module(home), name)
        if getattr(maker.get_openai_client, "func", None) is not _noted:
            maker.get_openai_client = partial(_noted, maker.get_openai_client)
    return modules


def _noted(make: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    clients = _clients.get()
    if clients is None or named.get("client") is not None or not named.get("_is_async"):
        return make(*arguments, **named)
    return clients.get(named.get("api_base"), named.get("api_key"), lambda: make(*arguments, **named))


def _of(page: Any, name: str) -> Any:
    return page.get(name) if isinstance(page, Mapping) else getattr(page, name, None)


def _headers(content: Any) -> Mapping[str, str]:
    headers = getattr(content, "headers", None) or getattr(getattr(content, "response", None), "headers", None)
    return headers or {}


async def _lines(content: Any, origin: Origin) -> AsyncIterator[bytes]:
    pieces = getattr(content, "stream_iterator", None)
    try:
        async for line in lines_of(pieces if pieces is not None else _whole(content), origin):
            yield line
    except GuidanceAgentError:
        raise
    except Exception as error:
        raise _broke_off(origin, error) from None
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


async def _whole(content: Any) -> AsyncIterator[bytes]:
    yield bytes(content.content)


def _was_refused(error: BaseException | None) -> bool:
    """Return whether the provider itself answered, with a status."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if type(error).__name__ == "HTTPStatusError":
            return True
        error = error.__cause__ or error.__context__
    return False


def _broke_off(origin: Origin, error: Exception) -> ModelError:
    return MidStreamError(
        f"LiteLLM got no answer of {origin.provider} ({type(error).__name__}). Whether it did what was asked is not "
        "known.",
        provider=origin.provider,
    )
