"""Prompts and usage out of the simulator's request log, for a count of what the caching rules allow.

A log says how long each whole prompt was and not what the framing of a message takes. It is the same for every message,
so two prompts with different numbers of messages tell it, and all others have to agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.cache_rules import LoggedRequest, Span

__all__ = ["LoggedCall", "framing_of", "read_log"]

_LIVES = {"5m": 300.0, "1h": 3_600.0}
_BREAKPOINT_LIFE = 1_800.0

Count = Callable[[str], int]


class LoggedCall(NamedTuple):
    """One call of a model as the log tells it.

    Attributes:
        model: Its id at the provider.
        request: What the rules need of it.
        parts: Tokens of each system text, in their order.
        last: Text of the last message.
        total: Tokens of the whole prompt, as reported.
        read: Tokens read from a cache, as reported.
        written: Tokens written to one, as reported.
    """

    model: str
    request: LoggedRequest
    parts: tuple[int, ...]
    last: str
    total: int
    read: int
    written: int


def read_log(records: Sequence[Mapping[str, Any]], count: Count) -> list[LoggedCall]:
    """Return the calls of the log, oldest first; all of one wire format.

    Args:
        records: The log's records, with their bodies.
        count: Tokens of a text, by the provider's measure.
    """
    framing, _ = framing_of(records, count)
    return [_call(record, count, framing) for record in records]


def framing_of(records: Sequence[Mapping[str, Any]], count: Count) -> tuple[int, int]:
    """Return the tokens that framing takes for each message and for each prompt, read off the reported totals.

    Raises:
        ValueError: when no two prompts tell them, or a prompt disagrees.
    """
    seen = {}
    for record in records:
        texts = sum(count(text) for _, text, _, _ in _pieces(record["body"]))
        framed = sum(first for *_, first in _pieces(record["body"]))
        seen[framed] = _total(record["usage"]) - texts
    if len(seen) < 2:
        raise ValueError("the framing cannot be told from prompts that all have as many messages; log a second turn")
    few, many = min(seen), max(seen)
    each, left = divmod(seen[many] - seen[few], many - few)
    rest = seen[few] - each * few
    if left or any(extra != each * framed + rest for framed, extra in seen.items()):
        raise ValueError(f"the reported totals do not agree on a framing: {seen!r} tokens by number of messages")
    return each, rest


def _call(record: Mapping[str, Any], count: Count, framing: int) -> LoggedCall:
    body, usage = record["body"], record["usage"]
    pieces = list(_pieces(body))
    spans = tuple(Span((role, text), count(text) + framing * first, life) for role, text, life, first in pieces)
    parts = tuple(span.tokens for span, (role, *_) in zip(spans, pieces, strict=True) if role == "system")
    customer = pieces[len(parts) - 1][1] if parts else ""
    return LoggedCall(
        model=record["model"],
        request=LoggedRequest(
            key=str(body.get("prompt_cache_key", "")),
            group=customer,
            spans=spans,
            started=record["received_at"],
            begun=record["first_byte_at"],
        ),
        parts=parts,
        last=pieces[-1][1],
        total=_total(usage),
        read=_read(usage),
        written=_total(usage) - _read(usage) - _uncached(usage),
    )


def _pieces(body: Mapping[str, Any]) -> Iterator[tuple[str, str, float | None, bool]]:
    """Yield role, text, life of the breakpoint and whether framing stands before it, for each text of a prompt."""
    for block in body.get("system", ()):
        yield "system", block["text"], _life(block), False
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"text": content}] if isinstance(content, str) else content
        for place, block in enumerate(blocks):
            yield message["role"], block["text"], _life(block), place == 0


def _life(block: Mapping[str, Any]) -> float | None:
    if "cache_control" in block:
        return _LIVES[block["cache_control"].get("ttl", "5m")]
    return _BREAKPOINT_LIFE if "prompt_cache_breakpoint" in block else None


def _total(usage: Mapping[str, Any]) -> int:
    if "prompt_tokens" in usage:
        return int(usage["prompt_tokens"])
    return _uncached(usage) + _read(usage) + int(usage["cache_creation_input_tokens"])


def _read(usage: Mapping[str, Any]) -> int:
    if "prompt_tokens" in usage:
        return int(usage["prompt_tokens_details"]["cached_tokens"])
    return int(usage["cache_read_input_tokens"])


def _uncached(usage: Mapping[str, Any]) -> int:
    if "prompt_tokens" in usage:
        details = usage["prompt_tokens_details"]
        return int(usage["prompt_tokens"]) - _read(usage) - int(details.get("cache_write_tokens", 0))
    return int(usage["input_tokens"])
