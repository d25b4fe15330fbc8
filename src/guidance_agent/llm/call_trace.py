"""One model call as a span, opened where every call passes, so that none can go around it.

The span begins with the call's record and ends with it. It holds what was sent, what was released to the caller as far
as it will be shown, and the figures of the record; each attempt is an event.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from guidance_agent.errors import StreamTruncated
from guidance_agent.llm.messages import Message, ModelCall, ModelRequest, ToolCall, Usage
from guidance_agent.tracing import attributes as names
from guidance_agent.tracing.span import LONGEST_KEPT, Attributes, Outcome, Span, Value
from guidance_agent.tracing.tracer import Tracing

__all__ = ["CallTrace", "call_attributes"]

_FIRST_SHOWN, _SHOWN = 8, 64
"""Of a long conversation the beginning, where the stable parts are, and the end are shown."""
_TEXTS_SHOWN = 16
_CHAT: Final = "chat"


class CallTrace:
    """The span of one call, and what is collected for it while the call runs."""

    def __init__(self, tracing: Tracing, request: ModelRequest) -> None:
        above = tracing.current_span
        operation = request.operation
        is_embedding = operation in names.OPERATION_KINDS
        self.span: Span = tracing.span(operation, "EMBEDDING" if is_embedding else "LLM")
        self._tracing = tracing
        self._above = above
        self._request = request
        self._is_embedding = is_embedding
        self._pieces: list[str] = []
        self._room = LONGEST_KEPT + 1 if self.span.is_recording else 0
        self._length = 0
        self._reasoning: list[str] = []
        self._reasoning_room = self._room
        self._tool_calls: Sequence[ToolCall] = ()
        self._streams = False

    def streams(self) -> None:
        """Note that the answer is streamed."""
        self._streams = True

    def texts(self, texts: Sequence[str]) -> None:
        """Note what is embedded."""
        if not self.span.is_recording:
            return
        shown = {names.embedded_text(number): text for number, text in enumerate(texts[:_TEXTS_SHOWN])}
        self.span.set({**shown, names.EMBEDDING_TEXTS: len(texts)})

    def attempt(self, number: int, *, model: str, provider: str, transport: str) -> None:
        """Note that the call is about to be sent."""
        if self.span.is_recording:
            self.span.event(
                names.ATTEMPT,
                {
                    names.ATTEMPT_NUMBER: number,
                    names.GEN_AI_REQUEST_MODEL: model,
                    names.GEN_AI_PROVIDER_NAME: provider,
                    names.TRANSPORT: transport,
                },
            )

    def attempt_failed(self, number: int, error: BaseException, wait: float | None) -> None:
        """Note that an attempt failed, and after how many seconds there is another; None for none at this model."""
        if self.span.is_recording:
            self.span.event(
                names.ATTEMPT_FAILED,
                {
                    names.ATTEMPT_NUMBER: number,
                    names.EXCEPTION_TYPE: type(error).__name__,
                    names.EXCEPTION_MESSAGE: str(error),
                    names.ATTEMPT_WAIT: wait,
                },
            )

    def released(self, text: str, reasoning: str) -> None:
        """Note what goes to the caller."""
        if text:
            self._length += len(text)
            if self._room > 0:
                self._pieces.append(text[: self._room])
                self._room -= len(text)
        if reasoning and self._reasoning_room > 0:
            self._reasoning.append(reasoning[: self._reasoning_room])
            self._reasoning_room -= len(reasoning)

    def called_tools(self, calls: Sequence[ToolCall]) -> None:
        """Note the tools that the model asked for."""
        self._tool_calls = calls

    def finish(self, call: ModelCall, error: BaseException | None) -> None:
        """End the span with the call's record."""
        span = self.span
        if not span.is_recording:
            return
        try:
            span.set(self._of_request())
            span.set(self._of_answer())
            span.set(call_attributes(call, streams=self._streams, is_embedding=self._is_embedding))
        except Exception as fault:  # the call's record goes on, whatever is wrong with its span
            self._tracing.fault(fault)
        if error is not None and call.outcome.startswith("error:"):
            span.fail(error)
        span.end(outcome=self._outcome(call, error))

    def _outcome(self, call: ModelCall, error: BaseException | None) -> Outcome:
        if isinstance(error, StreamTruncated):
            return "truncated"
        if call.outcome.startswith("error:"):
            return "failed"
        if call.outcome == "cancelled":
            # The turn cancels its reading when its caller leaves; to the customer that is leaving early.
            return "closed_early" if self._above.left else "cancelled"
        return "completed" if call.outcome == "completed" else "closed_early"

    def _of_request(self) -> Attributes:
        request = self._request
        made: dict[str, Value] = {}
        for number, message in enumerate(_shown(request.messages)):
            made[names.input_message(number, names.MESSAGE_ROLE)] = message.role
            made[names.input_message(number, names.MESSAGE_CONTENT)] = message.content
            if message.tool_calls:
                _add_tool_calls(made, names.input_message(number, ""), message.tool_calls)
        if len(request.messages) > _SHOWN:
            made[names.MESSAGES_LEFT_OUT] = len(request.messages) - _SHOWN
        if not self._is_embedding:
            made.update(_invocation_parameters(request))
        if request.messages:
            made[names.INPUT_VALUE] = request.messages[-1].content
            made[names.INPUT_MIME_TYPE] = names.TEXT
        return made

    def _of_answer(self) -> Attributes:
        made: dict[str, Value] = {}
        text = "".join(self._pieces)
        if text or self._tool_calls or self._reasoning:
            made[names.output_message(0, names.MESSAGE_ROLE)] = "assistant"
            made[names.output_message(0, names.MESSAGE_CONTENT)] = text
            if self._tool_calls:
                _add_tool_calls(made, names.output_message(0, ""), self._tool_calls)
            made[names.OUTPUT_VALUE] = text
            made[names.OUTPUT_MIME_TYPE] = names.TEXT
            made[names.OUTPUT_CHARACTERS] = self._length
        if self._reasoning:
            made[names.MODEL_REASONING] = "".join(self._reasoning)
        return made


