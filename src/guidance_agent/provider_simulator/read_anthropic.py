"""Reads and validates a Messages request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from guidance_agent.provider_simulator.models import ModelSpec, resolve_model
from guidance_agent.provider_simulator.prompt import Block, Prompt, Section, ToolWish, block_of_json, block_of_text
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.wire_errors import ProviderError

__all__ = ["read_messages_request"]

_TRAILING_TOKENS = 4
_ROLE_TOKENS = 3
_TOOL_TOKENS = 6
_OF_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
_NO_BOUNDS = {
    "integer": _OF_NUMBERS,
    "number": _OF_NUMBERS,
    "string": frozenset({"minLength", "maxLength"}),
    "array": frozenset({"maxItems", "uniqueItems"}),
}
_RUNS = {"tool_use": "tool_use", "tool_result": "tool_result"}


def _invalid(message: str) -> ProviderError:
    return ProviderError(400, "invalid_request_error", message, headers={"x-should-retry": "false"})


def read_messages_request(body: Mapping[str, Any], settings: SimulatorSettings) -> Prompt:
    """The prompt of a Messages request; raises `ProviderError` as the provider would answer."""
    model = _model(body, settings)
    max_tokens = _max_tokens(body, model)
    messages = _messages(body)
    system = _as_blocks(body.get("system") or [], "system")
    tools = _tools(body)
    blocks = [
        *_tool_blocks(body.get("tools") or []),
        *_content_blocks(system, "system", b"system", "system"),
        *_message_blocks(messages),
    ]
    if not any(block.section == "messages" for block in blocks):
        raise _invalid("messages: text content blocks must be non-empty")
    _mark_automatic(body, blocks)
    _check_breakpoints(blocks)
    thinking = body.get("thinking") or {}
    wants_thinking = thinking.get("type") in ("enabled", "adaptive")
    prompt = Prompt(
        model=model,
        blocks=tuple(blocks),
        trailing_tokens=_TRAILING_TOKENS,
        system=tuple(_text(block) for block in system),
        conversation=tuple((message["role"], _joined(message["content"])) for message in messages),
        max_tokens=max_tokens,
        stream=bool(body.get("stream", False)),
        stop=tuple(body.get("stop_sequences") or ()),
        schema=_schema(body),
        tools=tools,
        thinking=wants_thinking,
        salts=_salts(body, wants_thinking),
        options={"diagnostics": body.get("diagnostics")},
    )
    if prompt.input_tokens > model.context_window:
        raise _invalid(f"prompt is too long: {prompt.input_tokens} tokens > {model.context_window} maximum")
    if max_tokens == 0 and (prompt.stream or wants_thinking or any(tool.forced for tool in tools)):
        raise _invalid("max_tokens: must be at least 1 when streaming, with thinking or with a forced tool")
    return prompt


def _model(body: Mapping[str, Any], settings: SimulatorSettings) -> ModelSpec:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise _invalid("model: Field required")
    model = resolve_model(name, "anthropic", settings)
    if model is None:
        raise ProviderError(404, "not_found_error", f"model: {name}", headers={"x-should-retry": "false"})
    return model


def _max_tokens(body: Mapping[str, Any], model: ModelSpec) -> int:
    value = body.get("max_tokens")
    if value is None:
        raise _invalid("max_tokens: Field required")
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _invalid("max_tokens: Input should be a valid integer greater than or equal to 0")
    if value > model.max_output:
        raise _invalid(
            f"max_tokens: {value} > {model.max_output}, which is the maximum allowed number of output tokens "
            f"for {model.name}"
        )
    return value


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    raw = body.get("messages")
    if raw is None:
        raise _invalid("messages: Field required")
    if not isinstance(raw, list):
        raise _invalid("messages: Input should be a valid array")
    if not raw:
        raise _invalid("messages: at least one message is required")
    messages = []
    for index, message in enumerate(raw):
        if not isinstance(message, dict) or "content" not in message:
            raise _invalid(f"messages.{index}: Input does not match the expected shape.")
        role = message.get("role")
        if role == "system":
            raise _invalid(
                'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
                'not "system" as an input message role.'
            )
        if role not in ("user", "assistant"):
            raise _invalid(f"messages.{index}.role: Input should be 'user' or 'assistant'")
        content = _as_blocks(message["content"], f"messages.{index}.content")
        last = index == len(raw) - 1
        if not content and not (last and role == "assistant"):
            raise _invalid(
                f"messages.{index}: all messages must have non-empty content except for the optional final "
                "assistant message"
            )
        messages.append({"role": role, "content": content})
    if messages[0]["role"] != "user":
        raise _invalid('messages: first message must use the "user" role')
    return messages


def _as_blocks(content: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list) or not all(isinstance(b, dict) and "type" in b for b in content):
        raise _invalid(f"{where}: Input should be a valid string or an array of content blocks")
    for index, block in enumerate(content):
        if block["type"] == "text":
            if not isinstance(block.get("text"), str):
                raise _invalid(f"{where}.{index}.text: Field required")
            if not block["text"]:
                if "cache_control" in block:
                    raise _invalid(f"{where}.{index}.text: cache_control cannot be set for empty text blocks")
                raise _invalid(f"{where.split('.')[0]}: text content blocks must be non-empty")
    return content


def _ttl(block: Mapping[str, Any], where: str) -> str | None:
    control = block.get("cache_control")
    if control is None:
        return None
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise _invalid(f"{where}.cache_control.type: Input should be 'ephemeral'")
    ttl = control.get("ttl", "5m")
    if ttl not in ("5m", "1h"):
        raise _invalid(f"{where}.cache_control.ttl: Input should be '5m' or '1h'")
    return str(ttl)


def _without_control(block: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in block.items() if key != "cache_control"}


def _tool_blocks(tools: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    for index, tool in enumerate(tools):
        yield block_of_json(
            _without_control(tool),
            section="tools",
            marker=b"tool",
            overhead=_TOOL_TOKENS,
            breakpoint=_ttl(tool, f"tools.{index}"),
        )


def _content_blocks(
    content: Sequence[Mapping[str, Any]], section: Section, marker: bytes, where: str
) -> Iterator[Block]:
    for index, block in enumerate(content):
        ttl = _ttl(block, f"{where}.{index}")
        overhead = _ROLE_TOKENS if index == 0 and section == "messages" else 0
        if block["type"] == "text":
            yield block_of_text(block["text"], section=section, marker=marker, overhead=overhead, breakpoint=ttl)
            continue
        if ttl is not None and block["type"] in ("thinking", "redacted_thinking"):
            raise _invalid(f"{where}.{index}.cache_control: Extra inputs are not permitted")
        yield block_of_json(
            _without_control(block),
            section=section,
            marker=marker,
            overhead=overhead,
            breakpoint=ttl,
            run=_RUNS.get(block["type"], ""),
        )


def _message_blocks(messages: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    for index, message in enumerate(messages):
        marker = str(message["role"]).encode()
        yield from _content_blocks(message["content"], "messages", marker, f"messages.{index}.content")


def _mark_automatic(body: Mapping[str, Any], blocks: list[Block]) -> None:
    ttl = _ttl(body, "request")
    if ttl is None or not blocks or blocks[-1].breakpoint is not None:
        return
    last = blocks[-1]
    blocks[-1] = Block(
        section=last.section,
        measured=last.measured,
        marker=last.marker,
        overhead=last.overhead,
        breakpoint=ttl,
        run=last.run,
    )


def _check_breakpoints(blocks: Sequence[Block]) -> None:
    marked = [block.breakpoint for block in blocks if block.breakpoint is not None]
    if len(marked) > 4:
        raise _invalid(f"A maximum of 4 blocks with cache_control may be provided. Found {len(marked)}.")
    if "5m" in marked and "1h" in marked[marked.index("5m") :]:
        raise _invalid(
            "cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
            "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
        )


def _tools(body: Mapping[str, Any]) -> tuple[ToolWish, ...]:
    choice = body.get("tool_choice") or {}
    forced = choice.get("name") if choice.get("type") == "tool" else None
    any_forced = choice.get("type") == "any"
    wishes = []
    for index, tool in enumerate(body.get("tools") or []):
        if not isinstance(tool, dict) or not tool.get("name"):
            raise _invalid(f"tools.{index}.name: Field required")
        must = tool["name"] == forced or (any_forced and index == 0)
        wishes.append(ToolWish(name=tool["name"], schema=tool.get("input_schema") or {}, forced=must))
    if forced is not None and not any(wish.forced for wish in wishes):
        raise _invalid(f"Tool '{forced}' not found in provided tools")
    return tuple(wishes)


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return None
    schema = wanted.get("schema")
    if not isinstance(schema, dict):
        raise _invalid("output_config.format.schema: Field required")
    where = "output_config.format.schema" if body.get("output_config") else "output_format.schema"
    for bounded in _bounded_schemas(schema):
        raise _invalid(f"{where}: {bounded}")
    return schema


def _bounded_schemas(schema: Any) -> Iterator[str]:
    """What the provider says of the bounds in a schema that its grammars cannot hold."""
    if isinstance(schema, list):
        for part in schema:
            yield from _bounded_schemas(part)
    if not isinstance(schema, Mapping):
        return
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        found = sorted(_NO_BOUNDS.get(str(kind), frozenset()) & schema.keys())
        if len(found) == 1:
            yield f"For '{kind}' type, property '{found[0]}' is not supported"
        elif found:
            yield f"For '{kind}' type, properties {', '.join(found)} are not supported"
        if kind == "array" and schema.get("minItems", 0) not in (0, 1):
            yield "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            for inner in value.values():
                yield from _bounded_schemas(inner)
        elif key in ("items", "prefixItems", "anyOf", "oneOf", "allOf"):
            yield from _bounded_schemas(value)


def _salts(body: Mapping[str, Any], wants_thinking: bool) -> dict[Section, bytes]:
    output = body.get("output_config") or {}
    return {
        "tools": _digestible(output.get("format") or body.get("output_format")),
        "system": _digestible(body.get("speed")),
        "messages": _digestible([body.get("tool_choice"), wants_thinking, output.get("effort")]),
    }


def _digestible(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _text(block: Mapping[str, Any]) -> str:
    if block["type"] == "text":
        return str(block["text"])
    if block["type"] == "tool_result":
        content = block.get("content", "")
        return content if isinstance(content, str) else _joined(content)
    return ""


def _joined(content: Sequence[Mapping[str, Any]]) -> str:
    return "\n\n".join(text for text in map(_text, content) if text)
