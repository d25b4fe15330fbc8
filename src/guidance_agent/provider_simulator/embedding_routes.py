"""OpenAI's embeddings endpoint."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.adapters import OPENAI
from guidance_agent.provider_simulator.admission import read_json, require_key
from guidance_agent.provider_simulator.clock import sleep_until
from guidance_agent.provider_simulator.exchange import fault_before_answer
from guidance_agent.provider_simulator.faults import seeded
from guidance_agent.provider_simulator.read_embeddings import read_embeddings
from guidance_agent.provider_simulator.request_log import RequestRecord
from guidance_agent.provider_simulator.state import STATE, SimulatorState
from guidance_agent.provider_simulator.wire_errors import ProviderError, error_body

__all__ = ["routes"]


async def _embeddings(request: web.Request) -> web.StreamResponse:
    state = request.app[STATE]
    record = state.open_record(request)
    record.operation = "openai.embeddings"
    record.request_id = OPENAI.request_id(seeded(state.settings.seed, "exchange", record.number))
    try:
        response = await _answer(state, record, request)
    except ProviderError as error:
        record.status = error.status
        body = error_body("openai", error, record.request_id)
        headers = {**error.headers, "x-request-id": record.request_id}
        response = web.json_response(body, status=error.status, headers=headers)
    except (asyncio.CancelledError, ConnectionError):
        if not state.closing:
            record.client_left(state.clock.now())
        raise
    finally:
        record.ended_at = state.clock.now()
    record.finished = True
    return response


async def _answer(state: SimulatorState, record: RequestRecord, request: web.Request) -> web.StreamResponse:
    key = require_key("openai", request.headers)
    body = await read_json(request, "openai")
    record.model = str(body.get("model", ""))
    if state.settings.log_bodies:
        record.body = body
    fault = state.faults.take(
        model=record.model,
        path=request.path,
        operation=record.operation,
        body=json.dumps(body, ensure_ascii=False),
    )
    if fault is not None:
        early = await fault_before_answer(state, record, request, fault, "openai")
        if early is not None:
            return early
    job = read_embeddings(body, state.settings)
    answer = await asyncio.to_thread(job.body)
    if not state.settings.zero_latency:
        profile = state.settings.latency[job.model.pace]
        wait = profile.time_to_first_token(uncached=job.tokens, cached=0)
        await sleep_until(state.clock, record.received_at + wait)
    record.usage = answer["usage"]
    state.ledger.add(job.model.name, CacheUse(uncached=job.tokens), 0)
    record.status = 200
    headers = state.limits.headers(job.model, workspace=key, now=state.clock.now())
    return web.json_response(
        answer, headers={**headers, "x-request-id": record.request_id, "openai-version": "2020-10-01"}
    )


routes = (web.post("/v1/embeddings", _embeddings),)
