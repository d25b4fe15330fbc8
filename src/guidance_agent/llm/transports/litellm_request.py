"""What LiteLLM is asked for a call: its model name, its message form and its cache marks. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any, NamedTuple

from guidance_agent.errors import UnknownModelError
from guidance_agent.llm.providers.base import CachePlan, CacheTtl
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.llm.transports.litellm_wire import WireName
from guidance_agent.llm.transports.openai_body import build_openai_body

__all__ = ["Route", "chat_arguments", "common_arguments", "route_of"]

# LiteLLM's own HTTP code serves these and takes one kind of client; the OpenAI SDK serves the `SDK` ones and takes
# another. Everything else opens connections of its own.
_HTTP = frozenset(
    {
        "anthropic",
        "deepseek",
        "fireworks_ai",
        "gemini",
        "groq",
        "hosted_vllm",
        "mistral",
        "ollama",
        "ollama_chat",
        "openrouter",
        "together_ai",
        "xai",
    }
)
_SDK = frozenset({"openai"})
_OLLAMA = frozenset({"ollama", "ollama_chat"})
_OWN_INTERFACE = frozenset({"keep_alive", "num_ctx"})
# What the end of an answer looks like on the wire: LiteLLM gives some answers that are cut off a finish reason. Inside
# the answer's own words the quotation marks would be escaped.
_GEMINI_END = re.compile(rb'"finishReason"\s*:\s*"')
_OPENAI_STYLE_END = re.compile(rb'"finish_reason"\s*:\s*"')
_DECIDED = ("max_completion_tokens", "temperature", "stop", "tools", "response_format", "seed")
_NO_CACHE = CachePlan(caching="none")


class Route(NamedTuple):
    """The way through LiteLLM.

    Attributes:
        provider: LiteLLM's name of the provider.
        model: The model name that LiteLLM understands.
        api_base: The address.
        client: The kind of client that LiteLLM can be given.
        wire: The wire format of the answers, where it is one of ours.
        end: What the end of an answer in another format looks like, where that is known.
    """

    provider: str
    model: str
    api_base: str | None
    client: str | None
    wire: WireName | None
    end: re.Pattern[bytes] | None


def route_of(call: PreparedCall, known_providers: Collection[str]) -> Route:
    """Return how LiteLLM reaches the call's provider; one it does not know is reached by its wire format.

    Raises:
        UnknownModelError: when LiteLLM does not know the provider and no wire format is configured.
    """
    endpoint = call.endpoint
    provider = call.request.model.split("/", 1)[0]
    if provider not in known_providers:
        if endpoint.wire is None:
            raise UnknownModelError(
                f"LiteLLM has no provider {provider!r} for the model {call.request.model!r}. Use one of its model "
                f"names, or set `providers.{provider}.wire` and `providers.{provider}.base_url`."
            )
        provider = endpoint.wire
    if provider == "ollama" and call.extra.keys() & _OWN_INTERFACE:
        # The older of Ollama's two interfaces, which LiteLLM takes under this name, drops one of them.
        provider = "ollama_chat"
    base = endpoint.base_url
    if base is not None and provider in _OLLAMA:
        # Ours is the address of Ollama's OpenAI-style interface; LiteLLM speaks its own, one level up.
        base = base.removesuffix("/v1")
    client = "http" if provider in _HTTP else "sdk" if provider in _SDK and base is not None else None
    wire: WireName | None = None
    if provider in ("anthropic", "openai") and client is not None:
        wire = "anthropic" if provider == "anthropic" else "openai"
    end = None
    if wire is None and client == "http" and provider not in _OLLAMA:
        end = _GEMINI_END if provider == "gemini" else _OPENAI_STYLE_END
    return Route(provider, f"{provider}/{call.model_id}", base, client, wire, end)


def chat_arguments(call: PreparedCall, route: Route, *, stream: bool) -> dict[str, Any]:
    """Return the arguments of `acompletion` that carry the request itself.

    LiteLLM's message form is OpenAI's. Cache marks are Anthropic's `cache_control` for that provider, OpenAI's explicit
    breakpoints, options and key for OpenAI, and left out for everything else, which would refuse or resend them.
    """
    if route.provider not in ("anthropic", "openai"):
        call = replace(call, plan=_NO_CACHE)
    body = build_openai_body(call, stream=stream)
    body["model"] = route.model
    if route.provider == "anthropic":
        body.pop("prompt_cache_options", None)
        body.pop("prompt_cache_key", None)
        if (schema := body.pop("response_format", None)) is not None:
            # As a response format it would become a forced tool call for models that LiteLLM does not know.
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema["json_schema"]["schema"]}}
        ttls = {point.index: point.ttl for point in call.plan.breakpoints}
        for index, message in enumerate(body["messages"]):
            _mark(message, ttls.get(index))
    if route.provider == "openai":
        # What may be sent is decided by the model's traits; LiteLLM's own list would refuse it.
        body["allowed_openai_params"] = [name for name in _DECIDED if name in body]
    # The library looks for tools of the MCP protocol among ours, which needs a package that it does not install.
    body["_skip_mcp_handler"] = True
    return body


def common_arguments(call: PreparedCall, route: Route, *, seconds: float) -> dict[str, Any]:
    """Return the arguments that every call has: where, as whom, no retries, no cache and no callbacks of LiteLLM's."""
    return {
        "api_key": call.endpoint.api_key,
        "api_base": route.api_base,
        "extra_headers": dict(call.endpoint.headers) or None,
        "timeout": seconds,
        "max_retries": 0,
        "no-log": True,
        "cache": {"no-cache": True, "no-store": True},
    }


def _mark(message: dict[str, Any], ttl: CacheTtl | None) -> None:
    blocks = message["content"]
    if not isinstance(blocks, list):
        return
    blocks[-1].pop("prompt_cache_breakpoint", None)
    if ttl is not None:
        blocks[-1]["cache_control"] = {"type": "ephemeral", "ttl": "1h"} if ttl == "1h" else {"type": "ephemeral"}