def _shown(messages: Sequence[Message]) -> Sequence[Message]:
    if len(messages) <= _SHOWN:
        return messages
    return (*messages[:_FIRST_SHOWN], *messages[_FIRST_SHOWN - _SHOWN :])


def _add_tool_calls(made: dict[str, Value], prefix: str, calls: Sequence[ToolCall]) -> None:
    for number, call in enumerate(calls):
        place = f"{prefix}{names.MESSAGE_TOOL_CALLS}.{number}."
        made[place + names.TOOL_CALL_ID] = call.id
        made[place + names.TOOL_CALL_NAME] = call.name
        made[place + names.TOOL_CALL_ARGUMENTS] = call.arguments


def call_attributes(call: ModelCall, *, streams: bool = False, is_embedding: bool = False) -> Attributes:
    """Return what a span says of a call, as its record has it."""
    timing, usage, cost = call.timing, call.usage, call.cost
    made: dict[str, Value] = {
        names.OPERATION: call.operation,
        names.CALL_ID: call.id,
        names.REQUESTED_MODEL: call.requested_model,
        names.TRANSPORT: call.transport or None,
        names.ATTEMPTS: call.attempts,
        names.RATE_LIMITED: call.rate_limited or None,
        names.LIMIT_WAIT: call.limit_wait or None,
        names.SIMULATED: call.simulated,
        names.TOTAL_SECONDS: timing.total,
        names.GEN_AI_OPERATION_NAME: "embeddings" if is_embedding else _CHAT,
        names.GEN_AI_PROVIDER_NAME: call.provider,
        names.GEN_AI_REQUEST_MODEL: _model_id(call.requested_model),
        names.GEN_AI_RESPONSE_MODEL: _model_id(call.model),
        names.GEN_AI_RESPONSE_ID: call.request_id,
    }
    if is_embedding:
        made[names.EMBEDDING_MODEL_NAME] = _model_id(call.model)
    else:
        made[names.LLM_MODEL_NAME] = _model_id(call.model)
        made[names.LLM_PROVIDER] = call.provider
        made[names.LLM_FINISH_REASON] = call.finish_reason
        made[names.GEN_AI_RESPONSE_FINISH_REASONS] = None if call.finish_reason is None else [call.finish_reason]
        made[names.GEN_AI_REQUEST_STREAM] = streams
        made[names.CACHE_OUTCOME] = call.cache_outcome
        made.update({names.CACHE_PART + part: use for part, use in call.cache_use.items()})
        if call.cache_outcome == "local_hit":
            made[names.RESPONSE_CACHE] = "hit"
    if streams:
        made[names.GEN_AI_TIME_TO_FIRST_CHUNK] = timing.first_token
        made[names.TIME_TO_FIRST_TOKEN] = timing.first_token
        made[names.CHUNKS] = timing.chunks
        made[names.TOKENS_PER_SECOND] = timing.tokens_per_second
    if usage is not None:
        made.update(_of_usage(usage))
    if cost is not None:
        made[names.COST_USD] = made[names.LLM_COST_TOTAL] = cost.usd
        made[names.COST_ESTIMATED] = cost.estimated or (usage is not None and usage.estimated)
        made[names.COST_SOURCE] = cost.prices.source or None
    for key, value in call.metadata.items():
        made[names.metadata(key)] = value
    if consultation_id := call.metadata.get("consultation_id"):
        made[names.SESSION_ID] = made[names.GEN_AI_CONVERSATION_ID] = consultation_id
    return made


def _of_usage(usage: Usage) -> Attributes:
    return {
        names.LLM_TOKENS_PROMPT: usage.total_input_tokens,
        names.LLM_TOKENS_COMPLETION: usage.output_tokens,
        names.LLM_TOKENS_TOTAL: usage.total_input_tokens + usage.output_tokens,
        names.LLM_TOKENS_CACHE_READ: usage.cache_read_tokens,
        names.LLM_TOKENS_CACHE_WRITE: usage.cache_write_tokens,
        names.LLM_TOKENS_REASONING: usage.reasoning_tokens,
        names.GEN_AI_INPUT_TOKENS: usage.total_input_tokens,
        names.GEN_AI_OUTPUT_TOKENS: usage.output_tokens,
        names.GEN_AI_CACHE_READ_TOKENS: usage.cache_read_tokens,
        names.GEN_AI_CACHE_WRITE_TOKENS: usage.cache_write_tokens,
        names.GEN_AI_REASONING_TOKENS: usage.reasoning_tokens,
        names.USAGE_ESTIMATED: usage.estimated,
    }


def _model_id(model: str) -> str:
    # As the provider and Phoenix's price table know it, without our prefix.
    return model.partition("/")[2] or model


def _invocation_parameters(request: ModelRequest) -> Attributes:
    asked = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stop": list(request.stop) or None,
    }
    return {
        names.LLM_INVOCATION_PARAMETERS: json.dumps({key: value for key, value in asked.items() if value is not None}),
        names.GEN_AI_REQUEST_MAX_TOKENS: request.max_tokens,
        names.GEN_AI_REQUEST_TEMPERATURE: request.temperature,
    }
