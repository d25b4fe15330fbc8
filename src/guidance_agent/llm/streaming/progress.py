"""How far a stream has come: counted where it can be counted, estimated and marked where not."""

from __future__ import annotations

from dataclasses import dataclass

from guidance_agent.llm.messages import Delta, Usage
from guidance_agent.llm.streaming.sources import AnyStream, call_of, text_of, usage_of
from guidance_agent.llm.tokens import TokenCounter

__all__ = ["Progress", "ProgressMeter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stream has come.

    Attributes:
        chunks: Pieces that carried content, as the provider cut them where the stream tells that.
        characters: Characters of text for the customer.
        tokens: Tokens of the output, reasoning and tool calls included where the stream shows them; at least 1 as soon
            as there is any content.
        estimated: Whether `tokens` is an estimate, because the provider has not reported a final count (yet).
        elapsed: Seconds since the stream was first read.
        first_token: Seconds to the first content; None before it.
        tokens_per_second: From the first content on; None before there is a time to divide by.
        finished: Whether the stream has come to its end.
    """

    chunks: int = 0
    characters: int = 0
    tokens: int = 0
    estimated: bool = True
    elapsed: float = 0.0
    first_token: float | None = None
    tokens_per_second: float | None = None
    finished: bool = False


class ProgressMeter:
    """Collects the figures of one stream. Times are seconds of one monotonic clock."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._first: float | None = None
        self._chunks = 0
        self._characters = 0
        self._counter = TokenCounter()
        self._reported = 0

    @property
    def has_begun(self) -> bool:
        """Whether there was any content yet."""
        return self._first is not None

    def add(self, item: object, now: float) -> None:
        """Note `item`, which has just arrived."""
        text = text_of(item)
        self._characters += len(text)
        content = text
        chunks = 1
        if isinstance(item, Delta):
            chunks = item.pieces
            content = item.reasoning + text if item.reasoning else text
            if item.tool_call is not None:
                content += f"{item.tool_call.name or ''}{item.tool_call.arguments}"
        if content:
            self._chunks += chunks
            self._counter.add(content)
            if self._first is None:
                self._first = now
        self._note_usage(usage_of(item))

    def progress(self, now: float) -> Progress:
        """Return how far the stream has come."""
        return self._made(now, finished=False)

    def finished(self, stream: AnyStream, now: float) -> Progress:
        """Return how far the stream had come when it ended."""
        call = call_of(stream)
        if call is not None:
            self._note_usage(call.usage)
        return self._made(now, finished=True)

    def _note_usage(self, usage: Usage | None) -> None:
        # Before the end a provider's count is only where it began, and is marked as an estimate.
        if usage is not None and not usage.estimated:
            self._reported = usage.output_tokens

    def _made(self, now: float, *, finished: bool) -> Progress:
        # A provider that reports no tokens for an answer that was there has not counted.
        tokens = self._reported or max(self._counter.tokens, int(self.has_begun))
        elapsed = now - self._started
        first = None if self._first is None else self._first - self._started
        generating = 0.0 if first is None else elapsed - first
        return Progress(
            chunks=self._chunks,
            characters=self._characters,
            tokens=tokens,
            estimated=not self._reported,
            elapsed=elapsed,
            first_token=first,
            tokens_per_second=tokens / generating if generating > 0 else None,
            finished=finished,
        )
