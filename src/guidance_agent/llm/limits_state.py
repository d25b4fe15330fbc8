"""What is left of a rate limit, as arithmetic: no clock, no waiting, no storage.

A limit is a bucket that refills evenly. `used` is what is missing from a full one, so that an empty state is a full
bucket and nothing has to be known of a limit before it is asked for. What is reserved may lie in the future: `used`
then exceeds the bucket, and whoever comes later waits behind it. So the order in which reservations are made is the
order in which calls go, across processes too, and what a dead process had reserved refills like everything else.

After a refusal (429) the rate falls to 80 % once for each episode and rises by 5 % of the full rate every 15 seconds
that pass without another. A refusal that tells the limit for the first time lowers nothing: the limit is known now.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "COOL_DOWN_SECONDS",
    "NOTHING",
    "Amounts",
    "Bounds",
    "LimitState",
    "Reserved",
]

COOL_DOWN_SECONDS = 15.0
"""Refusals this close together are one episode: they answer calls that were sent before anybody knew."""

_DECREASE = 0.8
_RECOVERY = 0.05
_LOWEST = 0.05
_MOST_OF_A_GUESS = 10.0
# Once refused, what is sent stays a little below what the provider says, since both count the same seconds.
_AFTER_REFUSAL = 0.98
_LONGEST_BLOCK = 600.0
_NOTICED = 0.05
"""A difference to what the provider tells is noise below this share of what a minute allows."""


class Amounts(NamedTuple):
    """Requests, tokens and output tokens: what a call takes, or what a minute allows."""

    requests: float = 0.0
    tokens: float = 0.0
    output_tokens: float = 0.0

    def __neg__(self) -> Amounts:
        return Amounts(*(-amount for amount in self))


NOTHING = Amounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How fast calls may follow each other.

    Attributes:
        per_minute: What a minute allows; 0 in a place means that the settings do not limit it.
        burst: For how many seconds an unused rate may be saved up and then spent at once.
    """

    per_minute: Amounts = NOTHING
    burst: float = 10.0


class Reserved(NamedTuple):
    """A reservation: in how many seconds it is due, what is left of each limit then, and when that is."""

    wait: float
    left: Amounts
    due: float


