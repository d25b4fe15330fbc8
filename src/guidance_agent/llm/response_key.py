"""The key of the response cache: the SHA-256 of everything that can change an answer.

The request goes in field by field as its class lists them, so that a field that is added later is in the key from its
first day. Beside it stands what was decided about the call: where and as whom it goes, by which transport, what the
profile believes of the model, and the cache plan. Lists and tables keep their order: the order of a schema's properties
is the order in which a model writes them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from guidance_agent.llm.transports.base import PreparedCall

__all__ = ["NOT_IN_KEY", "response_key"]

NOT_IN_KEY = frozenset({"metadata"})
"""Fields of a request that never reach the provider: ids that only the call's record keeps."""


def response_key(call: PreparedCall, *, transport: str, release: str, simulated: bool) -> str:
    """Return the key under which the answer to `call` is kept.

    Args:
        call: The request with everything that was decided about it.
        transport: Name of the transport that would send it; two of them may word one request differently.
        release: Version of the package, because another one may build other bodies.
        simulated: Whether the answers of this configuration are simulated, so that the two kinds never meet.

    Raises:
        TypeError, ValueError: when the request holds what JSON cannot say.
    """
    request, endpoint, plan = call.request, call.endpoint, call.plan
    content = {
        "release": release,
        "simulated": simulated,
        "transport": transport,
        "provider": endpoint.provider,
        "base_url": endpoint.base_url,
        "wire": endpoint.wire,
        "api_key": endpoint.api_key,
        "headers": sorted(endpoint.headers.items()),
        "traits": _plain(call.traits),
        "extra": _plain(call.extra),
        "plan": [plan.enabled, plan.caching, plan.cache_key, _plain(plan.breakpoints)],
        "request": {
            field.name: _plain(getattr(request, field.name))
            for field in dataclasses.fields(request)
            if field.name not in NOT_IN_KEY
        },
    }
    canonical = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
