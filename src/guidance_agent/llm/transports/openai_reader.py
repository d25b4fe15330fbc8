"""The chunks of an OpenAI-style Chat Completions stream, and the usage and finish reasons of that format.

An answer is complete with a finish reason and then `[DONE]`; compatible servers that leave `[DONE]` out are believed
when they gave a finish reason and their body ended cleanly. Text is that of choice 0. A refusal is shown as text and
finishes with `refusal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guidance_agent.errors import StreamTruncated
from guidance_agent.llm.messages import Delta, FinishReason, ToolCallDelta, Usage
from guidance_agent.llm.transports.batch import DeltaBatch, count, load_object, mend
from guidance_agent.llm.transports.failures import Origin, malformed, mid_stream_error

__all__ = ["OpenAIReader", "openai_finish_reason", "openai_usage", "reasoning_field"]

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class OpenAIReader:
    """Turns the chunks of one stream into deltas."""

    def __init__(self, origin: Origin) -> None:
        self.batch = DeltaBatch()
        self.ended = False
        self._origin = origin
        self._reasons: dict[int, FinishReason] = {}
        self._refused = False
        self._tools: dict[tuple[int, object], int] = {}

    def read(self, payloads: Sequence[str]) -> None:
        """Add what `payloads` say to the batch.

        Raises:
            MidStreamError: at an error object.
            MalformedResponseError: at a chunk that does not follow the format.
            StreamTruncated: at `[DONE]` without a finish reason.
        """
        for payload in payloads:
            if self.ended:
                return
            if payload == "[DONE]":
                self.end_of_body()
                return
            try:
                self._chunk(load_object(payload))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                stripped = payload.strip()
                if not stripped:
                    continue
                if stripped == "[DONE]":
                    self.end_of_body()
                    return
                what = f"has a chunk that begins with {payload[:200]!r} ({type(error).__name__}: {error})"
                raise malformed(self._origin, what) from error

    def end_of_body(self) -> None:
        """Finish the answer, or raise `StreamTruncated` when there was no finish reason."""
        if not self._reasons:
            raise StreamTruncated(
                f"The stream of {self._origin.provider} for {self._origin.model!r} ended without a finish reason. "
                "The text so far is kept; ask again for a whole answer.",
                provider=self._origin.provider,
                model=self._origin.model,
                request_id=self._origin.request_id,
            )
        self.ended = True
        self.batch.add(Delta(finish_reason=self._reason(), pieces=0))

    def _reason(self) -> FinishReason:
        if self._refused:
            return "refusal"
        if self._tools and "tool_calls" in self._reasons.values():
            return "tool_calls"
        return self._reasons[0] if 0 in self._reasons else next(iter(self._reasons.values()))

    def _chunk(self, chunk: dict[str, Any]) -> None:
        for choice in chunk.get("choices") or ():
            number = choice.get("index") or 0
            if type(number) is not int:
                number = count(number) or 0
            delta = choice.get("delta")
            if delta:
                if number == 0 and len(delta) == 1 and type(text := delta.get("content")) is str:
                    # Nearly every chunk is one piece of text and nothing else.
                    if text:
                        self.batch.add_text(text)
                else:
                    self._delta(delta, number)
            reason = choice.get("finish_reason")
            if reason:
                self._reasons[number] = openai_finish_reason(reason)
        usage = chunk.get("usage")
        if usage is None and "x_groq" in chunk:
            usage = (chunk["x_groq"] or {}).get("usage")
        if isinstance(usage, dict):
            known = openai_usage(usage)
            if known is not None:
                self.batch.add(Delta(usage=known, pieces=0))
        # Last, because a chunk that reports an error may report what was used until then.
        if chunk.get("error"):
            raise mid_stream_error(self._origin, chunk["error"])

    def _delta(self, delta: dict[str, Any], choice: int) -> None:
        if choice == 0:
            if reasoning := reasoning_field(delta):
                self.batch.add_reasoning(reasoning)
            if text := delta.get("content"):
                self.batch.add_text(_text_of(text))
            if refusal := delta.get("refusal"):
                self._refused = True
                self.batch.add_text(_string(refusal))
        for call in delta.get("tool_calls") or ():
            self._tool_call(call, choice)

    def _tool_call(self, call: dict[str, Any], choice: int) -> None:
        key = (choice, call.get("index"))
        if key[1] is None:
            # Without an index, a piece with an id begins a call, and one without continues the last.
            key = (choice, call.get("id") or next(reversed(self._tools), (choice, 0))[1])
        number = self._tools.setdefault(key, len(self._tools))
        function = call.get("function") or {}
        self.batch.add(
            Delta(
                tool_call=ToolCallDelta(
                    number,
                    id=call.get("id") or None,
                    name=function.get("name") or None,
                    arguments=mend(_string(function.get("arguments") or "")),
                )
            )
        )


def reasoning_field(message: Mapping[str, Any]) -> str | None:
    """Return the reasoning that a compatible server puts beside the text, under either of the two names in use."""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return reasoning if isinstance(reasoning, str) else None


def openai_finish_reason(reason: object) -> FinishReason:
    """Return the finish reason in our words; `other` for one that is not known."""
    return _FINISH_REASONS.get(reason, "other") if isinstance(reason, str) else "other"


def openai_usage(usage: Mapping[str, Any]) -> Usage | None:
    """Return the usage that a provider's `usage` object means; None when it holds no counts.

    `prompt_tokens` includes what was read from and written to the cache.
    """
    prompt = count(usage.get("prompt_tokens"))
    output = count(usage.get("completion_tokens"))
    if prompt is None and output is None:
        return None
    details = _object(usage.get("prompt_tokens_details"))
    read = count(details.get("cached_tokens"))
    if read is None:
        read = count(usage.get("prompt_cache_hit_tokens"))
    written = count(details.get("cache_write_tokens")) or 0
    reasoning = count(_object(usage.get("completion_tokens_details")).get("reasoning_tokens")) or 0
    prompt_known = prompt or 0
    read = min(read or 0, prompt_known)
    written = min(written, prompt_known - read)
    return Usage(
        input_tokens=prompt_known - read - written,
        cache_read_tokens=read,
        cache_write_5m_tokens=written,
        output_tokens=output or 0,
        reasoning_tokens=min(reasoning, output or 0),
        estimated=prompt is None or output is None,
    )


def _text_of(content: object) -> str:
    """Return the text of a content that is a string, or a list of typed parts as some servers send it."""
    if isinstance(content, list):
        return "".join(_string(part.get("text") or "") for part in content if part.get("type") == "text")
    return _string(content)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, got {type(value).__name__}")
    return value