@dataclass(slots=True, kw_only=True)
class LimitState:
    """What was taken from the limits of one model.

    Attributes:
        used: What is missing from full buckets.
        updated: When that was so, in seconds on the store's clock.
        told: What a minute allows as the provider tells it in its headers; 0 where it has not.
        factor: Share of the rate that is used, as of `refused_at`.
        refused_at: When the last episode of refusals began; 0 when there was none.
        blocked_until: Before this the provider wants no call.
        episodes: How many there were.
        guessed: Whether `told` is only what was reached before a refusal; the share then grows beyond the whole.
        corrected_at: When the state was last brought in line with what the provider says is left.
    """

    used: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    updated: float = 0.0
    told: Amounts = NOTHING
    factor: float = 1.0
    refused_at: float = 0.0
    blocked_until: float = 0.0
    episodes: int = 0
    guessed: bool = False
    corrected_at: float = 0.0

    def factor_at(self, now: float) -> float:
        """Return the share of the rate that may be used at `now`."""
        if not self.refused_at:
            return 1.0
        quiet = now - self.refused_at - COOL_DOWN_SECONDS
        recovered = _RECOVERY * (quiet // COOL_DOWN_SECONDS + 1) if quiet >= 0 else 0.0
        return min(_MOST_OF_A_GUESS if self.guessed else 1.0, self.factor + recovered)

    def rates(self, bounds: Bounds, now: float) -> Amounts:
        """Return what a minute allows at `now`; 0 where nothing limits."""
        share = self.factor_at(now) * (_AFTER_REFUSAL if self.refused_at else 1.0)
        return Amounts(
            *(
                share * (min(wanted, told) if wanted and told else wanted or told)
                for wanted, told in zip(bounds.per_minute, self.told, strict=True)
            )
        )

    def refill(self, bounds: Bounds, now: float) -> Amounts:
        """Give back what the time since the last change has brought; returns the rates."""
        rates = self.rates(bounds, now)
        passed = max(0.0, now - self.updated)
        for place, rate in enumerate(rates):
            self.used[place] = max(0.0, self.used[place] - passed * rate / 60) if rate else 0.0
        # A clock that went back must not count the same seconds twice.
        self.updated = max(self.updated, now) if self.updated - now < _LONGEST_BLOCK else now
        return rates

    def wait_for(self, amounts: Amounts, bounds: Bounds, now: float, *, headroom: float = 0.0) -> float:
        """Return after how many seconds a call may go.

        Args:
            amounts: What it takes. More than a whole bucket waits for a full one.
            bounds: Of the settings.
            now: On the store's clock.
            headroom: Share of each bucket that the call must leave to others, from 0 to 1.
        """
        rates = self.refill(bounds, now)
        wait = min(_LONGEST_BLOCK, max(0.0, self.blocked_until - now))
        for used, rate, amount, size in zip(self.used, rates, amounts, _sizes(rates, bounds), strict=True):
            if rate and amount:
                needed = min(amount + headroom * size, size)
                wait = max(wait, (used + needed - size) * 60 / rate)
        return wait

    def reserve(self, amounts: Amounts, bounds: Bounds, now: float, *, headroom: float = 0.0) -> Reserved:
        """Take `amounts`, from the future if need be."""
        wait = self.wait_for(amounts, bounds, now, headroom=headroom)
        self.add(amounts)
        rates = self.rates(bounds, now)
        left = (
            min(size, size - used + wait * rate / 60) if rate else math.inf
            for size, used, rate in zip(_sizes(rates, bounds), self.used, rates, strict=True)
        )
        return Reserved(wait, Amounts(*left), now + wait)

    def add(self, amounts: Sequence[float]) -> None:
        """Take, or with negative amounts give back, without waiting."""
        for place, amount in enumerate(amounts):
            self.used[place] = max(0.0, self.used[place] + amount)

    def correct(self, left: Amounts, theirs: Amounts, bounds: Bounds, *, due: float, now: float) -> None:
        """Bring the state in line with what the provider had left when it took a call.

        Only a difference that shows that others use the account counts, and only from calls that were due after the
        last correction: those before it tell of the same difference.

        Args:
            left: What we thought would be left.
            theirs: What was left; infinite where the provider does not say.
            bounds: Of the settings.
            due: When the call was due.
            now: On the store's clock.
        """
        if due <= self.corrected_at:
            return
        rates = self.refill(bounds, now)
        missing = [
            # Of a limit that nobody knew when the call went there is nothing to compare.
            mine - their if math.isfinite(mine) and mine - their > _NOTICED * rate else 0.0
            for mine, their, rate in zip(left, theirs, rates, strict=True)
        ]
        if any(missing):
            self.add(missing)
            self.corrected_at = now

    def tell(self, told: Amounts) -> None:
        """Keep what the provider says a minute allows; 0 says nothing."""
        if any(told):
            self.told = Amounts(*(new or old for new, old in zip(told, self.told, strict=True)))
            self.guessed = False

    def refuse(self, bounds: Bounds, now: float, *, retry_after: float, told: Amounts, reached: Amounts) -> None:
        """Note a refusal.

        Args:
            bounds: Of the settings.
            now: On the store's clock.
            retry_after: Seconds for which the provider wants no call.
            told: What it says that a minute allows.
            reached: What the last minute had, for a limit of which nobody tells anything.
        """
        rates = self.refill(bounds, now)
        self.blocked_until = max(self.blocked_until, now + min(retry_after, _LONGEST_BLOCK))
        news = any(new and not old for new, old in zip(told, rates, strict=True))
        self.tell(told)
        if self.refused_at and now < self.refused_at + COOL_DOWN_SECONDS:
            return
        if self.guessed or not any(self.rates(bounds, now)):
            # Better a guess that recovers than no limit at all.
            self.told = Amounts(*(amount and max(1.0, amount) for amount in reached))
            self.guessed, self.factor, self.refused_at = True, 1.0, 0.0
        self.factor = 1.0 if news else max(_LOWEST, self.factor_at(now) * _DECREASE)
        self.refused_at = now
        self.episodes += 1
        rates = self.rates(bounds, now)
        for place, size in enumerate(_sizes(rates, bounds)):
            self.used[place] = max(self.used[place], size)


def _sizes(rates: Amounts, bounds: Bounds) -> Sequence[float]:
    """Return the sizes of the buckets. One request always fits: a limit of two a minute has no tenth of one."""
    requests, tokens, output_tokens = (rate * bounds.burst / 60 for rate in rates)
    return (max(1.0, requests) if requests else 0.0, tokens, output_tokens)
