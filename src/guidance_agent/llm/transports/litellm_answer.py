"""What LiteLLM's answer objects mean in our words, corrected by what was on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from guidance_agent.llm.messages import ToolCall, Usage
from guidance_agent.llm.transports.base import RawCompletion
from guidance_agent.llm.transports.batch import mend
from guidance_agent.llm.transports.failures import Origin, malformed
from guidance_agent.llm.transports.litellm_wire import StreamWatch
from guidance_agent.llm.transports.openai_reader import openai_finish_reason, openai_usage

__all__ = ["RefusalWatch", "WireBody", "completion_of", "usage_of"]


class WireBody(Protocol):
    """What the stream needs of the tapped response body."""

    tail: bytes
    broken: Exception | None
    on_bytes: Callable[[], None] | None
    watch: StreamWatch | None
    ended: bool | None

    async def aclose(self) -> None: ...


class RefusalWatch:
    """The SDK's stream with refusals turned into text, as they are shown; LiteLLM would drop them."""

    def __init__(self, stream: Any) -> None:
        self.refused = False
        self._stream = stream

    def __aiter__(self) -> RefusalWatch:
        return self

    async def __anext__(self) -> Any:
        chunk = await self._stream.__anext__()
        for choice in chunk.choices or ():
            refusal = getattr(choice.delta, "refusal", None)
            if refusal:
                self.refused = True
                choice.delta.content = (choice.delta.content or "") + refusal
                choice.delta.refusal = None
        return chunk

    async def aclose(self) -> None:
        await self._stream.close()


def completion_of(response: Any, origin: Origin, headers: Mapping[str, str]) -> RawCompletion:
    """Return a whole answer as LiteLLM's `ModelResponse` holds it.

    Raises:
        MalformedResponseError: when it holds no answer.
    """
    if not response.choices:
        raise malformed(origin, "has no choices")
    choice = response.choices[0]
    message = choice.message
    refusal = (getattr(message, "provider_specific_fields", None) or {}).get("refusal")
    if not choice.finish_reason:
        raise malformed(origin, "has no finish reason")
    return RawCompletion(
        text=mend((message.content or "") + (refusal or "")),
        finish_reason="refusal" if refusal else openai_finish_reason(choice.finish_reason),
        usage=usage_of(getattr(response, "usage", None)),
        reasoning=mend(getattr(message, "reasoning_content", None) or ""),
        tool_calls=tuple(
            ToolCall(call.id or "", call.function.name or "", mend(call.function.arguments or "{}"))
            for call in message.tool_calls or ()
        ),
        headers=headers,
        request_id=origin.request_id,
    )


def usage_of(usage: Any) -> Usage | None:
    """Return LiteLLM's usage in our words; its prompt tokens include cache reads and writes for every provider."""
    if usage is None:
        return None
    known = openai_usage(usage.model_dump())
    details = getattr(usage, "prompt_tokens_details", None)
    split = getattr(details, "cache_creation_token_details", None)
    one_hour = getattr(split, "ephemeral_1h_input_tokens", None) or 0
    if known is None or not one_hour:
        return known
    one_hour = min(one_hour, known.cache_write_5m_tokens)
    return replace(known, cache_write_5m_tokens=known.cache_write_5m_tokens - one_hour, cache_write_1h_tokens=one_hour)
