"""The events of an Anthropic Messages stream, and the usage and stop reasons of that format.

Completeness is `message_stop` and nothing else. Thinking, redacted thinking and signatures are never text. Unknown
events, blocks and deltas are passed over, as the format's own versioning rules ask of a client.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guidance_agent.errors import StreamTruncated
from guidance_agent.llm.messages import Delta, FinishReason, ToolCallDelta, Usage
from guidance_agent.llm.transports.batch import LARGEST_COUNT, DeltaBatch, count, load_object, mend
from guidance_agent.llm.transports.failures import Origin, malformed, mid_stream_error

__all__ = ["AnthropicReader", "anthropic_finish_reason", "anthropic_usage"]

_FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refusal",
    "pause_turn": "pause",
}


class AnthropicReader:
    """Turns the events of one stream into deltas."""

    def __init__(self, origin: Origin) -> None:
        self.batch = DeltaBatch()
        self.ended = False
        self._origin = origin
        self._message_id: object = None
        self._shown = False
        self._usage: dict[str, Any] = {}
        self._tools: dict[object, int] = {}
        self._whole_inputs: dict[object, str] = {}

    def read(self, payloads: Sequence[str]) -> None:
        """Add what `payloads` say to the batch.

        Raises:
            MidStreamError: at an error event.
            MalformedResponseError: at an event that does not follow the format, or a second message after text.
        """
        for payload in payloads:
            if self.ended:
                return
            try:
                self._event(load_object(payload))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if not payload.strip():
                    continue
                what = f"has an event that begins with {payload[:200]!r} ({type(error).__name__}: {error})"
                raise malformed(self._origin, what) from error

    def end_of_body(self) -> None:
        """Raise `StreamTruncated`: only `message_stop` ends a message."""
        raise StreamTruncated(
            f"The stream of {self._origin.provider} for {self._origin.model!r} ended without its terminal event. "
            "The text so far is kept; ask again for a whole answer.",
            provider=self._origin.provider,
            model=self._origin.model,
            request_id=self._origin.request_id,
        )

    def _event(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            self._delta(event["delta"], event.get("index"))
        elif kind == "content_block_start":
            self._block(event["content_block"], event.get("index"))
        elif kind == "content_block_stop":
            whole = self._whole_inputs.pop(event.get("index"), None)
            if whole is not None:
                self.batch.add(Delta(tool_call=ToolCallDelta(self._tools[event.get("index")], arguments=whole)))
        elif kind == "message_start":
            self._start(event["message"])
        elif kind == "message_delta":
            self._message_delta(event)
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error" or (kind is None and "error" in event):
            raise mid_stream_error(self._origin, event.get("error"))

    def _delta(self, delta: dict[str, Any], index: object) -> None:
        kind = delta["type"]
        if kind == "text_delta":
            self._text(delta["text"])
        elif kind == "thinking_delta":
            self._thinking(delta["thinking"])
        elif kind == "input_json_delta" and index in self._tools:
            self._whole_inputs.pop(index, None)
            piece = _string(delta["partial_json"])
            self.batch.add(Delta(tool_call=ToolCallDelta(self._tools[index], arguments=mend(piece))))

    def _block(self, block: dict[str, Any], index: object) -> None:
        kind = block["type"]
        if kind == "text":
            self._text(block.get("text") or "")
        elif kind == "thinking":
            self._thinking(block.get("thinking") or "")
        elif kind == "tool_use":
            number = self._tools[index] = len(self._tools)
            call = ToolCallDelta(number, id=_string(block["id"]), name=_string(block["name"]))
            self.batch.add(Delta(tool_call=call))
            if block.get("input"):
                self._whole_inputs[index] = json.dumps(block["input"])

    def _text(self, text: object) -> None:
        piece = _string(text)
        if piece:
            self._shown = True
            self.batch.add_text(piece)

    def _thinking(self, text: object) -> None:
        piece = _string(text)
        if piece:
            self.batch.add_reasoning(piece)

    def _start(self, message: dict[str, Any]) -> None:
        message_id = message.get("id")
        if self._message_id is not None and message_id != self._message_id:
            if self._shown:
                raise malformed(self._origin, "began a second message after text of the first")
            # Nothing of the first message was shown, so that the second may simply take its place.
            self._tools.clear()
            self._whole_inputs.clear()
            self._usage.clear()
        elif self._message_id is not None:
            return
        self._message_id = message_id
        usage = message.get("usage")
        if isinstance(usage, dict):
            self._usage.update(usage)
            self.batch.add(Delta(usage=anthropic_usage(self._usage, estimated=True), pieces=0))

    def _message_delta(self, event: dict[str, Any]) -> None:
        usage = event.get("usage")
        known = None
        if isinstance(usage, dict):
            # The totals here are cumulative; how the writes split between the lifetimes stands in the first event only.
            final = {name: value for name, value in usage.items() if value is not None and name != "cache_creation"}
            self._usage.update(final)
            known = anthropic_usage(self._usage, estimated=count(usage.get("output_tokens")) is None)
        reason = _object(event.get("delta")).get("stop_reason")
        self.batch.add(Delta(finish_reason=anthropic_finish_reason(reason) if reason else None, usage=known, pieces=0))


def anthropic_finish_reason(reason: object) -> FinishReason:
    """Return the finish reason that `stop_reason` means; `other` for one that is not known."""
    return _FINISH_REASONS.get(reason, "other") if isinstance(reason, str) else "other"


def anthropic_usage(usage: Mapping[str, Any], *, estimated: bool = False) -> Usage:
    """Return the usage that a provider's `usage` object means.

    `iterations` lists what an answer with compaction or a server-side fallback is billed for; the top level then shows
    the last one only. Writes beyond the 1-hour ones count as 5-minute writes.
    """
    iterations = usage.get("iterations")
    parts = [part for part in iterations if isinstance(part, dict)] if isinstance(iterations, list) else []
    each = [_usage_of_one(part, estimated=estimated) for part in parts]
    if not each:
        return _usage_of_one(usage, estimated=estimated)
    return Usage(
        input_tokens=_total(part.input_tokens for part in each),
        cache_read_tokens=_total(part.cache_read_tokens for part in each),
        cache_write_5m_tokens=_total(part.cache_write_5m_tokens for part in each),
        cache_write_1h_tokens=_total(part.cache_write_1h_tokens for part in each),
        output_tokens=_total(part.output_tokens for part in each),
        reasoning_tokens=_total(part.reasoning_tokens for part in each),
        estimated=estimated,
    )


def _total(counts: Iterable[int]) -> int:
    return min(sum(counts), LARGEST_COUNT)


def _usage_of_one(usage: Mapping[str, Any], *, estimated: bool) -> Usage:
    nested = _object(usage.get("cache_creation"))
    written_1h = count(nested.get("ephemeral_1h_input_tokens")) or 0
    written_5m = count(nested.get("ephemeral_5m_input_tokens")) or 0
    written = count(usage.get("cache_creation_input_tokens"))
    if written is None:
        written = written_1h + written_5m
    written_1h = min(written_1h, written)
    output = count(usage.get("output_tokens")) or 0
    thinking = count(_object(usage.get("output_tokens_details")).get("thinking_tokens")) or 0
    return Usage(
        input_tokens=count(usage.get("input_tokens")) or 0,
        cache_read_tokens=count(usage.get("cache_read_input_tokens")) or 0,
        cache_write_5m_tokens=written - written_1h,
        cache_write_1h_tokens=written_1h,
        output_tokens=output,
        reasoning_tokens=min(thinking, output),
        estimated=estimated or count(usage.get("output_tokens")) is None or count(usage.get("input_tokens")) is None,
    )


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, got {type(value).__name__}")
    return value
