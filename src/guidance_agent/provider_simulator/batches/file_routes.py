"""OpenAI's files: upload, list, look at, download, delete."""

from __future__ import annotations

import re
import sqlite3
from functools import partial
from pathlib import PurePath

from aiohttp import BodyPartReader, web

from guidance_agent.provider_simulator.batches.download import send_file
from guidance_agent.provider_simulator.batches.files import (
    StoredFile,
    append_bytes,
    delete_file,
    file_named,
    file_number,
    listed_files,
    new_file,
    publish_file,
)
from guidance_agent.provider_simulator.batches.rendering import file_object
from guidance_agent.provider_simulator.batches.route import BatchRequest, batch_route
from guidance_agent.provider_simulator.wire_errors import ProviderError

__all__ = ["page_limit", "routes", "seconds_to_live"]

_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_BATCH_LIFE = 30 * 86_400.0
_PIECE = 256 * 1024
_MOST_BYTES = 512 * 1024 * 1024
_EXPIRY = re.compile(r"expires_after\[(anchor|seconds)\]")


def _invalid(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> ProviderError:
    return ProviderError(status, "invalid_request_error", message, param=param, code=code)


def page_limit(raw: str | None, *, default: int, most: int) -> int:
    """The `limit` of a list request."""
    if raw is None:
        return default
    if not raw.isdigit() or not 1 <= int(raw) <= most:
        raise _invalid(f"Invalid 'limit': expected an integer between 1 and {most}, but got {raw} instead.", "limit")
    return int(raw)


def seconds_to_live(anchor: object, seconds: object, param: str) -> float:
    """How long a file is to be kept by an expiry policy."""
    if anchor != "created_at":
        raise _invalid(f"Invalid value for '{param}.anchor': expected 'created_at'.", f"{param}.anchor")
    if not isinstance(seconds, int) or not 3_600 <= seconds <= 2_592_000:
        message = f"Invalid value for '{param}.seconds': expected an integer between 3600 and 2592000."
        raise _invalid(message, f"{param}.seconds")
    return float(seconds)


async def _create(call: BatchRequest) -> web.StreamResponse:
    if call.request.content_type != "multipart/form-data":
        raise _invalid("The request must be multipart/form-data with the fields 'file' and 'purpose'.")
    number: int | None = None
    fields: dict[str, str] = {}
    try:
        async for part in await call.request.multipart():
            if not isinstance(part, BodyPartReader):
                raise _invalid("A part of the request must not be multipart itself.")
            if part.name == "file":
                number = await _receive(call, part)
            elif part.name is not None:
                fields[part.name] = await part.text()
        file = await _finish(call, number, fields)
    except ProviderError:
        if number is not None:
            await call.state.batches.add(partial(delete_file, number=number))
        raise
    call.record.body = file_object(file)
    return web.json_response(file_object(file), headers=call.headers())


async def _receive(call: BatchRequest, part: BodyPartReader) -> int:
    batches = call.state.batches
    filename = part.filename or "upload"
    number = await batches.add(
        partial(new_file, workspace=call.workspace, purpose="", filename=filename, now=call.now, life=None)
    )
    waiting = bytearray()
    received = 0
    while piece := await part.read_chunk(_PIECE):
        waiting += piece
        received += len(piece)
        if received > _MOST_BYTES:
            await batches.add(partial(delete_file, number=number))
            raise _invalid(f"The file is larger than the {_MOST_BYTES} bytes that are allowed.", "file", status=413)
        if len(waiting) >= _PIECE:
            await batches.add(partial(append_bytes, number=number, data=bytes(waiting)))
            waiting.clear()
    await batches.add(partial(append_bytes, number=number, data=bytes(waiting)))
    return number


async def _finish(call: BatchRequest, number: int | None, fields: dict[str, str]) -> StoredFile:
    purpose = fields.get("purpose")
    for name, value in (("file", number), ("purpose", purpose)):
        if value is None or value == "":
            raise _invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if purpose not in _PURPOSES:
        supported = ", ".join(f"'{known}'" for known in _PURPOSES)
        raise _invalid(f"'{purpose}' is not one of [{supported}] - 'purpose'")
    life = _BATCH_LIFE if purpose == "batch" else None
    policy = {match[1]: value for name, value in fields.items() if (match := _EXPIRY.fullmatch(name))}
    if policy:
        seconds = policy.get("seconds", "")
        life = seconds_to_live(policy.get("anchor"), int(seconds) if seconds.isdigit() else None, "expires_after")

    def publish(connection: sqlite3.Connection) -> StoredFile:
        connection.execute("UPDATE files SET purpose = ? WHERE number = ?", (purpose, number))
        publish_file(connection, number or 0, now=call.now, life=life)
        file = file_number(connection, number or 0)
        if file is None:
            raise _invalid("The upload was interrupted. Please try again.", "file")
        if purpose == "batch" and PurePath(file.filename).suffix not in ("", ".jsonl"):
            raise _invalid("Invalid file format for Batch API. Must be .jsonl")
        return file

    return await call.state.batches.add(publish)


async def _named(call: BatchRequest) -> StoredFile:
    """The file that the path names."""
    name = call.request.match_info["name"]
    file = await call.state.batches.read(partial(file_named, name=name, workspace=call.workspace, now=call.now))
    if file is None:
        raise _invalid(f"No such File object: {name}", "id", status=404)
    return file


async def _retrieve(call: BatchRequest) -> web.StreamResponse:
    return web.json_response(file_object(await _named(call)), headers=call.headers())


async def _content(call: BatchRequest) -> web.StreamResponse:
    return await send_file(call, await _named(call), content_type="application/octet-stream")


async def _delete(call: BatchRequest) -> web.StreamResponse:
    file = await _named(call)
    await call.state.batches.write(partial(delete_file, number=file.number))
    return web.json_response({"object": "file", "id": file.id, "deleted": True}, headers=call.headers())


async def _list(call: BatchRequest) -> web.StreamResponse:
    query = call.request.query
    limit = page_limit(query.get("limit"), default=10_000, most=10_000)
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise _invalid(f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.", "order", "invalid_value")

    def find(connection: sqlite3.Connection) -> list[StoredFile]:
        after = None
        if "after" in query:
            cursor = file_named(connection, query["after"], workspace=call.workspace, now=call.now)
            if cursor is None:
                raise _invalid(f"No such File object: {query['after']}", "after")
            after = cursor.number
        return listed_files(
            connection,
            workspace=call.workspace,
            now=call.now,
            purpose=query.get("purpose"),
            after=after,
            newest_first=order == "desc",
            limit=limit + 1,
            before=call.hidden_after(),
        )

    found = await call.state.batches.read(find)
    shown = [file_object(file) for file in found[:limit]]
    return web.json_response(
        {
            "object": "list",
            "data": shown,
            "has_more": len(found) > limit,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
        },
        headers=call.headers(),
    )


routes = (
    web.post("/v1/files", batch_route("openai", "files.create", _create)),
    web.get("/v1/files", batch_route("openai", "files.list", _list)),
    web.get("/v1/files/{name}", batch_route("openai", "files.retrieve", _retrieve)),
    web.delete("/v1/files/{name}", batch_route("openai", "files.delete", _delete)),
    web.get("/v1/files/{name}/content", batch_route("openai", "files.content", _content)),
)
