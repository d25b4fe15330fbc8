"""What became of a cache plan: one label for each call, and what caching saved.

A provider reports how many tokens it read from and wrote to its cache, never why. The history remembers what earlier
calls of this process made a provider cache, so that the label can say why a read did not happen. In this order:

- `not_supported`: the model does not cache, or the request switched caching off; and nothing was read. - `unknown`: the
provider reported no usage; or nothing was read or written and nothing tells whether it could have been,
  as with a server that does not report its cache.
- `part_changed:<part>`: this part is the first that is neither equal to, nor a continuation of, that of the call before
on
  the same line, so what lay behind it could not be read. On a new line it is the first part that all lines shared until
  now and that differs.
- `hit`: at least nine tenths of what earlier calls had cached for this prompt was read. A hit is also any read of which
  this process cannot know the source.
- `below_minimum`: nothing was read or written, and the prompt is, by the provider's count or the plan's, too short.
- `expired`: what an earlier call had cached was older than its life when this call started, and was not read.
- `provider_miss`: it was still alive and was not read, or only a part of it was; or the provider neither read nor wrote
  what was marked and long enough.
- `first_write`: no earlier call had cached anything of this prompt that could be read when this call started.

A line is a sequence of calls that continue each other: the turns of one consultation for one purpose. An entry can be
read from the moment the call that wrote it received its first token; a call that started before that is not blamed.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from guidance_agent.llm.messages import CacheOutcome, ModelRequest, UnitPrices, Usage
from guidance_agent.llm.providers.base import CachePlan, CacheTtl, Endpoint, PlannedPart

__all__ = ["CacheHistory", "CallIdentity", "cache_parts", "saving"]

_LIFE: Mapping[CacheTtl, float] = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0}
# Automatic caches promise nothing beyond five idle minutes.
_PREFIX_LIFE = 300.0
_ENOUGH = 0.9


class CallIdentity(NamedTuple):
    """Which cache a call meets, and which calls it continues.

    Attributes:
        cache: Provider, address and model: nothing is shared across these.
        purpose: The operation; calls of one operation share their first parts.
        line: The calls that this one continues; None when it continues none.
    """

    cache: str
    purpose: str
    line: str | None

    @classmethod
    def of(cls, endpoint: Endpoint, request: ModelRequest) -> CallIdentity:
        """Return the identity of a request: its line is `metadata["consultation_id"]`, else its cache key."""
        line = request.metadata.get("consultation_id") or request.cache_key
        return cls(f"{request.model} {endpoint.base_url}", request.operation, line)


@dataclass(slots=True)
class _Entry:
    """What one call made the provider cache: readable from `readable_at`, alive until `alive_until`.

    `tokens` is the provider's own count where the entry was the longest of its call, else the estimate.
    """

    tokens: int
    counted: bool
    readable_at: float
    alive_until: float
    line: str | None
    shared: bool = False


class CacheHistory:
    """The cached prefixes and the last call of each line, as far as this process made them; bounded, oldest out first.

    Not thread-safe: it belongs to the event loop of its gateway.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_entries: int = 20_000,
        max_lines: int = 5_000,
    ) -> None:
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._lines: OrderedDict[tuple[str, str, str | None], tuple[PlannedPart, ...]] = OrderedDict()
        self._max_entries = max_entries
        self._max_lines = max_lines

    def observe(
        self,
        identity: CallIdentity,
        plan: CachePlan,
        usage: Usage | None,
        started_at: float,
        *,
        first_token_at: float | None = None,
    ) -> CacheOutcome:
        """Return the label of a call that has ended, and remember what it cached.

        Args:
            identity: Which cache and which line the call belongs to.
            plan: The plan that was sent.
            usage: What the provider reported. One marked as estimated counts only where it names reads or writes, which
                nobody estimates.
            started_at: When the request left, by the clock of this history.
            first_token_at: When the answer began, by the same clock; None counts as now.
        """
        if usage is not None and usage.estimated and not usage.cache_read_tokens and not usage.cache_write_tokens:
            usage = None
        outcome = self._outcome(identity, plan, usage, started_at)
        if usage is not None:
            self._remember(
                identity, plan, usage, started_at, self._clock() if first_token_at is None else first_token_at
            )
        return outcome

    def _outcome(self, identity: CallIdentity, plan: CachePlan, usage: Usage | None, started_at: float) -> CacheOutcome:
        read = usage.cache_read_tokens if usage is not None else 0
        if not read and (plan.caching == "none" or not plan.enabled):
            return "not_supported"
        if usage is None:
            return "unknown"
        changed = self._changed_part(identity, plan)
        if changed is not None:
            return f"part_changed:{changed}"
        readable = self._best_entry(identity, plan, started_at, alive=True)
        if read:
            missing = readable is not None and readable.counted and read < readable.tokens * _ENOUGH
            return "provider_miss" if missing else "hit"
        written = usage.cache_write_tokens > 0
        if not written and _too_short(plan, usage):
            return "below_minimum"
        if readable is not None:
            return "provider_miss"
        if self._best_entry(identity, plan, started_at, alive=False) is not None:
            return "expired"
        if written:
            return "first_write"
        if plan.minimum_tokens is None or not plan.parts:
            return "unknown"
        return "provider_miss" if plan.caching == "explicit" and plan.breakpoints else "first_write"

    def _changed_part(self, identity: CallIdentity, plan: CachePlan) -> str | None:
        before = self._lines.get(identity)
        same_line = before is not None
        if before is None:
            before = self._lines.get(identity._replace(line=None), ())
        present = {part.fingerprint for part in plan.parts} | set(plan.prefixes)
        for part in before:
            if part.fingerprint in present:
                continue
            entry = self._entries.get((identity.cache, part.fingerprint))
            return part.name if same_line or (entry is not None and entry.shared) else None
        return None

    def _best_entry(self, identity: CallIdentity, plan: CachePlan, started_at: float, *, alive: bool) -> _Entry | None:
        """Return the entry of the longest prefix of this prompt that was readable when the call started."""
        ends = [part.fingerprint for part in plan.parts if part.index < 0] + list(plan.prefixes)
        for fingerprint in reversed(ends):
            entry = self._entries.get((identity.cache, fingerprint))
            if entry is None or entry.readable_at > started_at:
                continue
            if not alive or entry.alive_until >= started_at:
                return entry
        return None

    def _remember(
        self, identity: CallIdentity, plan: CachePlan, usage: Usage, started_at: float, readable_at: float
    ) -> None:
        self._lines[identity] = self._lines[identity._replace(line=None)] = plan.parts
        for key in (identity, identity._replace(line=None)):
            self._lines.move_to_end(key)
        stored = usage.cache_read_tokens + usage.cache_write_tokens
        if plan.enabled and (stored or plan.caching == "prefix"):
            kept = _kept(plan)
            for position, (part, life) in enumerate(kept):
                longest = bool(stored) and position == len(kept) - 1
                tokens = stored if longest else part.tokens
                counted = longest and plan.caching == "explicit"
                entry = _Entry(tokens, counted, readable_at, started_at + life, identity.line)
                self._store((identity.cache, part.fingerprint), entry)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        while len(self._lines) > self._max_lines:
            self._lines.popitem(last=False)

    def _store(self, key: tuple[str, str], entry: _Entry) -> None:
        before = self._entries.get(key)
        if before is not None:
            entry.shared = before.shared or before.line != entry.line
            entry.alive_until = max(entry.alive_until, before.alive_until)
            if before.alive_until >= entry.alive_until or before.readable_at < entry.readable_at:
                entry.readable_at = min(entry.readable_at, before.readable_at)
            if before.counted and not entry.counted:
                entry.tokens, entry.counted = before.tokens, True
        self._entries[key] = entry
        self._entries.move_to_end(key)


