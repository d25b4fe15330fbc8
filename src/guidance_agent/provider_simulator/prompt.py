"""A request as both wires understand it: blocks with tokens for the cache, words for the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from guidance_agent.provider_simulator.models import ModelSpec
from guidance_agent.provider_simulator.tokens import TextMeasure, measure

__all__ = ["Block", "Prompt", "Section", "ToolWish", "block_of_json", "block_of_text"]

Section = Literal["tools", "system", "messages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One cacheable piece of a prompt, in the order of the wire.

    Attributes:
        measured: Token count, digest and token ends of what the block says.
        overhead: Tokens that the provider's framing of the block takes.
        marker: What stands before the block: section and role.
        breakpoint: Time to live that was asked for (`5m`, `1h`, `30m`); None when the block is not marked.
        run: `tool_use` or `tool_result`: consecutive blocks of the same run are one position.
        ends_turn: The block ends the latest user or tool message.
    """

    section: Section
    measured: TextMeasure
    marker: bytes
    overhead: int = 0
    breakpoint: str | None = None
    run: str = ""
    ends_turn: bool = False

    @property
    def tokens(self) -> int:
        return self.measured.tokens + self.overhead

    @property
    def digest(self) -> bytes:
        return blake2b(self.measured.digest + self.marker, digest_size=16).digest()


def block_of_text(text: str, **fields: Any) -> Block:
    return Block(measured=measure(text), **fields)


def block_of_json(value: Any, **fields: Any) -> Block:
    """A block whose key order counts, as the bytes on the wire do."""
    return Block(measured=measure(json.dumps(value, ensure_ascii=False, separators=(",", ":"))), **fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolWish:
    """The tools of a request: name, schema, and whether one of them must be called."""

    name: str
    schema: Mapping[str, Any]
    forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A validated request.

    Attributes:
        trailing_tokens: Framing after the last block; never cached.
        system: Texts of the system parts.
        conversation: Role and text of each message, oldest first.
        salts: What else a prefix depends on, per section (a changed salt changes the section and all after it).
        options: Fields of the wire that only its own renderer and cache regime read.
    """

    model: ModelSpec
    blocks: tuple[Block, ...]
    trailing_tokens: int
    system: tuple[str, ...]
    conversation: tuple[tuple[str, str], ...]
    max_tokens: int
    stream: bool
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    json_object: bool = False
    tools: tuple[ToolWish, ...] = ()
    thinking: bool = False
    salts: Mapping[Section, bytes] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def input_tokens(self) -> int:
        return sum(block.tokens for block in self.blocks) + self.trailing_tokens

    @property
    def last_message(self) -> str:
        return self.conversation[-1][1] if self.conversation else ""
