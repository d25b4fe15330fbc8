"""OpenAI's batches: create, list, look at, cancel."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from aiohttp import web

from guidance_agent.provider_simulator.admission import read_json
from guidance_agent.provider_simulator.batches.file_routes import page_limit, seconds_to_live
from guidance_agent.provider_simulator.batches.files import file_named
from guidance_agent.provider_simulator.batches.input_file import ENDPOINTS
from guidance_agent.provider_simulator.batches.records import (
    Batch,
    add_batch,
    batch_named,
    listed_batches,
    save_batch,
)
from guidance_agent.provider_simulator.batches.rendering import openai_batch_object
from guidance_agent.provider_simulator.batches.route import BatchRequest, batch_route
from guidance_agent.provider_simulator.faults import BATCH_FAULTS, Fault
from guidance_agent.provider_simulator.wire_errors import ProviderError

__all__ = ["duration_of", "routes"]

_MOST_METADATA = 16
_LONGEST_KEY = 64
_LONGEST_VALUE = 512


def _invalid(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> ProviderError:
    return ProviderError(status, "invalid_request_error", message, param=param, code=code)


def duration_of(fault: Fault | None, usual: float, window: float) -> float:
    """How long a batch takes; a slow one is told, or does not end within its window."""
    if fault is None or fault.kind != "slow_batch":
        return usual
    # The last wave must begin after the window even though the first begins with it.
    return window * 4 if fault.seconds is None else fault.seconds


def _check(body: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """The metadata as JSON and the life of the results; raises the provider's 400 for what is wrong."""
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not body.get(name):
            raise _invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    for name, supported in (("endpoint", ENDPOINTS), ("completion_window", ("24h",))):
        if body[name] not in supported:
            shown = " and ".join(f"'{value}'" for value in supported)
            raise _invalid(f"Invalid value: '{body[name]}'. Supported values are: {shown}.", name, "invalid_value")
    metadata = body.get("metadata")
    if metadata is not None:
        _check_metadata(metadata)
    policy = body.get("output_expires_after")
    life = None
    if isinstance(policy, dict):
        life = seconds_to_live(policy.get("anchor"), policy.get("seconds"), "output_expires_after")
    return None if metadata is None else json.dumps(metadata), life


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid("Invalid type for 'metadata': expected an object of strings.", "metadata", "invalid_type")
    if len(metadata) > _MOST_METADATA:
        message = f"Invalid 'metadata': too many properties. Expected an object with at most {_MOST_METADATA}."
        raise _invalid(message, "metadata", "object_above_max_properties")
    for key, value in metadata.items():
        if len(key) > _LONGEST_KEY or len(value) > _LONGEST_VALUE:
            message = (
                f"Invalid 'metadata': keys may have at most {_LONGEST_KEY} characters and values {_LONGEST_VALUE}, "
                f"see {key[:_LONGEST_KEY]!r}."
            )
            raise _invalid(message, "metadata", "string_above_max_length")


async def _create(call: BatchRequest) -> web.StreamResponse:
    body = await read_json(call.request, "openai")
    call.record.body = body
    metadata, life = _check(body)
    settings = call.state.settings
    fault = call.state.faults.take(
        model="",
        path=call.request.path,
        operation=call.record.operation,
        body=json.dumps(body, ensure_ascii=False),
        among=BATCH_FAULTS,
    )

    def create(connection: sqlite3.Connection) -> dict[str, Any]:
        name = str(body["input_file_id"])
        file = file_named(connection, name, workspace=call.workspace, now=call.now)
        if file is None:
            raise _invalid(f"No such File object: {name}", "input_file_id", status=404)
        if file.purpose != "batch":
            message = f"Invalid purpose of file '{name}': expected 'batch', but got '{file.purpose}'."
            raise _invalid(message, "input_file_id", "invalid_file_purpose")
        batch = Batch(
            id=f"batch_{uuid.uuid4().hex}",
            wire="openai",
            workspace=call.workspace,
            status="validating",
            created_at=call.now,
            expires_at=call.now + settings.batch_window,
            duration=duration_of(fault, settings.batch_takes, settings.batch_window),
            endpoint=body["endpoint"],
            input_file=file.number,
            input_name=file.id,
            metadata=metadata,
            output_life=life,
            doomed=(fault.message or "") if fault is not None and fault.kind == "fail_batch" else None,
        )
        return openai_batch_object(connection, add_batch(connection, batch))

    return web.json_response(await call.state.batches.write(create), headers=call.headers())


def _named(connection: sqlite3.Connection, call: BatchRequest) -> Batch:
    """The batch that the path names."""
    name = call.request.match_info["name"]
    batch = batch_named(connection, name, workspace=call.workspace, wire="openai")
    if batch is None:
        raise _invalid(f"No batch found with id '{name}'.", status=404)
    return batch


def _show(connection: sqlite3.Connection, call: BatchRequest) -> dict[str, Any]:
    return openai_batch_object(connection, _named(connection, call))


async def _retrieve(call: BatchRequest) -> web.StreamResponse:
    return web.json_response(await call.state.batches.read(partial(_show, call=call)), headers=call.headers())


def _stop(connection: sqlite3.Connection, call: BatchRequest) -> dict[str, Any]:
    batch = _named(connection, call)
    if batch.status in ("finalizing", "completed", "failed", "expired"):
        raise _invalid(f"Cannot cancel a batch with status '{batch.status}'.", status=409)
    if batch.status not in ("cancelling", "cancelled"):
        batch.status, batch.cancelling_at = "cancelling", call.now
        save_batch(connection, batch)
    return openai_batch_object(connection, batch)


async def _cancel(call: BatchRequest) -> web.StreamResponse:
    return web.json_response(await call.state.batches.write(partial(_stop, call=call)), headers=call.headers())


async def _list(call: BatchRequest) -> web.StreamResponse:
    query = call.request.query
    limit = page_limit(query.get("limit"), default=20, most=100)

    def find(connection: sqlite3.Connection) -> list[dict[str, Any]]:
        after = None
        if "after" in query:
            cursor = batch_named(connection, query["after"], workspace=call.workspace, wire="openai")
            if cursor is None:
                raise _invalid(f"No batch found with id '{query['after']}'.", "after")
            after = cursor.number
        found = listed_batches(
            connection,
            workspace=call.workspace,
            wire="openai",
            created_by=call.hidden_after(),
            older_than=after,
            limit=limit + 1,
        )
        return [openai_batch_object(connection, batch) for batch in found]

    found = await call.state.batches.read(find)
    shown = found[:limit]
    return web.json_response(
        {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(found) > limit,
        },
        headers=call.headers(),
    )


routes = (
    web.post("/v1/batches", batch_route("openai", "batches.create", _create)),
    web.get("/v1/batches", batch_route("openai", "batches.list", _list)),
    web.get("/v1/batches/{name}", batch_route("openai", "batches.retrieve", _retrieve)),
    web.post("/v1/batches/{name}/cancel", batch_route("openai", "batches.cancel", _cancel)),
)
