"""What became of a cache plan: one label for each call, and what caching saved.

A provider reports how many tokens it read from and wrote to its cache, never why. The history remembers what earlier
calls of this process made a provider cache, so that the label can say why a read did not happen. The first that is
true:

- `not_supported`: nothing was read, and the model does not cache, or the request switched caching off or named no part
  that a breakpoint could end.
- `unknown`: the provider reported no usage.
- `part_changed:<part>`: this part of the call before, on the same line, is neither in this prompt nor continued by it,
  so what lay behind it could not be read. On a new line: a part that several lines had shared until now.
- `hit`: tokens were read, at least nine tenths of what an earlier call had left for this prompt; or the source of the
  read is not known to this process.
- `unknown`: nothing was read, and the provider does not say whether it reads.
- `below_minimum`: nothing was read or written, and the prompt is too short by the provider's count, or none of its
  parts is surely long enough by the plan's.
- `provider_miss`: an entry that was alive and within reach was not read, or only in part; or what was marked and long
  enough was neither read nor written.
- `expired`: an entry that an earlier call had left was older than its life when this call started.
- `first_write`: no earlier call of this process had left anything for this prompt that was readable when it started.
- `unknown`: nothing was read or written, and the model's minimum or the prompt's parts are not known.

A line is a sequence of calls that continue each other: the turns of one consultation for one purpose. An entry can be
read from the moment the call that wrote it received its first token; a call that started before that is not blamed.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from guidance_agent.llm.messages import CacheOutcome, ModelRequest, UnitPrices, Usage
from guidance_agent.llm.providers.base import CachePlan, CacheTtl, Endpoint, PlannedPart

__all__ = ["CacheHistory", "CallIdentity", "cache_parts", "saving"]

_LIFE: Mapping[CacheTtl, float] = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0}
# A read of less than this share of an entry is a partial one; estimates of its length are trusted less than counts.
_SHARE_OF_COUNT = 0.9
_SHARE_OF_ESTIMATE = 0.7

# Lines that have had a part in common make it a shared one.
_SEVERAL = 2


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
    """A prefix that a provider keeps. `tokens` is the provider's count where `counted`, else the plan's estimate."""

    tokens: int
    counted: bool
    readable_at: float
    alive_until: float


class CacheHistory:
    """The cached prefixes and the last call of each line, as far as this process made them; bounded, oldest out first.

    Not thread-safe: it belongs to the event loop of its gateway.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, max_entries: int = 10_000, max_lines: int = 2_000
    ) -> None:
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str | None, str], _Entry] = OrderedDict()
        self._users: OrderedDict[tuple[str, str], frozenset[str | None]] = OrderedDict()
        self._lines: OrderedDict[CallIdentity, tuple[PlannedPart, ...]] = OrderedDict()
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
            self._keep_entries(
                identity, plan, usage, started_at, self._clock() if first_token_at is None else first_token_at
            )
            self._keep_line(identity, plan)
        return outcome

    def _outcome(self, identity: CallIdentity, plan: CachePlan, usage: Usage | None, started_at: float) -> CacheOutcome:
        read = usage.cache_read_tokens if usage is not None else 0
        if not read and _asks_for_nothing(plan):
            return "not_supported"
        if usage is None:
            return "unknown"
        changed = self._changed_part(identity, plan)
        if changed is not None:
            return f"part_changed:{changed}"
        known = [entry for entry in self._within_reach(identity, plan) if entry.readable_at <= started_at]
        alive = next((entry for entry in known if entry.alive_until > started_at), None)
        if read:
            return "provider_miss" if alive is not None and _partial(read, alive) else "hit"
        if not plan.reported:
            return "unknown"
        written = usage.cache_write_tokens > 0
        if not written and _too_short(plan, usage):
            return "below_minimum"
        if alive is not None:
            return "provider_miss"
        if known:
            return "expired"
        if written:
            return "first_write"
        if plan.minimum_tokens is None or not plan.parts:
            return "unknown"
        return "provider_miss" if plan.caching == "explicit" else "first_write"

    def _changed_part(self, identity: CallIdentity, plan: CachePlan) -> str | None:
        """Return the first part of the call before that is not a prefix of this prompt, if it should have been."""
        same_line = identity.line is not None and identity in self._lines
        before = self._lines.get(identity if same_line else identity._replace(line=None), ())
        present = {part.fingerprint for part in plan.parts} | set(plan.prefixes)
        gone = next((part for part in before if part.fingerprint not in present), None)
        if gone is None:
            return None
        if not same_line and len(self._users.get((identity.cache, gone.fingerprint), ())) < _SEVERAL:
            return None
        # Tools or a schema that were not there before move everything that follows them.
        names = {part.name for part in before}
        return next((part.name for part in plan.parts if part.index < 0 and part.name not in names), gone.name)

    def _within_reach(self, identity: CallIdentity, plan: CachePlan) -> Iterator[_Entry]:
        """Yield the entries of this prompt's prefixes that the provider looks at, the longest first."""
        for index in reversed(range(len(plan.prefixes))):
            if plan.look_back is not None and not any(
                index <= point.index <= index + plan.look_back for point in plan.breakpoints
            ):
                continue
            entry = self._entries.get((identity.cache, plan.cache_key, plan.prefixes[index]))
            if entry is not None:
                yield entry

    def _keep_entries(
        self, identity: CallIdentity, plan: CachePlan, usage: Usage, started_at: float, readable_at: float
    ) -> None:
        stored = usage.cache_read_tokens + usage.cache_write_tokens
        if not plan.enabled or not (stored or plan.caching == "prefix"):
            return
        kept = _kept(plan)
        for position, (part, life) in enumerate(kept):
            # What was read and written together reaches to the last breakpoint.
            counted = plan.caching == "explicit" and position == len(kept) - 1
            tokens = stored if counted else part.tokens
            entry = _Entry(tokens, counted, readable_at, started_at + life)
            key = (identity.cache, plan.cache_key, part.fingerprint)
            before = self._entries.get(key)
            self._entries[key] = entry if before is None else _renewed(before, entry, started_at)
            self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def _keep_line(self, identity: CallIdentity, plan: CachePlan) -> None:
        for part in plan.parts:
            user = (identity.cache, part.fingerprint)
            known = self._users.get(user, frozenset())
            self._users[user] = known if len(known) >= _SEVERAL else known | {identity.line}
            self._users.move_to_end(user)
        while len(self._users) > self._max_entries:
            self._users.popitem(last=False)
        for key in (identity, identity._replace(line=None)):
            self._lines[key] = plan.parts
            self._lines.move_to_end(key)
        while len(self._lines) > self._max_lines:
            self._lines.popitem(last=False)


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


