"""Request bodies of the Anthropic Messages format. Pure: the same call gives the same bytes."""

from __future__ import annotations

import json
from typing import Any

from guidance_agent.llm.messages import Message, ToolCall
from guidance_agent.llm.transports.base import PreparedCall

__all__ = ["build_anthropic_body"]


def build_anthropic_body(call: PreparedCall, *, stream: bool) -> dict[str, Any]:
    """Return the body for `POST /v1/messages`, or the `params` of a batch item when it is not streamed.

    Text always goes out as content blocks, marked or not: a prefix must look the same whether or not a breakpoint
    ends in it.
    """
    request = call.request
    marks = {point.index: point.ttl for point in call.plan.breakpoints}
    system: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    for index, message in enumerate(request.messages):
        blocks = _blocks(message)
        if blocks and index in marks:
            control = {"type": "ephemeral", "ttl": "1h"} if marks[index] == "1h" else {"type": "ephemeral"}
            blocks[-1]["cache_control"] = control
        if message.role == "system":
            system.extend(blocks)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"].extend(blocks)
        else:
            messages.append({"role": role, "content": blocks})
    body: dict[str, Any] = {"model": call.model_id, "max_tokens": request.max_tokens}
    if request.tools:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}
            for tool in request.tools
        ]
    if system:
        body["system"] = system
    body["messages"] = messages
    if request.temperature is not None and call.traits.accepts_temperature:
        body["temperature"] = request.temperature
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.response_schema is not None and call.traits.native_schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": dict(request.response_schema)}}
    if stream:
        body["stream"] = True
    return body


def _blocks(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_result", "tool_use_id": message.tool_call_id or "", "content": message.content}]
    # An empty text block is refused; an assistant message may hold tool calls alone.
    blocks: list[dict[str, Any]] = [{"type": "text", "text": message.content}] if message.content else []
    blocks.extend(
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call)} for call in message.tool_calls
    )
    return blocks


def _input(call: ToolCall) -> dict[str, Any]:
    try:
        value = json.loads(call.arguments)
    except ValueError:
        value = None
    # The format asks for an object; a model that wrote something else is shown what it wrote.
    return value if isinstance(value, dict) else {"arguments": call.arguments}
