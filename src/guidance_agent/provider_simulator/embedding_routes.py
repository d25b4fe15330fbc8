"""OpenAI's embeddings endpoint."""

from __future__ import annotations

import asyncio
import json
from array import array
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from guidance_agent.provider_simulator.adapters import OPENAI
from guidance_agent.provider_simulator.admission import read_json, require_key
from guidance_agent.provider_simulator.clock import sleep_until
from guidance_agent.provider_simulator.embedding_vectors import embed_text
from guidance_agent.provider_simulator.exchange import fault_before_answer
from guidance_agent.provider_simulator.faults import seeded
from guidance_agent.provider_simulator.models import ModelSpec
from guidance_agent.provider_simulator.read_openai import resolve_or_404
from guidance_agent.provider_simulator.request_log import RequestRecord
from guidance_agent.provider_simulator.state import STATE, SimulatorState
from guidance_agent.provider_simulator.tokens import count_tokens
from guidance_agent.provider_simulator.wire_errors import ProviderError, error_body

__all__ = ["routes"]

_MOST_INPUTS = 2_048
_MOST_TOKENS = 300_000


def _invalid(message: str, param: str) -> ProviderError:
    return ProviderError(400, "invalid_request_error", message, param=param)


def _inputs(body: Mapping[str, Any]) -> list[str]:
    raw = body.get("input")
    texts = [raw] if isinstance(raw, str) else raw
    if isinstance(texts, list) and texts and all(isinstance(number, int) for number in texts):
        texts = [texts]
    if not isinstance(texts, list) or not texts or len(texts) > _MOST_INPUTS:
        raise _invalid(f"'$.input' is invalid. Expected a string or an array of 1 to {_MOST_INPUTS} strings.", "input")
    # Token numbers have no text here: they stand for themselves.
    words = [text if isinstance(text, str) else " ".join(map(str, text)) for text in texts]
    if not all(words):
        raise _invalid("'$.input' is invalid: an input must not be an empty string.", "input")
    return words


def _dimensions(body: Mapping[str, Any], model: ModelSpec) -> int:
    wanted = body.get("dimensions", model.dimensions)
    if not isinstance(wanted, int) or not 1 <= wanted <= model.dimensions:
        raise _invalid(
            f"Invalid value for 'dimensions' = {wanted}. Must be between 1 and {model.dimensions}.", "dimensions"
        )
    return wanted


def _encoded(vector: Sequence[float], encoding: str) -> list[float] | str:
    if encoding == "base64":
        return b64encode(array("f", vector).tobytes()).decode()
    return [round(x, 9) for x in vector]


def _vectors(texts: Sequence[str], dimensions: int, encoding: str) -> list[list[float] | str]:
    return [_encoded(embed_text(text, dimensions), encoding) for text in texts]


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
    model = resolve_or_404(body, state.settings)
    if not model.dimensions:
        raise ProviderError(403, "invalid_request_error", f"{model.name} is not an embedding model.")
    texts = _inputs(body)
    counts = [count_tokens(text) for text in texts]
    if max(counts) > model.context_window:
        raise _invalid(
            f"This model's maximum context length is {model.context_window} tokens, however you requested "
            f"{max(counts)} tokens. Please reduce your prompt.",
            "input",
        )
    if sum(counts) > _MOST_TOKENS:
        raise _invalid(f"Requested {sum(counts)} tokens, max {_MOST_TOKENS} tokens per request.", "input")
    dimensions = _dimensions(body, model)
    encoding = str(body.get("encoding_format", "float"))
    vectors = await asyncio.to_thread(_vectors, texts, dimensions, encoding)
    if not state.settings.zero_latency:
        profile = state.settings.latency[model.pace]
        wait = profile.time_to_first_token(uncached=sum(counts), cached=0)
        await sleep_until(state.clock, record.received_at + wait)
    record.usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    record.status = 200
    headers = state.limits.headers(model, workspace=key, now=state.clock.now())
    return web.json_response(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ],
            "model": model.name,
            "usage": record.usage,
        },
        headers={**headers, "x-request-id": record.request_id, "openai-version": "2020-10-01"},
    )


routes = (web.post("/v1/embeddings", _embeddings),)
