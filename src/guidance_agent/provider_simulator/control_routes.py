"""The control plane under `/_simulator/`: what a test in another process reads and sets."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from guidance_agent.provider_simulator import SIMULATOR_VERSION
from guidance_agent.provider_simulator.clock import ManualClock
from guidance_agent.provider_simulator.faults import Fault
from guidance_agent.provider_simulator.state import STATE

__all__ = ["routes"]

_FAULTS: TypeAdapter[list[Fault]] = TypeAdapter(list[Fault])


def _refused(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)


async def _health(request: web.Request) -> web.Response:
    state = request.app[STATE]
    return web.json_response(
        {
            "status": "ok",
            "version": SIMULATOR_VERSION,
            "simulated": True,
            "now": state.clock.now(),
            "requests": len(state.log),
            "cache_entries": state.caches.size,
        }
    )


async def _requests(request: web.Request) -> web.Response:
    state = request.app[STATE]
    after = request.query.get("after", "0")
    if not after.isdigit():
        return _refused(f"after must be the number of a request, got {after!r}; leave it out to get all")
    shown = [record.as_json() for record in state.log if record.number > int(after)]
    return web.json_response({"requests": shown})


async def _clear_requests(request: web.Request) -> web.Response:
    request.app[STATE].log.clear()
    return web.json_response({"requests": []})


async def _faults(request: web.Request) -> web.Response:
    return _shown_faults(request)


async def _add_faults(request: web.Request) -> web.Response:
    try:
        body = await request.json()
        faults = _FAULTS.validate_python(body if isinstance(body, list) else [body])
    except (json.JSONDecodeError, ValidationError) as error:
        return _refused(f"not a fault or a list of faults: {error}")
    request.app[STATE].faults.add(*faults)
    return _shown_faults(request)


async def _clear_faults(request: web.Request) -> web.Response:
    request.app[STATE].faults.clear()
    return _shown_faults(request)


def _shown_faults(request: web.Request) -> web.Response:
    pending = [fault.model_dump(mode="json") for fault in request.app[STATE].faults]
    return web.json_response({"faults": pending})


async def _clock(request: web.Request) -> web.Response:
    clock = request.app[STATE].clock
    try:
        body: Any = await request.json()
    except json.JSONDecodeError as error:
        return _refused(f'expected {{"advance": seconds}}, got no JSON: {error}')
    seconds = body.get("advance") if isinstance(body, dict) else None
    if not isinstance(seconds, int | float) or seconds < 0:
        return _refused(f'expected {{"advance": seconds}} with a number of at least 0, got {body!r}')
    if not isinstance(clock, ManualClock):
        return _refused("the clock is the system's; start the simulator with a manual clock to move it")
    clock.advance(seconds)
    await request.app[STATE].batches.settle()
    return web.json_response({"now": clock.now()})


async def _clear_cache(request: web.Request) -> web.Response:
    request.app[STATE].caches.clear()
    return web.json_response({"cache_entries": 0})


routes = (
    web.get("/_simulator/health", _health),
    web.get("/_simulator/requests", _requests),
    web.delete("/_simulator/requests", _clear_requests),
    web.get("/_simulator/faults", _faults),
    web.post("/_simulator/faults", _add_faults),
    web.delete("/_simulator/faults", _clear_faults),
    web.post("/_simulator/clock", _clock),
    web.delete("/_simulator/cache", _clear_cache),
)
