"""The first checks of a request: its key, and that its body is JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from guidance_agent.provider_simulator.adapters import api_key
from guidance_agent.provider_simulator.models import Wire
from guidance_agent.provider_simulator.wire_errors import ProviderError, standard_error

__all__ = ["read_json", "require_key"]


def require_key(wire: Wire, headers: Mapping[str, str]) -> str:
    """The key of a request; raises the provider's 401 without one, and for `invalid` and `wrong…`."""
    key = api_key(wire, headers)
    if key is None and wire == "openai":
        raise ProviderError(
            401,
            "invalid_request_error",
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from "
            "https://platform.openai.com/account/api-keys.",
        )
    if key is None:
        raise ProviderError(
            401, "authentication_error", "x-api-key header is required", headers={"x-should-retry": "false"}
        )
    if key == "invalid" or key.startswith("wrong"):
        error = standard_error(wire, 401)
        if wire == "openai":
            error.message = error.message.replace("provided.", f"provided: {_masked(key)}.", 1)
        raise error
    return key


def _masked(key: str) -> str:
    return key if len(key) < 12 else f"{key[:8]}{'*' * (len(key) - 12)}{key[-4:]}"


async def read_json(request: web.Request, wire: Wire) -> dict[str, Any]:
    raw = await request.read()
    try:
        body = json.loads(raw)
    except ValueError as error:
        message = (
            f"The request body is not valid JSON: {error}"
            if wire == "anthropic"
            else "We could not parse the JSON body of your request. The API expects a JSON payload."
        )
        raise ProviderError(400, "invalid_request_error", message) from error
    if not isinstance(body, dict):
        raise ProviderError(400, "invalid_request_error", "The request body must be a JSON object.")
    return body