def _asks_for_nothing(plan: CachePlan) -> bool:
    named = any(part.index >= 0 for part in plan.parts)
    return plan.caching == "none" or not plan.enabled or (plan.caching == "explicit" and not named)


def _too_short(plan: CachePlan, usage: Usage) -> bool:
    if plan.minimum_tokens is None:
        return False
    if usage.total_input_tokens < plan.minimum_tokens:
        return True
    return bool(plan.parts) and not any(part.cached for part in plan.parts)


def _partial(read: int, entry: _Entry) -> bool:
    return read < entry.tokens * (_SHARE_OF_COUNT if entry.counted else _SHARE_OF_ESTIMATE)


def _kept(plan: CachePlan) -> list[tuple[PlannedPart, float]]:
    """Return the parts whose ends the provider keeps, with their lives in seconds."""
    if plan.caching == "prefix":
        return [(part, plan.life) for part in plan.parts if part.cached]
    lives = {point.index: _LIFE[point.ttl] for point in plan.breakpoints}
    return [(part, lives[part.index]) for part in plan.parts if part.index in lives]


def _renewed(before: _Entry, now: _Entry, started_at: float) -> _Entry:
    """Return the entry after another call with the same prefix, which read it, or wrote it again."""
    if before.alive_until > started_at:
        now.readable_at = min(now.readable_at, before.readable_at)
        now.alive_until = max(now.alive_until, before.alive_until)
    if before.counted and not now.counted:
        now.tokens, now.counted = before.tokens, True
    return now
