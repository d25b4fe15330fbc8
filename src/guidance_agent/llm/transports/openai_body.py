"""Request bodies of the OpenAI Chat Completions format. Pure: the same call gives the same bytes."""

from __future__ import annotations

from typing import Any

from guidance_agent.llm.messages import Message
from guidance_agent.llm.transports.base import PreparedCall

__all__ = ["build_openai_body"]


def build_openai_body(call: PreparedCall, *, stream: bool) -> dict[str, Any]:
    """Return the body for `POST /chat/completions`, or the `body` of a batch row when it is not streamed.

    Models with explicit breakpoints always get content as blocks, so that a prefix looks the same whether or not a
    breakpoint ends in it; all others get plain strings, which every compatible server reads.
    """
    request, plan = call.request, call.plan
    explicit = plan.caching == "explicit"
    marked = {point.index for point in plan.breakpoints} if explicit else set()
    body: dict[str, Any] = {
        "model": call.model_id,
        "messages": [
            _message(message, as_blocks=explicit, marked=index in marked)
            for index, message in enumerate(request.messages)
        ],
        call.traits.max_tokens_field: request.max_tokens,
    }
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                },
            }
            for tool in request.tools
        ]
    if request.temperature is not None and call.traits.accepts_temperature:
        body["temperature"] = request.temperature
    if request.stop:
        body["stop"] = list(request.stop)
    if request.response_schema is not None and call.traits.native_schema:
        schema = dict(request.response_schema)
        body["response_format"] = {
            "type": "json_schema",
            # Strict mode refuses a schema whose objects are open.
            "json_schema": {
                "name": "answer",
                "schema": schema,
                "strict": schema.get("additionalProperties") is False,
            },
        }
    if explicit:
        # Without this mode every new last message would be written at a surcharge and never read.
        body["prompt_cache_options"] = {"mode": "explicit", "ttl": "30m"}
    body.update(call.extra)
    if plan.cache_key is not None:
        body["prompt_cache_key"] = plan.cache_key
    if stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def _message(message: Message, *, as_blocks: bool, marked: bool) -> dict[str, Any]:
    content: str | list[dict[str, Any]] | None = message.content
    if as_blocks and message.content:
        block: dict[str, Any] = {"type": "text", "text": message.content}
        if marked:
            block["prompt_cache_breakpoint"] = {"mode": "explicit"}
        content = [block]
    result: dict[str, Any] = {"role": message.role, "content": content}
    if message.role == "tool":
        result["tool_call_id"] = message.tool_call_id or ""
    if message.tool_calls:
        result["content"] = content or None
        result["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return result
