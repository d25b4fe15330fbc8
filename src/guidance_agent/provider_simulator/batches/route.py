"""One request about files or batches: its key, its limits, what goes wrong with it on request, and its answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

from aiohttp import web

from guidance_agent.provider_simulator.adapters import ANTHROPIC, OPENAI
from guidance_agent.provider_simulator.admission import require_key
from guidance_agent.provider_simulator.batches.removal import remove_named
from guidance_agent.provider_simulator.clock import sleep_until
from guidance_agent.provider_simulator.delivery import drop_request
from guidance_agent.provider_simulator.exchange import fault_before_answer
from guidance_agent.provider_simulator.faults import ROUTE_FAULTS, Fault, fault_error, seeded
from guidance_agent.provider_simulator.models import Wire
from guidance_agent.provider_simulator.request_log import RequestRecord
from guidance_agent.provider_simulator.state import STATE, SimulatorState
from guidance_agent.provider_simulator.wire_errors import ProviderError, error_body

__all__ = ["BatchRequest", "Handler", "batch_route"]


@dataclass(slots=True, kw_only=True)
class BatchRequest:
    """What a handler needs. `workspace` stands for the key: another key sees other files and batches."""

    state: SimulatorState
    request: web.Request
    record: RequestRecord
    wire: Wire
    workspace: str
    fault: Fault | None
    rng: random.Random

    @property
    def now(self) -> float:
        return self.state.clock.now()

    def met(self, kind: str) -> bool:
        """Whether the request meets a fault of this kind."""
        return self.fault is not None and self.fault.kind == kind

    def headers(self) -> dict[str, str]:
        """The headers of every answer."""
        name = (ANTHROPIC if self.wire == "anthropic" else OPENAI).request_id_header
        limits = self.state.batch_limits.headers(self.wire, self.workspace, self.now)
        return {**limits, name: self.record.request_id}

    def hidden_after(self) -> float:
        """What was created after this moment is not listed: now, or earlier for a list that lags."""
        if not self.met("stale_list") or self.fault is None:
            return self.now
        return -float("inf") if self.fault.seconds is None else self.now - self.fault.seconds


Handler = Callable[[BatchRequest], Awaitable[web.StreamResponse]]


def batch_route(wire: Wire, operation: str, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The web handler for one operation, such as `batches.create`."""

    async def serve(request: web.Request) -> web.StreamResponse:
        state = request.app[STATE]
        record = state.open_record(request)
        record.operation = f"{wire}.{operation}"
        rng = seeded(state.settings.seed, "exchange", record.number)
        record.request_id = (ANTHROPIC if wire == "anthropic" else OPENAI).request_id(rng)
        try:
            response = await _answer(state, record, request, wire, handler, rng)
        except ProviderError as error:
            name = (ANTHROPIC if wire == "anthropic" else OPENAI).request_id_header
            response = web.json_response(
                error_body(wire, error, record.request_id),
                status=error.status,
                headers={**error.headers, name: record.request_id},
            )
        except (asyncio.CancelledError, ConnectionError):
            if not state.closing:
                record.client_left(state.clock.now())
            raise
        finally:
            record.ended_at = state.clock.now()
        record.status, record.finished = response.status, record.fault is None
        return response

    return serve


async def _answer(
    state: SimulatorState,
    record: RequestRecord,
    request: web.Request,
    wire: Wire,
    handler: Handler,
    rng: random.Random,
) -> web.StreamResponse:
    workspace = blake2b(require_key(wire, request.headers).encode(), digest_size=8).hexdigest()
    fault = state.faults.take(model="", path=request.path, operation=record.operation, body="", among=ROUTE_FAULTS)
    if fault is not None:
        early = await fault_before_answer(state, record, request, fault, wire)
        if early is not None:
            return early
        if fault.kind == "error_event":
            raise fault_error(fault, wire)
        if fault.kind == "gone" and (name := request.match_info.get("name")) is not None:
            await state.batches.write(partial(remove_named, name=name, now=state.clock.now()))
    state.batch_limits.admit(wire, workspace, state.clock.now())
    response = await handler(
        BatchRequest(state=state, request=request, record=record, wire=wire, workspace=workspace, fault=fault, rng=rng)
    )
    if fault is not None and isinstance(response, web.Response) and not response.prepared:
        await _break(state, record, request, fault, response)
    return response


async def _break(
    state: SimulatorState, record: RequestRecord, request: web.Request, fault: Fault, response: web.Response
) -> None:
    """What a fault does to an answer that is ready."""
    body = response.body if isinstance(response.body, bytes) else b""
    match fault.kind:
        case "answer_lost" | "drop":
            record.dropped = True
            await drop_request(request, abrupt=fault.abrupt)
        case "stall":
            seconds = float("inf") if fault.seconds is None else fault.seconds
            await sleep_until(state.clock, state.clock.now() + seconds)
        case "truncate":
            response.body = body[: len(body) // 2]
        case "garbage":
            response.body = b"<html>502 Bad Gateway</html>"
