"""OpenAI's file batches: a file of rows goes up, a batch is made of it, two files of results come down.

A batch carries metadata: our own id stands there, and the list finds it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO

import aiohttp

from guidance_agent.errors import ModelError, ProviderUnavailableError, RequestRejectedError
from guidance_agent.llm.batch_request import ItemOutcome
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.batches.base import BatchLimits, BatchPlace, LineProblem, ProviderBatch, ResultRow
from guidance_agent.llm.transports.batches.http import BatchHttp
from guidance_agent.llm.transports.batches.rows import encoded, read_rows
from guidance_agent.llm.transports.failures import Origin, error_of_response, malformed
from guidance_agent.llm.transports.openai import openai_completion
from guidance_agent.llm.transports.openai_body import build_openai_body

__all__ = ["BATCH_KEY", "ENDPOINT", "OpenAIBatches", "openai_batch", "openai_row"]

ENDPOINT = "/v1/chat/completions"
BATCH_KEY = "guidance_agent_batch"
"""Under this name our own id of a batch stands in its metadata."""

_PAGE = "100"
_WITHOUT_RESULTS = frozenset({"failed"})
_ENDED = frozenset({"completed", "expired", "cancelled"})
_UNANSWERED: Mapping[str, ItemOutcome] = {"expired": "expired", "cancelled": "canceled"}


class OpenAIBatches:
    """Speaks to `/v1/files` and `/v1/batches`."""

    limits = BatchLimits(items=50_000, bytes=195 * 1024 * 1024)
    keeps_keys = True
    lists = True
    primes = False
    before, between, after = b"", b"\n", b"\n"

    def __init__(self) -> None:
        self._http = BatchHttp()

    async def aclose(self) -> None:
        await self._http.aclose()

    def row(self, wire_id: str, call: PreparedCall) -> bytes:
        body = build_openai_body(call, stream=False)
        return encoded({"custom_id": wire_id, "method": "POST", "url": ENDPOINT, "body": body})

    async def upload(self, place: BatchPlace, key: str, file: BinaryIO) -> str:
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", file, filename=f"{key}.jsonl", content_type="application/jsonl")
        made = await self._http.json(place, "POST", "/files", _headers(place), data=form)
        if not isinstance(made.get("id"), str):
            raise malformed(_origin(place), f"is no file: {str(made)[:200]!r}")
        return str(made["id"])

    async def create(self, place: BatchPlace, key: str, source: BinaryIO | str) -> ProviderBatch:
        asked = {
            "input_file_id": source,
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "metadata": {BATCH_KEY: key},
        }
        data = json.dumps(asked).encode()
        made = await self._http.json(
            place, "POST", "/batches", _headers(place), data=data, content_type="application/json"
        )
        return openai_batch(place, made)

    async def find(self, place: BatchPlace, batch_id: str) -> ProviderBatch | None:
        try:
            made = await self._http.json(place, "GET", f"/batches/{batch_id}", _headers(place))
        except ModelError as error:
            if error.status == 404:
                return None
            raise
        return openai_batch(place, made)

    async def listed(self, place: BatchPlace, since: datetime) -> AsyncIterator[ProviderBatch]:
        params = {"limit": _PAGE}
        while True:
            page = await self._http.json(place, "GET", "/batches", _headers(place), params=params)
            batches = [openai_batch(place, made) for made in page.get("data") or ()]
            for batch in batches:
                if batch.created_at < since:
                    return
                yield batch
            if not batches or not page.get("has_more"):
                return
            params["after"] = batches[-1].id

    async def cancel(self, place: BatchPlace, batch_id: str) -> None:
        try:
            await self._http.json(place, "POST", f"/batches/{batch_id}/cancel", _headers(place))
        except (RequestRejectedError, ProviderUnavailableError) as error:
            # It is refused where there is nothing left to cancel, which is what was asked for.
            found = await self.find(place, batch_id) if error.status in (400, 409) else None
            if found is None or found.state == "running":
                raise

    async def rows(self, place: BatchPlace, batch: ProviderBatch) -> AsyncIterator[ResultRow]:
        for file in batch.results:
            async with self._http.lines(place, f"/files/{file}/content", _headers(place)) as (lines, origin, simulated):
                async for row in read_rows(lines, partial(openai_row, origin=origin)):
                    yield replace(row, simulated=simulated)


def _origin(place: BatchPlace) -> Origin:
    return Origin(place.endpoint.provider, "a batch", place.endpoint.base_url or "")


def _headers(place: BatchPlace) -> dict[str, str]:
    key = place.endpoint.api_key
    return {} if key is None else {"authorization": f"Bearer {key}"}


def openai_batch(place: BatchPlace, made: Mapping[str, Any]) -> ProviderBatch:
    """Return a batch as OpenAI shows it.

    Raises:
        MalformedResponseError: it is none.
    """
    try:
        status = made["status"]
        metadata = made.get("metadata") or {}
        errors = (made.get("errors") or {}).get("data") or ()
        total = (made.get("request_counts") or {}).get("total") or None
        return ProviderBatch(
            id=str(made["id"]),
            state="failed" if status in _WITHOUT_RESULTS else "ended" if status in _ENDED else "running",
            created_at=datetime.fromtimestamp(float(made["created_at"]), UTC),
            total=total,
            key=metadata.get(BATCH_KEY),
            results=tuple(made[name] for name in ("output_file_id", "error_file_id") if made.get(name)),
            unanswered=_UNANSWERED.get(status, "errored_retryable"),
            problems=tuple(
                LineProblem(error.get("line"), f"{error.get('message')} ({error.get('code')})") for error in errors
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise malformed(_origin(place), f"is no batch ({type(error).__name__}: {error})") from error


def openai_row(wire_id: str, made: Mapping[str, Any], origin: Origin) -> ResultRow:
    """Return what a row of results says."""
    response = made.get("response")
    if response is None:
        error = made.get("error") or {}
        word, message = str(error.get("code")), origin.clean(str(error.get("message")))
        if word == "batch_expired":
            return ResultRow(wire_id=wire_id, outcome="expired", error=message, error_type=word)
        if word == "batch_cancelled":
            return ResultRow(wire_id=wire_id, outcome="canceled", error=message, error_type=word)
        return ResultRow(wire_id=wire_id, outcome="errored_retryable", error=message, error_type=word)
    status = int(response["status_code"])
    try:
        if 200 <= status < 300:
            return ResultRow(wire_id=wire_id, answer=openai_completion(response["body"], {}, origin))
        raise error_of_response(origin, status, {}, encoded({"answer": None} | dict(response["body"] or {})))
    except ModelError as failure:
        fatal = not failure.retryable and status >= 400
        return ResultRow(
            wire_id=wire_id,
            outcome="errored_fatal" if fatal else "errored_retryable",
            error=str(failure),
            error_type=failure.code or type(failure).__name__,
        )
