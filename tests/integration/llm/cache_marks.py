"""Cache marks as a provider receives them, read from request bodies of either wire format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

__all__ = ["Block", "PrefixMove", "SentMarks", "blocks_of", "marks_of", "prefix_move"]

PrefixMove = Literal["extended", "shrunk", "moved"]


class Block(NamedTuple):
    """A text of a prompt in the order of the wire, and the life of the breakpoint that ends it, if one does."""

    role: str
    text: str
    life: str | None


class SentMarks(NamedTuple):
    """The places of the breakpoints among the blocks with their lives, and the cache key."""

    breakpoints: tuple[tuple[int, str], ...]
    key: str | None


def blocks_of(body: Mapping[str, Any]) -> list[Block]:
    """Return the texts of a Messages or Chat Completions body."""
    return list(_blocks(body))


def _blocks(body: Mapping[str, Any]) -> Iterator[Block]:
    for message in ({"role": "system", "content": body.get("system", [])}, *body["messages"]):
        content = message["content"]
        blocks: list[dict[str, Any]] = [{"text": content}] if isinstance(content, str) else content
        for block in blocks:
            life = None
            if "cache_control" in block:
                life = block["cache_control"].get("ttl", "5m")
            elif "prompt_cache_breakpoint" in block:
                life = body["prompt_cache_options"]["ttl"]
            yield Block(message["role"], block["text"], life)


def marks_of(body: Mapping[str, Any]) -> SentMarks:
    """Return what a body asks a provider to cache."""
    marks = tuple((place, block.life) for place, block in enumerate(blocks_of(body)) if block.life is not None)
    return SentMarks(marks, body.get("prompt_cache_key"))


def prefix_move(before: Mapping[str, Any], after: Mapping[str, Any]) -> PrefixMove:
    """Return what became of the start of a prompt, everything but its last message, from one request to the next.

    `extended` also when it is the same; `shrunk` when its end is gone; `moved` when anything in it is another text.
    """
    old, new = ([(block.role, block.text) for block in blocks_of(body)[:-1]] for body in (before, after))
    if new[: len(old)] == old:
        return "extended"
    return "shrunk" if old[: len(new)] == new else "moved"
