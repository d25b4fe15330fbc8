"""From a prompt to a cache plan: fingerprints of its stable parts, their lengths, and where breakpoints go.

A provider caches an exact prefix of what it receives, in the order tools, answer schema, system, conversation. The
fingerprint of a part is therefore cumulative: it is the SHA-256 of everything up to the part's end, so that two equal
fingerprints mean that one cache entry serves both prompts.

The last message is never marked. It holds what varies from turn to turn, so an entry that ends with it is never read;
the next turn reads up to the end of the conversation before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.llm.providers.base import Breakpoint, CachePlan, CacheTtl, ModelTraits, PlannedPart
from guidance_agent.llm.tokens import estimate_tokens

__all__ = [
    "IDLE_LIFE",
    "MAX_BREAKPOINTS",
    "MOVING_PARTS",
    "PERSONAL_PARTS",
    "SWITCHED_OFF",
    "MeasuredPrompt",
    "estimated_tokens",
    "measure_prompt",
    "plan_explicit",
    "plan_none",
    "plan_prefix",
]

MAX_BREAKPOINTS = 4
"""Of Anthropic per request; OpenAI writes at most as many."""

IDLE_LIFE = 300.0
"""Seconds that an automatic cache keeps an unused prefix for certain; none promises more."""

SWITCHED_OFF = "caching is switched off for this call; the provider may cache all the same"
"""Said of every part where a provider caches by itself and the request asked it not to."""

MOVING_PARTS = frozenset({"conversation"})
"""Parts whose end moves from turn to turn, so that an entry is read once and then replaced by a longer one."""

PERSONAL_PARTS = frozenset({"customer", "conversation"})
"""Parts that belong to one customer; the parts before them are shared by all."""

# Nearer to the minimum than this the estimate of the length decides nothing.
_MARGIN = 0.10
_TOKENS_PER_MESSAGE = 4

# Estimated tokens by the fingerprint of a prefix: every turn repeats the prompt of the last one, and a fingerprint
# keeps no customer's text in memory.
_MAX_COUNTS = 20_000
_counts: dict[str, int] = {}


class MeasuredPrompt(NamedTuple):
    """The named parts of a prompt with nothing decided yet, and the fingerprint after each message but the last."""

    parts: tuple[PlannedPart, ...]
    prefixes: tuple[str, ...]
    messages: tuple[Message, ...]


def measure_prompt(request: ModelRequest, *, token_factor: float = 1.0) -> MeasuredPrompt:
    """Fingerprint the prompt's parts and estimate their lengths.

    Args:
        request: The request whose messages carry the names of the parts that end with them.
        token_factor: Tokens of this provider for each that `estimate_tokens` counts.
    """
    digest = hashlib.sha256()
    counted = 0
    parts: list[PlannedPart] = []
    prefixes: list[str] = []
    for name, text in _before_messages(request):
        digest.update(text.encode("utf-8", "surrogatepass"))
        counted += estimate_tokens(text)
        parts.append(_part(name, -1, digest.hexdigest(), counted * token_factor))
    last = len(request.messages) - 1
    for index, message in enumerate(request.messages):
        if index == last and message.part is None:
            break
        digest.update(_serialised(message))
        fingerprint = digest.hexdigest()
        counted = _counted_up_to(fingerprint, counted, message)
        if index < last:
            prefixes.append(fingerprint)
        if message.part is not None:
            parts.append(_part(message.part, index, fingerprint, counted * token_factor))
    return MeasuredPrompt(tuple(parts), tuple(prefixes), request.messages)


def estimated_tokens(messages: Iterable[Message]) -> int:
    """Return about how many tokens the messages have, by the measure of the parts."""
    return sum(map(_tokens, messages))


def plan_explicit(
    prompt: MeasuredPrompt,
    traits: ModelTraits,
    *,
    ttl: Callable[[str], CacheTtl],
    look_back: int,
    cache_key: str | None = None,
) -> CachePlan:
    """Plan for a model that caches only at breakpoints.

    A part whose prefix is too short is merged with the next one. Of more than four breakpoints the first are merged:
    what follows them contains them. A shorter life never comes before a longer one, which Anthropic refuses.

    Args:
        prompt: The measured prompt.
        traits: Of the model; its minimum decides which parts are long enough.
        ttl: Life of a part's entry, by its name.
        look_back: How many messages before a breakpoint the provider still finds an earlier entry. With 0 the end of
            the conversation before the last exchange is marked again: that is where the last call left its entry.
        cache_key: Key under which the provider routes the prompt.
    """
    parts = [_explained(part, prompt.messages) or _judged(part, traits.minimum_cache_tokens) for part in prompt.parts]
    ends: dict[int, str] = {}
    for part in parts:
        if _explained(part, prompt.messages) is None and _may_suffice(part, traits.minimum_cache_tokens):
            earlier = _earlier_end(part, prompt) if look_back == 0 and part.name in MOVING_PARTS else None
            if earlier is not None:
                ends[earlier] = part.name
            ends[part.index] = part.name
    kept = sorted(ends)[-MAX_BREAKPOINTS:]
    note = f"a prompt has at most {MAX_BREAKPOINTS} breakpoints: merged with the next part"
    parts = [
        replace(part, cached=False, note=note) if part.index in ends and part.index not in kept else part
        for part in parts
    ]
    breakpoints: list[Breakpoint] = []
    for index in kept:
        after_shorter = bool(breakpoints) and breakpoints[-1].ttl == "5m"
        breakpoints.append(Breakpoint(index, "5m" if after_shorter else ttl(ends[index])))
    return CachePlan(
        caching="explicit",
        breakpoints=tuple(breakpoints),
        cache_key=cache_key,
        parts=tuple(parts),
        prefixes=prompt.prefixes,
        minimum_tokens=traits.minimum_cache_tokens,
        look_back=look_back,
    )


def plan_prefix(
    prompt: MeasuredPrompt, traits: ModelTraits, *, cache_key: str | None = None, life: float = IDLE_LIFE
) -> CachePlan:
    """Plan for a model that caches the start of a prompt by itself: only the order and the key help it.

    Args:
        prompt: The measured prompt.
        traits: Of the model.
        cache_key: Key under which the provider routes the prompt.
        life: How long an unused prefix is kept, in seconds.
    """
    return CachePlan(
        caching="prefix",
        cache_key=cache_key,
        parts=tuple(_judged(part, traits.minimum_cache_tokens) for part in prompt.parts),
        prefixes=prompt.prefixes,
        minimum_tokens=traits.minimum_cache_tokens,
        reported=traits.reports_cache,
        life=life,
    )


def plan_none(prompt: MeasuredPrompt, traits: ModelTraits, *, note: str, enabled: bool = True) -> CachePlan:
    """Plan without breakpoints, with the reason on each part."""
    return CachePlan(
        caching=traits.caching,
        parts=tuple(replace(part, note=note) for part in prompt.parts),
        prefixes=prompt.prefixes,
        minimum_tokens=traits.minimum_cache_tokens,
        enabled=enabled,
        reported=traits.reports_cache,
    )


def _before_messages(request: ModelRequest) -> list[tuple[str, str]]:
    found = []
    if request.tools:
        tools = [[tool.name, tool.description, tool.parameters] for tool in request.tools]
        found.append(("tools", json.dumps(tools, ensure_ascii=False, default=dict)))
    if request.response_schema is not None:
        found.append(("schema", json.dumps(request.response_schema, ensure_ascii=False, default=dict)))
    return found


def _serialised(message: Message) -> bytes:
    """Return bytes that no other message, and no two messages, have: the content's length stands before it."""
    content = message.content.encode("utf-8", "surrogatepass")
    calls = [[call.id, call.name, call.arguments] for call in message.tool_calls]
    return json.dumps([message.role, len(content), calls, message.tool_call_id]).encode() + content


