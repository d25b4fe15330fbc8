"""Sends a stored file, whole or as a fault wants it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from guidance_agent.provider_simulator.batches.files import StoredFile, piece_at
from guidance_agent.provider_simulator.batches.route import BatchRequest
from guidance_agent.provider_simulator.clock import sleep_until
from guidance_agent.provider_simulator.delivery import drop_request
from guidance_agent.provider_simulator.faults import Fault

__all__ = ["send_file"]

_BREAKS = frozenset({"truncate", "drop", "stall", "garbage", "unknown_row", "repeat_row"})
_NOBODYS = "unknown-request"


async def send_file(call: BatchRequest, file: StoredFile, *, content_type: str) -> web.StreamResponse:
    """Stream a file to the client, a stored piece at a time."""
    response = web.StreamResponse(headers={**call.headers(), "content-type": content_type})
    fault = call.fault if call.fault is not None and call.fault.kind in _BREAKS else None
    if fault is None:
        response.content_length = file.bytes
    else:
        response.enable_chunked_encoding()
    call.record.status = 200
    await response.prepare(call.request)
    call.record.first_byte_at = call.now
    pieces = _pieces(call, file) if fault is None else _broken(call, file, fault)
    async for piece in pieces:
        await response.write(piece)
        call.record.bytes_sent += len(piece)
    if call.met("answer_lost") and call.fault is not None:
        call.record.dropped = True
        await drop_request(call.request, abrupt=call.fault.abrupt)
    await response.write_eof()
    return response


async def _pieces(call: BatchRequest, file: StoredFile) -> AsyncIterator[bytes]:
    position = 0
    while position < file.bytes:
        piece = await call.state.batches.peek(partial(piece_at, number=file.number, position=position))
        if not piece:
            # The file was deleted while it was being sent; the client sees fewer bytes than were announced.
            return
        position += len(piece)
        yield piece


async def _rows(call: BatchRequest, file: StoredFile) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in _pieces(call, file):
        *rows, rest = (rest + piece).split(b"\n")
        for row in rows:
            yield row + b"\n"
    if rest:
        yield rest


async def _broken(call: BatchRequest, file: StoredFile, fault: Fault) -> AsyncIterator[bytes]:
    number = 0
    async for row in _rows(call, file):
        if number != fault.after_chunks:
            yield row
        else:
            match fault.kind:
                case "truncate":
                    yield row[: len(row) // 2]
                    return
                case "drop":
                    yield row[: len(row) // 2]
                    await sleep_until(call.state.clock, call.now + fault.pause)
                    call.record.dropped = True
                    await drop_request(call.request, abrupt=fault.abrupt)
                case "stall":
                    seconds = float("inf") if fault.seconds is None else fault.seconds
                    await sleep_until(call.state.clock, call.now + seconds)
                    yield row
                case "garbage":
                    yield row[: len(row) // 2].rstrip() + b"\n"
                case "unknown_row":
                    yield row
                    yield json.dumps({**json.loads(row), "custom_id": _NOBODYS}).encode() + b"\n"
                case _:
                    yield row
                    yield row
        number += 1
