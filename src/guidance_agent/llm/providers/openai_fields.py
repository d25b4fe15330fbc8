"""What the options of a provider add to a request in the OpenAI wire format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.providers.base import ModelTraits

__all__ = ["openai_extra_fields"]


class _WithOptions(Protocol):
    @property
    def options(self) -> Mapping[str, Any]: ...

    def traits(self, model: str) -> ModelTraits: ...


def openai_extra_fields(profile: _WithOptions, request: ModelRequest) -> Mapping[str, Any]:
    """Return the fields of the options `seed` and `json_mode`.

    JSON mode is for a request that wants a schema to which the model cannot be held: it then answers in some JSON, and
    the prompt says in which.
    """
    made: dict[str, Any] = {}
    if (seed := profile.options.get("seed")) is not None:
        made["seed"] = seed
    wants_json = profile.options.get("json_mode") and request.response_schema is not None
    if wants_json and not profile.traits(request.model.partition("/")[2]).native_schema:
        made["response_format"] = {"type": "json_object"}
    return made