def _kept(plan: CachePlan) -> list[tuple[PlannedPart, float]]:
    """Return the parts whose ends the provider keeps, with their lives in seconds."""
    if plan.caching == "prefix":
        return [(part, _PREFIX_LIFE) for part in plan.parts if part.cached]
    lives = {point.index: _LIFE[point.ttl] for point in plan.breakpoints}
    return [(part, lives[part.index]) for part in plan.parts if part.index in lives]


def _too_short(plan: CachePlan, usage: Usage) -> bool:
    if plan.minimum_tokens is None or not plan.parts:
        return False
    promised = any(part.cached for part in plan.parts)
    return usage.total_input_tokens < plan.minimum_tokens or not promised


def cache_parts(plan: CachePlan) -> dict[str, str]:
    """Return the first 16 characters of each part's fingerprint by its name, for the record of a call."""
    return {part.name: part.fingerprint[:16] for part in plan.parts}


def saving(usage: Usage, prices: UnitPrices) -> float:
    """Return what caching saved on this call, in US dollars, against paying the input price for all of its input.

    Negative on a call that wrote more than it read: the write is dearer than the input price, and only later reads earn
    it back.
    """
    read = prices.input if prices.cache_read is None else prices.cache_read
    write_5m = prices.input if prices.cache_write_5m is None else prices.cache_write_5m
    write_1h = write_5m if prices.cache_write_1h is None else prices.cache_write_1h
    return (
        usage.cache_read_tokens * (prices.input - read)
        + usage.cache_write_5m_tokens * (prices.input - write_5m)
        + usage.cache_write_1h_tokens * (prices.input - write_1h)
    )
