"""Routes of both wires that ask a model something, and the lists of models."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from guidance_agent.provider_simulator.adapters import ANTHROPIC, OPENAI, make_id
from guidance_agent.provider_simulator.admission import require_key
from guidance_agent.provider_simulator.exchange import Exchange
from guidance_agent.provider_simulator.faults import seeded
from guidance_agent.provider_simulator.models import ModelSpec, Wire, known_models, resolve_model
from guidance_agent.provider_simulator.state import STATE
from guidance_agent.provider_simulator.wire_errors import ProviderError, error_body

__all__ = ["routes"]

_LISTED_AT = "2026-01-01T00:00:00Z"
_LISTED_AT_SECONDS = 1_767_225_600


async def _messages(request: web.Request) -> web.StreamResponse:
    return await Exchange(request.app[STATE], ANTHROPIC, request).serve()


async def _chat_completions(request: web.Request) -> web.StreamResponse:
    return await Exchange(request.app[STATE], OPENAI, request).serve()


def _wire_of(request: web.Request) -> Wire:
    if "x-api-key" in request.headers or "anthropic-version" in request.headers:
        return "anthropic"
    return "openai"


def _shown(spec: ModelSpec) -> dict[str, Any]:
    if spec.wire == "anthropic":
        return {"type": "model", "id": spec.name, "display_name": spec.name, "created_at": _LISTED_AT}
    return {"id": spec.name, "object": "model", "created": _LISTED_AT_SECONDS, "owned_by": "system"}


async def _models(request: web.Request) -> web.StreamResponse:
    return await _answer_about_models(request, None)


async def _model(request: web.Request) -> web.StreamResponse:
    return await _answer_about_models(request, request.match_info["name"])


async def _answer_about_models(request: web.Request, name: str | None) -> web.StreamResponse:
    state = request.app[STATE]
    wire = _wire_of(request)
    record = state.open_record(request)
    record.operation = f"{wire}.models"
    request_id = make_id("req_", 24, seeded(state.settings.seed, "exchange", record.number))
    record.request_id = request_id
    status, body = 200, None
    try:
        require_key(wire, request.headers)
        if name is None:
            body = _listed([_shown(spec) for spec in known_models(wire, state.settings)], wire)
        else:
            spec = resolve_model(name, wire, state.settings)
            if spec is None:
                raise _unknown(name, wire)
            body = _shown(spec)
    except ProviderError as error:
        status, body = error.status, error_body(wire, error, request_id)
    record.status, record.finished, record.ended_at = status, True, state.clock.now()
    header = "request-id" if wire == "anthropic" else "x-request-id"
    return web.json_response(body, status=status, headers={header: request_id})


def _listed(data: list[dict[str, Any]], wire: Wire) -> dict[str, Any]:
    if wire == "openai":
        return {"object": "list", "data": data}
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
    return {"data": data, "has_more": False, **ends}


def _unknown(name: str, wire: Wire) -> ProviderError:
    if wire == "anthropic":
        return ProviderError(404, "not_found_error", f"model: {name}")
    message = f"The model '{name}' does not exist"
    return ProviderError(404, "invalid_request_error", message, param="model", code="model_not_found")


routes = (
    web.post("/v1/messages", _messages),
    web.post("/v1/chat/completions", _chat_completions),
    web.get("/v1/models", _models),
    web.get("/v1/models/{name:.+}", _model),
)
