"""Anthropic's message batches: the requests travel in the submission, results come from one address.

A batch shows no id of ours. Custom ids are seen in its results only, and these only once it has ended.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO

from guidance_agent.errors import ModelError, RequestRejectedError
from guidance_agent.llm.transports.anthropic import ANTHROPIC_VERSION, anthropic_completion
from guidance_agent.llm.transports.anthropic_body import build_anthropic_body
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.batches.base import BatchLimits, BatchPlace, ProviderBatch, ResultRow
from guidance_agent.llm.transports.batches.http import BatchHttp
from guidance_agent.llm.transports.batches.rows import encoded, read_rows
from guidance_agent.llm.transports.failures import Origin, malformed, mid_stream_error

__all__ = ["AnthropicBatches"]

_PAGE = "100"


class AnthropicBatches:
    """Speaks to `/v1/messages/batches`."""

    limits = BatchLimits(items=100_000, bytes=250 * 1024 * 1024)
    keeps_keys = False
    lists = True
    primes = True
    before, between, after = b'{"requests":[', b",", b"]}"

    def __init__(self) -> None:
        self._http = BatchHttp()

    async def aclose(self) -> None:
        await self._http.aclose()

    def row(self, wire_id: str, call: PreparedCall) -> bytes:
        return encoded({"custom_id": wire_id, "params": build_anthropic_body(call, stream=False)})

    async def upload(self, place: BatchPlace, key: str, file: BinaryIO) -> None:
        return None

    async def create(self, place: BatchPlace, key: str, source: BinaryIO | str) -> ProviderBatch:
        made = await self._http.json(
            place, "POST", _path(place), _headers(place), data=source, content_type="application/json"
        )
        return _batch(place, made)

    async def find(self, place: BatchPlace, batch_id: str) -> ProviderBatch | None:
        try:
            made = await self._http.json(place, "GET", f"{_path(place)}/{batch_id}", _headers(place))
        except ModelError as error:
            if error.status == 404:
                return None
            raise
        return _batch(place, made)

    async def listed(self, place: BatchPlace, since: datetime) -> AsyncIterator[ProviderBatch]:
        params = {"limit": _PAGE}
        while True:
            page = await self._http.json(place, "GET", _path(place), _headers(place), params=params)
            batches = [_batch(place, made) for made in page.get("data") or ()]
            for batch in batches:
                if batch.created_at < since:
                    return
                yield batch
            if not batches or not page.get("has_more"):
                return
            params["after_id"] = batches[-1].id

    async def cancel(self, place: BatchPlace, batch_id: str) -> None:
        try:
            await self._http.json(place, "POST", f"{_path(place)}/{batch_id}/cancel", _headers(place))
        except RequestRejectedError:
            # It is refused where there is nothing left to cancel, which is what was asked for.
            found = await self.find(place, batch_id)
            if found is not None and found.state == "running":
                raise

    async def rows(self, place: BatchPlace, batch: ProviderBatch) -> AsyncIterator[ResultRow]:
        # The address that the batch names is not followed: the key goes to the configured one and to no other.
        path = f"{_path(place)}/{batch.id}/results"
        async with self._http.lines(place, path, _headers(place)) as (lines, origin, simulated):
            async for row in read_rows(lines, partial(_row, origin=origin)):
                yield replace(row, simulated=simulated)


def _path(place: BatchPlace) -> str:
    base_url = (place.endpoint.base_url or "").rstrip("/")
    return "/messages/batches" if base_url.endswith("/v1") else "/v1/messages/batches"


def _headers(place: BatchPlace) -> dict[str, str]:
    headers = {"anthropic-version": ANTHROPIC_VERSION}
    if place.endpoint.api_key is not None:
        headers["x-api-key"] = place.endpoint.api_key
    return headers


def _batch(place: BatchPlace, made: Mapping[str, Any]) -> ProviderBatch:
    try:
        counts = made["request_counts"]
        ended = made["processing_status"] == "ended"
        return ProviderBatch(
            id=str(made["id"]),
            state="ended" if ended else "running",
            created_at=datetime.fromisoformat(made["created_at"]).astimezone(UTC),
            total=sum(int(counts[name]) for name in ("processing", "succeeded", "errored", "canceled", "expired")),
            results=("results",) if ended else (),
        )
    except (KeyError, TypeError, ValueError) as error:
        origin = Origin(place.endpoint.provider, "a batch", place.endpoint.base_url or "")
        raise malformed(origin, f"is no message batch ({type(error).__name__}: {error})") from error


def _row(wire_id: str, made: Mapping[str, Any], origin: Origin) -> ResultRow:
    result = made["result"]
    kind = result["type"]
    if kind == "succeeded":
        try:
            return ResultRow(wire_id=wire_id, answer=anthropic_completion(result["message"], {}, origin))
        except ModelError as error:
            return ResultRow(
                wire_id=wire_id, outcome="errored_retryable", error=str(error), error_type=type(error).__name__
            )
    if kind == "expired":
        return ResultRow(wire_id=wire_id, outcome="expired", error="The batch ended before its turn came.")
    if kind == "canceled":
        return ResultRow(wire_id=wire_id, outcome="canceled", error="The batch was cancelled before its turn came.")
    told = result["error"].get("error", result["error"])
    failure = mid_stream_error(origin, told)
    word = told.get("type") if isinstance(told, dict) else None
    return ResultRow(
        wire_id=wire_id,
        outcome="errored_retryable" if failure.retryable else "errored_fatal",
        error=origin.clean(str(told.get("message", json.dumps(told))) if isinstance(told, dict) else str(told)),
        error_type=word if isinstance(word, str) else type(failure).__name__,
    )
