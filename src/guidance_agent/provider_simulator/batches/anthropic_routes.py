"""Anthropic's message batches: create, list, look at, cancel, delete, and the results."""

from __future__ import annotations

import sqlite3
import uuid
from functools import partial
from typing import Any, NoReturn

from aiohttp import web

from guidance_agent.provider_simulator.batches.download import send_file
from guidance_agent.provider_simulator.batches.files import StoredFile, file_number
from guidance_agent.provider_simulator.batches.inline_requests import (
    MOST_BYTES,
    MOST_REQUESTS,
    InlineRequest,
    InlineRequests,
    check_request,
)
from guidance_agent.provider_simulator.batches.openai_routes import duration_of
from guidance_agent.provider_simulator.batches.records import (
    Batch,
    add_batch,
    batch_named,
    delete_batch,
    listed_batches,
    live_batches,
    save_batch,
    wave_of,
)
from guidance_agent.provider_simulator.batches.rendering import RESULTS_LIFE, message_batch_object
from guidance_agent.provider_simulator.batches.route import BatchRequest, batch_route
from guidance_agent.provider_simulator.faults import BATCH_FAULTS
from guidance_agent.provider_simulator.wire_errors import ProviderError, standard_error

__all__ = ["routes"]

_PIECE = 256 * 1024
_KEPT_AT_ONCE = 500
_POLL_AGAIN = "10"
_MOST_LISTED = 1_000


def _invalid(message: str) -> ProviderError:
    return ProviderError(400, "invalid_request_error", message, headers={"x-should-retry": "false"})


def _not_found(message: str) -> ProviderError:
    return ProviderError(404, "not_found_error", message, headers={"x-should-retry": "false"})


async def _create(call: BatchRequest) -> web.StreamResponse:
    settings = call.state.settings
    fault = call.state.faults.take(
        model="", path=call.request.path, operation=call.record.operation, body="", among=BATCH_FAULTS
    )
    now = call.now
    batch = Batch(
        id=f"msgbatch_01{uuid.uuid4().hex[:22]}",
        wire="anthropic",
        workspace=call.workspace,
        status="receiving",
        created_at=now,
        expires_at=now + settings.batch_window,
        duration=duration_of(fault, settings.batch_takes, settings.batch_window),
        endpoint="/v1/messages",
        starts_at=now,
        doomed=(fault.message or "") if fault is not None and fault.kind == "fail_batch" else None,
    )
    await call.state.batches.add(partial(add_batch, batch=batch))
    try:
        await _receive(call, batch)
        shown = await call.state.batches.write(partial(_accept, call=call, batch=batch))
    except ProviderError:
        await call.state.batches.add(partial(_forget, batch=batch))
        raise
    call.record.body = shown
    return web.json_response(shown, headers=call.headers())


async def _receive(call: BatchRequest, batch: Batch) -> None:
    """Keep the requests while they arrive; raises the provider's error for the body as a whole."""
    settings = call.state.settings
    reader = InlineRequests()
    seen: set[str] = set()
    duplicate: str | None = None
    kept: list[InlineRequest] = []
    received = 0
    async for piece, last in _body(call):
        received += len(piece)
        if received > (settings.batch_most_bytes or MOST_BYTES):
            raise standard_error("anthropic", 413)
        for entry in reader.feed(piece, last=last):
            request = check_request(entry, reader.count - 1)
            if request.custom_id in seen:
                duplicate = duplicate or request.custom_id
                continue
            seen.add(request.custom_id)
            kept.append(request)
            if len(kept) >= _KEPT_AT_ONCE:
                await call.state.batches.add(partial(_keep, batch=batch, requests=kept, seed=settings.seed))
                kept = []
    await call.state.batches.add(partial(_keep, batch=batch, requests=kept, seed=settings.seed))
    _check_whole(reader, duplicate, settings.batch_most_requests or MOST_REQUESTS)


async def _body(call: BatchRequest) -> Any:
    """The pieces of the body, and an empty one that is the last."""
    async for piece in call.request.content.iter_chunked(_PIECE):
        yield piece, False
    yield b"", True


def _check_whole(reader: InlineRequests, duplicate: str | None, most: int) -> None:
    if not reader.found:
        raise _invalid("requests: Field required")
    if reader.count == 0:
        raise _invalid("requests: List should have at least 1 item after validation, not 0")
    if reader.count > most:
        raise _invalid(f"requests: List should have at most {most} items after validation, not {reader.count}")
    if duplicate is not None:
        raise _invalid(f"requests: custom_id's must be unique within a batch. Duplicate custom_id found: {duplicate}")


def _keep(connection: sqlite3.Connection, batch: Batch, requests: list[InlineRequest], seed: int) -> None:
    first = batch.total + 1
    rows = (
        (batch.number, line, wave_of(seed, request.custom_id, line), request.custom_id, request.params)
        for line, request in enumerate(requests, start=first)
    )
    connection.executemany("INSERT INTO items (batch, line, wave, custom_id, request) VALUES (?, ?, ?, ?, ?)", rows)
    batch.total += len(requests)


