"""Answers that a test or a benchmark dictates."""

from __future__ import annotations

import itertools
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from guidance_agent.provider_simulator.answer import Answer, StopReason, ToolUse
from guidance_agent.provider_simulator.tokens import count_tokens, split_tokens

__all__ = ["Script", "ScriptedCall", "script_of_model_name"]

_FILLER = (
    "A pension pot can be taken in several ways. ",
    "Each way has its own tax and its own risks. ",
    "Some choices cannot be undone later. ",
    "Charges differ from scheme to scheme. ",
    "The value of investments can fall as well as rise. ",
    "Guarantees can be lost when money is moved. ",
    "Pension Wise explains the options free of charge. ",
)
_SCRIPT_NAME = re.compile(r"script-(?:(?P<chunks>\d+)x(?P<interval>\d+)|bytes-(?P<bytes>\d+))")


class ScriptedCall(BaseModel):
    """A call of a tool."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Script(BaseModel):
    """What the model says, and how it is cut and paced.

    The first given of `pieces`, `text`, `chunks` and `bytes` decides the words; without any the answer is composed as
    usual.

    Attributes:
        text: The whole answer; cut as the provider would.
        pieces: The answer, one text chunk per piece.
        chunks: So many text chunks of one sentence each.
        bytes: So many bytes of text (ASCII), in chunks of `chunk_bytes`.
        first_ms: Milliseconds to the first chunk; None keeps the model's latency.
        interval_ms: Milliseconds between chunks; None keeps the model's pace.
        reasoning: Thinking that comes before the text.
        tool: Name of a tool that is called after the text, with `arguments`.
        more_calls: Calls of tools after that one.
        stop: Why the answer ends.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = None
    pieces: tuple[str, ...] | None = None
    chunks: int | None = Field(default=None, ge=0)
    bytes: int | None = Field(default=None, ge=0)
    chunk_bytes: int = Field(default=1_024, ge=1)
    first_ms: float | None = Field(default=None, ge=0)
    interval_ms: float | None = Field(default=None, ge=0)
    reasoning: str = ""
    tool: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    more_calls: tuple[ScriptedCall, ...] = ()
    stop: Literal["end", "length", "refusal", "stop_sequence", "tool"] | None = None

    @property
    def decides_words(self) -> bool:
        return any(value is not None for value in (self.text, self.pieces, self.chunks, self.bytes, self.tool))

    def answer(self, *, chunk_tokens: int) -> Answer:
        """The scripted answer, its text cut into chunks of `chunk_tokens` unless the script cuts it."""
        pieces = self._pieces(chunk_tokens)
        tools = [] if self.tool is None else [ToolUse(self.tool, self.arguments)]
        tools += [ToolUse(call.tool, call.arguments) for call in self.more_calls]
        stop: StopReason = self.stop or ("tool" if tools else "end")
        tokens = len(pieces) if self.chunks is not None else self._tokens(pieces)
        return Answer(pieces=pieces, text_tokens=tokens, reasoning=self.reasoning, tools=tuple(tools), stop=stop)

    def _pieces(self, chunk_tokens: int) -> tuple[str, ...]:
        if self.pieces is not None:
            return self.pieces
        if self.text is not None:
            tokens = split_tokens(self.text)
            return tuple("".join(tokens[start : start + chunk_tokens]) for start in range(0, len(tokens), chunk_tokens))
        if self.chunks is not None:
            return tuple(itertools.islice(itertools.cycle(_FILLER), self.chunks))
        if self.bytes is not None:
            return _sized_pieces(self.bytes, self.chunk_bytes)
        return ()

    def _tokens(self, pieces: tuple[str, ...]) -> int:
        if self.bytes is not None:
            return max(1, self.bytes // 4)
        return sum(count_tokens(piece) for piece in pieces)


def _sized_pieces(total: int, size: int) -> tuple[str, ...]:
    # A handful of strings is shared by all chunks, so that ten megabytes of answer take kilobytes here.
    endless = "".join(_FILLER)
    endless *= size // len(endless) + 2
    variants = [endless[start : start + size] for start in range(len(_FILLER))]
    whole, rest = divmod(total, size)
    pieces = list(itertools.islice(itertools.cycle(variants), whole))
    if rest:
        pieces.append(endless[:rest])
    return tuple(pieces)


def script_of_model_name(name: str) -> Script | None:
    """The script that a model name stands for: `script-50x20` is 50 chunks 20 ms apart, `script-bytes-9` 9 bytes."""
    match = _SCRIPT_NAME.fullmatch(name)
    if match is None:
        return None
    if match["bytes"] is not None:
        return Script(bytes=int(match["bytes"]), first_ms=0, interval_ms=0)
    interval = int(match["interval"])
    return Script(chunks=int(match["chunks"]), first_ms=interval, interval_ms=interval)
