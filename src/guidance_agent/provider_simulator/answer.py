"""What a model says, before a wire format dresses it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from guidance_agent.provider_simulator.tokens import count_tokens, split_tokens

__all__ = ["Answer", "StopReason", "ToolUse"]

StopReason = Literal["end", "length", "refusal", "stop_sequence", "tool"]


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call of a tool."""

    name: str
    arguments: Mapping[str, Any]

    def json(self) -> str:
        return json.dumps(self.arguments, ensure_ascii=False, separators=(", ", ": "))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A complete answer: text in the pieces in which it is streamed, thinking before it, tool calls after it."""

    pieces: tuple[str, ...]
    text_tokens: int
    reasoning: str = ""
    tools: tuple[ToolUse, ...] = ()
    stop: StopReason = "end"
    stop_sequence: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def text(self) -> str:
        return "".join(self.pieces)

    @cached_property
    def reasoning_tokens(self) -> int:
        return count_tokens(self.reasoning) if self.reasoning else 0

    @cached_property
    def output_tokens(self) -> int:
        tools = sum(count_tokens(tool.json()) + 12 for tool in self.tools)
        return max(1, self.text_tokens + self.reasoning_tokens + tools)

    def limited(self, max_tokens: int) -> Answer:
        """The answer cut off where `max_tokens` output tokens are used up."""
        if self.output_tokens <= max_tokens:
            return self
        room = max_tokens - self.reasoning_tokens
        kept: list[str] = []
        used = 0
        for piece in self.pieces:
            tokens = split_tokens(piece)
            if used + len(tokens) > room:
                kept.append("".join(tokens[: max(0, room - used)]))
                used = room
                break
            kept.append(piece)
            used += len(tokens)
        pieces = tuple(piece for piece in kept if piece)
        return Answer(
            pieces=pieces, text_tokens=max(0, used), reasoning=self.reasoning, stop="length", extra=self.extra
        )

    def stopped_at(self, sequences: tuple[str, ...]) -> Answer:
        """The answer cut off before the first of the stop sequences that it contains."""
        found = [(position, s) for s in sequences if s and (position := self.text.find(s)) >= 0]
        if not found:
            return self
        end, sequence = min(found)
        kept: list[str] = []
        for piece in self.pieces:
            if end <= 0:
                break
            kept.append(piece[:end])
            end -= len(piece)
        return Answer(
            pieces=tuple(kept),
            text_tokens=sum(count_tokens(piece) for piece in kept),
            reasoning=self.reasoning,
            stop="stop_sequence",
            stop_sequence=sequence,
            extra=self.extra,
        )