def _counted_up_to(fingerprint: str, before: int, message: Message) -> int:
    """Return the estimated tokens of the prefix; a prefix that was seen before is not counted again."""
    known = _counts.get(fingerprint)
    if known is None:
        known = before + _tokens(message)
        if len(_counts) >= _MAX_COUNTS:
            _counts.clear()
        _counts[fingerprint] = known
    return known


def _tokens(message: Message) -> int:
    calls = sum(estimate_tokens(call.name + call.arguments) for call in message.tool_calls)
    return estimate_tokens(message.content) + calls + _TOKENS_PER_MESSAGE


def _part(name: str, index: int, fingerprint: str, tokens: float) -> PlannedPart:
    return PlannedPart(name=name, index=index, fingerprint=fingerprint, tokens=round(tokens), cached=False)


def _explained(part: PlannedPart, messages: tuple[Message, ...]) -> PlannedPart | None:
    """Return the part with a note if nothing can be marked at its end, else None."""
    if part.index < 0:
        return replace(part, note="sent before the messages: cached with the first part")
    if part.index == len(messages) - 1:
        return replace(part, note="the last message is never marked")
    if not messages[part.index].content:
        return replace(part, note="an empty message cannot be marked: merged with the next part")
    return None


def _earlier_end(part: PlannedPart, prompt: MeasuredPrompt) -> int | None:
    """Return the last answer of the model before the one that ends the part, if the part reaches back to it."""
    start = max((other.index for other in prompt.parts if other.index < part.index), default=-1)
    earlier = range(part.index - 1, start, -1)
    return next((i for i in earlier if prompt.messages[i].role == "assistant" and prompt.messages[i].content), None)


def _may_suffice(part: PlannedPart, minimum: int | None) -> bool:
    return minimum is None or part.tokens >= minimum * (1 - _MARGIN)


def _judged(part: PlannedPart, minimum: int | None) -> PlannedPart:
    if minimum is None:
        return replace(part, note="the model's minimum cacheable length is not known")
    if not _may_suffice(part, minimum):
        note = f"about {part.tokens} tokens so far, below the model's minimum of {minimum}: merged with the next part"
        return replace(part, note=note)
    if part.tokens < minimum * (1 + _MARGIN):
        return replace(part, note=f"about {part.tokens} tokens so far, too near the minimum of {minimum} to promise")
    return replace(part, cached=True)
