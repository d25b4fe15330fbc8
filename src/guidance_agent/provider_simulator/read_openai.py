"""Reads and validates a Chat Completions request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guidance_agent.provider_simulator.models import ModelSpec, resolve_model
from guidance_agent.provider_simulator.prompt import Block, Prompt, ToolWish, block_of_json, block_of_text
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.wire_errors import ProviderError

__all__ = ["read_chat_request", "resolve_or_404"]

_TRAILING_TOKENS = 3
_MESSAGE_TOKENS = 3
_TOOL_TOKENS = 8
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")


def _invalid(message: str, param: str | None = None, code: str | None = None) -> ProviderError:
    return ProviderError(400, "invalid_request_error", message, param=param, code=code)


def read_chat_request(body: Mapping[str, Any], settings: SimulatorSettings) -> Prompt:
    """The prompt of a Chat Completions request; raises `ProviderError` as the provider would answer."""
    model = resolve_or_404(body, settings)
    if model.dimensions:
        raise ProviderError(
            404, "invalid_request_error", "This is not a chat model.", param="model", code="model_not_found"
        )
    messages = _messages(body)
    tools = _tools(body)
    blocks = (*_tool_blocks(body.get("tools") or []), *_message_blocks(messages))
    schema, json_object = _response_format(body)
    prompt = Prompt(
        model=model,
        blocks=blocks,
        trailing_tokens=_TRAILING_TOKENS,
        system=tuple(_joined(m) for m in messages if m["role"] in ("system", "developer")),
        conversation=tuple((m["role"], _joined(m)) for m in messages if m["role"] not in ("system", "developer")),
        max_tokens=_max_tokens(body, model),
        stream=bool(body.get("stream", False)),
        stop=_stop(body),
        schema=schema,
        json_object=json_object,
        tools=tools,
        thinking=body.get("reasoning_effort") not in (None, "none", "minimal"),
        salts={"tools": json.dumps(body.get("response_format"), sort_keys=True).encode()},
        options={
            "include_usage": bool((body.get("stream_options") or {}).get("include_usage")),
            "cache_key": str(body.get("prompt_cache_key") or ""),
            "cache_mode": _cache_mode(body, model),
            "cache_ttl": str((body.get("prompt_cache_options") or {}).get("ttl", "30m")),
            "cache_retention": str(body.get("prompt_cache_retention") or ""),
        },
    )
    wanted = prompt.input_tokens
    if wanted > model.context_window:
        raise _invalid(
            f"This model's maximum context length is {model.context_window} tokens. However, your messages resulted "
            f"in {wanted} tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )
    return prompt


def resolve_or_404(body: Mapping[str, Any], settings: SimulatorSettings) -> ModelSpec:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise _invalid("you must provide a model parameter")
    model = resolve_model(name, "openai", settings)
    if model is None:
        raise ProviderError(
            404,
            "invalid_request_error",
            f"The model `{name}` does not exist or you do not have access to it.",
            code="model_not_found",
        )
    return model


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    raw = body.get("messages")
    if raw is None:
        raise _invalid("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    if not isinstance(raw, list):
        raise _invalid("Invalid type for 'messages': expected an array of objects.", "messages", "invalid_type")
    if not raw:
        raise _invalid(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            "messages",
            "empty_array",
        )
    for index, message in enumerate(raw):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            supported = ", ".join(f"'{known}'" for known in _ROLES)
            raise _invalid(
                f"Invalid value: '{role}'. Supported values are: {supported}.",
                f"messages[{index}].role",
                "invalid_value",
            )
        content = message.get("content")
        if content is None and role != "assistant":
            raise _invalid("Invalid value for 'content': expected a string, got null.", f"messages.[{index}].content")
        if not isinstance(content, str | list | None):
            raise _invalid(
                f"Invalid type for 'messages[{index}].content': expected one of a string or array of objects.",
                f"messages[{index}].content",
                "invalid_type",
            )
    return raw


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return list(content or [])


def _joined(message: Mapping[str, Any]) -> str:
    return "\n\n".join(str(part.get("text", "")) for part in _parts(message) if part.get("type") == "text")


def _tool_blocks(tools: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    for tool in tools:
        yield block_of_json(tool, section="tools", marker=b"tool", overhead=_TOOL_TOKENS)


def _message_blocks(messages: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    for message in messages:
        role = str(message["role"])
        marker = role.encode()
        pieces: list[dict[str, Any]] = _parts(message)
        if message.get("tool_calls"):
            pieces.append({"type": "tool_calls", "tool_calls": message["tool_calls"]})
        if not pieces:
            pieces = [{"type": "text", "text": ""}]
        for index, part in enumerate(pieces):
            fields: dict[str, Any] = {
                "section": "messages",
                "marker": marker,
                "overhead": _MESSAGE_TOKENS if index == 0 else 0,
                "breakpoint": _breakpoint(part),
                "ends_turn": role in ("user", "tool") and index == len(pieces) - 1,
            }
            if part.get("type") == "text":
                yield block_of_text(str(part.get("text", "")), **fields)
            else:
                bare = {key: value for key, value in part.items() if key != "prompt_cache_breakpoint"}
                yield block_of_json(bare, **fields)


def _breakpoint(part: Mapping[str, Any]) -> str | None:
    mark = part.get("prompt_cache_breakpoint")
    if mark is None:
        return None
    if not isinstance(mark, dict) or mark.get("mode") != "explicit":
        raise _invalid(
            "Invalid value for 'prompt_cache_breakpoint.mode': expected 'explicit'.", "prompt_cache_breakpoint"
        )
    return "30m"


def _cache_mode(body: Mapping[str, Any], model: ModelSpec) -> str:
    options = body.get("prompt_cache_options")
    if options is None:
        return "implicit"
    if model.regime != "openai_breakpoints":
        raise _invalid(
            "Unsupported parameter: 'prompt_cache_options' is not supported with this model.",
            "prompt_cache_options",
            "unsupported_parameter",
        )
    mode = options.get("mode", "implicit")
    if mode not in ("implicit", "explicit"):
        raise _invalid(
            f"Invalid value: '{mode}'. Supported values are: 'implicit' and 'explicit'.",
            "prompt_cache_options.mode",
            "invalid_value",
        )
    if options.get("ttl", "30m") not in ("30m", "12h"):
        raise _invalid(
            f"Invalid value: '{options['ttl']}'. Supported values are: '30m'.",
            "prompt_cache_options.ttl",
            "invalid_value",
        )
    return str(mode)


def _max_tokens(body: Mapping[str, Any], model: ModelSpec) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _invalid(
                f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead.",
                name,
                "integer_below_min_value",
            )
        if value > model.max_output:
            raise _invalid(
                f"{name} is too large: {value}. This model supports at most {model.max_output} completion tokens.",
                name,
            )
        return value
    return model.max_output


def _stop(body: Mapping[str, Any]) -> tuple[str, ...]:
    stop = body.get("stop")
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _tools(body: Mapping[str, Any]) -> tuple[ToolWish, ...]:
    choice = body.get("tool_choice")
    forced = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    wishes = []
    for index, tool in enumerate(body.get("tools") or []):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not function.get("name"):
            raise _invalid(
                f"Missing required parameter: 'tools[{index}].function.name'.",
                f"tools[{index}].function.name",
                "missing_required_parameter",
            )
        must = function["name"] == forced or (choice == "required" and index == 0)
        wishes.append(ToolWish(name=function["name"], schema=function.get("parameters") or {}, forced=must))
    return tuple(wishes)


def _response_format(body: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, bool]:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_object":
        return None, True
    if wanted.get("type") != "json_schema":
        return None, False
    schema = (wanted.get("json_schema") or {}).get("schema")
    if not isinstance(schema, dict):
        raise _invalid(
            "Missing required parameter: 'response_format.json_schema.schema'.",
            "response_format.json_schema.schema",
            "missing_required_parameter",
        )
    return schema, False