def _accept(connection: sqlite3.Connection, call: BatchRequest, batch: Batch) -> dict[str, Any]:
    limit = call.state.settings.batch_queued_requests
    if limit is not None:
        queued = sum(
            other.waiting
            for other in live_batches(connection)
            if other.workspace == call.workspace and other.wire == "anthropic"
        )
        if queued + batch.total > limit:
            error = standard_error("anthropic", 429)
            error.message = (
                f"This request would exceed your organization's limit of {limit:,} requests in the batch queue. For "
                "details, refer to: https://docs.claude.com/en/api/rate-limits."
            )
            raise error
    batch.status = "in_progress"
    save_batch(connection, batch)
    return _shown(call, batch)


def _forget(connection: sqlite3.Connection, batch: Batch) -> None:
    connection.execute("DELETE FROM items WHERE batch = ?", (batch.number,))
    connection.execute("DELETE FROM batches WHERE number = ?", (batch.number,))


def _shown(call: BatchRequest, batch: Batch) -> dict[str, Any]:
    return message_batch_object(batch, call.state.base_url, call.now)


def _named(connection: sqlite3.Connection, call: BatchRequest) -> Batch:
    name = call.request.match_info["name"]
    batch = batch_named(connection, name, workspace=call.workspace, wire="anthropic")
    if batch is None:
        raise _not_found(f"Message Batch {name} not found.")
    return batch


async def _retrieve(call: BatchRequest) -> web.StreamResponse:
    batch = await call.state.batches.read(partial(_named, call=call))
    poll = {} if batch.has_ended else {"retry-after": _POLL_AGAIN}
    return web.json_response(_shown(call, batch), headers={**call.headers(), **poll})


async def _cancel(call: BatchRequest) -> web.StreamResponse:
    def stop(connection: sqlite3.Connection) -> Batch:
        batch = _named(connection, call)
        if batch.has_ended:
            raise _invalid(f"Message Batch {batch.id} cannot be canceled because it has ended.")
        if batch.status != "cancelling":
            batch.status, batch.cancelling_at = "cancelling", call.now
            save_batch(connection, batch)
        return batch

    return web.json_response(_shown(call, await call.state.batches.write(stop)), headers=call.headers())


async def _delete(call: BatchRequest) -> web.StreamResponse:
    def delete(connection: sqlite3.Connection) -> Batch:
        batch = _named(connection, call)
        if not batch.has_ended:
            raise _invalid("In progress batches cannot be deleted. Consider canceling the batch instead.")
        delete_batch(connection, batch, call.now)
        return batch

    batch = await call.state.batches.write(delete)
    return web.json_response({"id": batch.id, "type": "message_batch_deleted"}, headers=call.headers())


async def _results(call: BatchRequest) -> web.StreamResponse:
    def find(connection: sqlite3.Connection) -> StoredFile:
        batch = _named(connection, call)
        kept = batch.has_ended and call.now < batch.created_at + RESULTS_LIFE
        file = file_number(connection, batch.output_file) if kept and batch.output_file is not None else None
        if file is None:
            raise _not_found(f"Message Batch {batch.id} has no available results.")
        return file

    return await send_file(call, await call.state.batches.read(find), content_type="application/x-jsonl")


def _page_limit(raw: str) -> int:
    if not raw.isdigit():
        raise _invalid("limit: Input should be a valid integer, unable to parse string as an integer")
    if int(raw) < 1:
        raise _invalid("limit: Input should be greater than or equal to 1")
    if int(raw) > _MOST_LISTED:
        raise _invalid(f"limit: Input should be less than or equal to {_MOST_LISTED}")
    return int(raw)


async def _list(call: BatchRequest) -> web.StreamResponse:
    query = call.request.query
    limit = _page_limit(query.get("limit", "20"))
    if "after_id" in query and "before_id" in query:
        raise _invalid("Only one of before_id and after_id may be given.")

    def number_of(connection: sqlite3.Connection, name: str) -> int | None:
        if name not in query:
            return None
        batch = batch_named(connection, query[name], workspace=call.workspace, wire="anthropic")
        return batch.number if batch is not None else _unknown(name, query[name])

    def find(connection: sqlite3.Connection) -> list[Batch]:
        return listed_batches(
            connection,
            workspace=call.workspace,
            wire="anthropic",
            created_by=call.hidden_after(),
            older_than=number_of(connection, "after_id"),
            newer_than=number_of(connection, "before_id"),
            limit=limit + 1,
        )

    found = await call.state.batches.read(find)
    # Newest first; the page before an object is the one that ends right above it.
    page = found[-limit:] if "before_id" in query else found[:limit]
    shown = [_shown(call, batch) for batch in page]
    return web.json_response(
        {
            "data": shown,
            "has_more": len(found) > limit,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
        },
        headers=call.headers(),
    )


def _unknown(name: str, value: str) -> NoReturn:
    raise _invalid(f"{name}: no Message Batch with id {value} was found")


routes = (
    web.post("/v1/messages/batches", batch_route("anthropic", "batches.create", _create)),
    web.get("/v1/messages/batches", batch_route("anthropic", "batches.list", _list)),
    web.get("/v1/messages/batches/{name}", batch_route("anthropic", "batches.retrieve", _retrieve)),
    web.delete("/v1/messages/batches/{name}", batch_route("anthropic", "batches.delete", _delete)),
    web.post("/v1/messages/batches/{name}/cancel", batch_route("anthropic", "batches.cancel", _cancel)),
    web.get("/v1/messages/batches/{name}/results", batch_route("anthropic", "batches.results", _results)),
)
