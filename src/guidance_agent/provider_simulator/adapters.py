"""The two wire formats behind one small interface, so that one exchange serves both."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.answer import Answer
from guidance_agent.provider_simulator.frames import Frame
from guidance_agent.provider_simulator.models import Wire
from guidance_agent.provider_simulator.pacing import Pace
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.read_anthropic import read_messages_request
from guidance_agent.provider_simulator.read_openai import read_chat_request
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.wire_anthropic import (
    error_event,
    message_body,
    message_frames,
    message_start_event,
)
from guidance_agent.provider_simulator.wire_errors import ProviderError
from guidance_agent.provider_simulator.wire_openai import chat_body, chat_frames, chat_usage, error_data

__all__ = ["ANTHROPIC", "OPENAI", "Adapter", "api_key", "make_id"]

_ID_LETTERS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def make_id(prefix: str, length: int, rng: random.Random) -> str:
    return prefix + "".join(rng.choices(_ID_LETTERS, k=length))


def api_key(wire: Wire, headers: Mapping[str, str]) -> str | None:
    """The key that came with a request; None when there was none. It also names the workspace."""
    if wire == "anthropic" and headers.get("x-api-key"):
        return headers["x-api-key"]
    bearer = headers.get("authorization", "")
    return bearer[7:].strip() or None if bearer.lower().startswith("bearer ") else None


class Adapter(Protocol):
    """What differs between the wires in one request for an answer."""

    wire: Wire
    operation: str
    chunk_tokens: int
    request_id_header: str

    def request_id(self, rng: random.Random) -> str: ...

    def read(self, body: Mapping[str, Any], settings: SimulatorSettings) -> Prompt: ...

    def frames(
        self,
        prompt: Prompt,
        answer: Answer,
        use: CacheUse,
        pace: Pace,
        *,
        now: float,
        rng: random.Random,
        extra_ping_rate: float,
    ) -> Iterator[Frame]: ...

    def body(
        self, prompt: Prompt, answer: Answer, use: CacheUse, *, now: float, rng: random.Random
    ) -> dict[str, Any]: ...

    def usage(self, prompt: Prompt, answer: Answer, use: CacheUse) -> dict[str, Any]: ...

    def stream_error(self, error: ProviderError, request_id: str) -> bytes: ...

    def other_start(self, prompt: Prompt, use: CacheUse, rng: random.Random) -> bytes:
        """The opening of another stream, for a spliced one."""


class _AnthropicAdapter:
    wire: Wire = "anthropic"
    operation = "anthropic.messages"
    chunk_tokens = 4
    request_id_header = "request-id"

    def request_id(self, rng: random.Random) -> str:
        return make_id("req_011C", 20, rng)

    def read(self, body: Mapping[str, Any], settings: SimulatorSettings) -> Prompt:
        return read_messages_request(body, settings)

    def frames(
        self,
        prompt: Prompt,
        answer: Answer,
        use: CacheUse,
        pace: Pace,
        *,
        now: float,
        rng: random.Random,
        extra_ping_rate: float,
    ) -> Iterator[Frame]:
        return message_frames(
            prompt,
            answer,
            use,
            pace,
            message_id=make_id("msg_01", 22, rng),
            rng=rng,
            extra_ping_rate=extra_ping_rate,
        )

    def body(self, prompt: Prompt, answer: Answer, use: CacheUse, *, now: float, rng: random.Random) -> dict[str, Any]:
        return message_body(prompt, answer, use, message_id=make_id("msg_01", 22, rng), rng=rng)

    def usage(self, prompt: Prompt, answer: Answer, use: CacheUse) -> dict[str, Any]:
        return {
            "input_tokens": use.uncached,
            "cache_read_input_tokens": use.read,
            "cache_creation_input_tokens": use.written,
            "cache_creation": {
                "ephemeral_5m_input_tokens": use.written_5m,
                "ephemeral_1h_input_tokens": use.written_1h,
            },
            "output_tokens": answer.output_tokens,
        }

    def stream_error(self, error: ProviderError, request_id: str) -> bytes:
        return error_event(error, request_id)

    def other_start(self, prompt: Prompt, use: CacheUse, rng: random.Random) -> bytes:
        return message_start_event(prompt, use, make_id("msg_01", 22, rng), rng)


class _OpenAIAdapter:
    wire: Wire = "openai"
    operation = "openai.chat.completions"
    chunk_tokens = 1
    request_id_header = "x-request-id"

    def request_id(self, rng: random.Random) -> str:
        return f"req_{rng.getrandbits(128):032x}"

    def read(self, body: Mapping[str, Any], settings: SimulatorSettings) -> Prompt:
        return read_chat_request(body, settings)

    def frames(
        self,
        prompt: Prompt,
        answer: Answer,
        use: CacheUse,
        pace: Pace,
        *,
        now: float,
        rng: random.Random,
        extra_ping_rate: float,
    ) -> Iterator[Frame]:
        return chat_frames(
            prompt, answer, use, pace, completion_id=make_id("chatcmpl-", 29, rng), created=int(now), rng=rng
        )

    def body(self, prompt: Prompt, answer: Answer, use: CacheUse, *, now: float, rng: random.Random) -> dict[str, Any]:
        return chat_body(prompt, answer, use, completion_id=make_id("chatcmpl-", 29, rng), created=int(now), rng=rng)

    def usage(self, prompt: Prompt, answer: Answer, use: CacheUse) -> dict[str, Any]:
        return chat_usage(prompt, answer, use)

    def stream_error(self, error: ProviderError, request_id: str) -> bytes:
        return error_data(error)

    def other_start(self, prompt: Prompt, use: CacheUse, rng: random.Random) -> bytes:
        empty = Answer(pieces=(), text_tokens=0)
        return next(iter(self.frames(prompt, empty, use, Pace(), now=0, rng=rng, extra_ping_rate=0))).data


ANTHROPIC: Adapter = _AnthropicAdapter()
OPENAI: Adapter = _OpenAIAdapter()
