"""Which parts of a prompt a call read from a cache, wrote to it, or paid in full.

A provider reports how many tokens it read and wrote, not which. What it reads is always the start of the prompt, and
what it writes follows; so the ends of the parts, which the plan estimated, tell the parts apart once the estimate is
scaled to a count of the provider's:

- With breakpoints what was read and written together ends exactly at the last of them.
- A model that caches by itself reports no writes and reads in whole steps; its count of the whole prompt is the scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from guidance_agent.llm.messages import ModelRequest, Usage
from guidance_agent.llm.providers.base import CachePlan
from guidance_agent.llm.providers.planning import estimated_tokens

__all__ = ["PartUse", "part_uses"]

PartUse = Literal["read", "extended", "written", "uncached"]
"""`read` as a whole; `extended`: its beginning was read and its end was not; `written`; or `uncached`, paid in full."""

# What an estimate may be wrong by after it was scaled.
_TOLERANCE = 0.03

# Automatic caches are read in steps of this many tokens, so that up to one step of a part that is there is not read.
_STEP = 128


class _Span(NamedTuple):
    """A part's place in the prompt, in tokens of the provider."""

    name: str
    start: float
    end: float

    @property
    def tolerance(self) -> float:
        return min(self.end * _TOLERANCE, (self.end - self.start) / 2)


def part_uses(request: ModelRequest, plan: CachePlan, usage: Usage | None) -> Mapping[str, PartUse]:
    """Return what became of each named part; empty when the provider did not report it.

    Args:
        request: What was sent.
        plan: Its cache plan.
        usage: What the provider reported. One marked as estimated counts only where it names reads or writes.
    """
    if usage is None or not plan.parts:
        return {}
    stored = usage.cache_read_tokens + usage.cache_write_tokens
    if not stored and (usage.estimated or not plan.reported):
        return {}
    if not stored:
        return {part.name: "uncached" for part in plan.parts}
    if plan.breakpoints:
        return dict(_at_breakpoints(plan, usage))
    return dict(_in_steps(request, plan, usage))


def _at_breakpoints(plan: CachePlan, usage: Usage) -> Iterator[tuple[str, PartUse]]:
    marked = {point.index for point in plan.breakpoints}
    last = next((part for part in reversed(plan.parts) if part.index in marked), plan.parts[-1])
    read, stored = usage.cache_read_tokens, usage.cache_read_tokens + usage.cache_write_tokens
    for span in _spans(plan, stored / max(1, last.tokens)):
        # Where something was written, the part that ends at the last breakpoint was not read as a whole.
        whole = not usage.cache_write_tokens if span.name == last.name else read >= span.end - span.tolerance
        if whole:
            yield span.name, "read"
        elif read > span.start + span.tolerance:
            yield span.name, "extended"
        else:
            yield span.name, "written" if stored >= span.end - span.tolerance else "uncached"


def _in_steps(request: ModelRequest, plan: CachePlan, usage: Usage) -> Iterator[tuple[str, PartUse]]:
    named = plan.parts[-1]
    estimate = named.tokens + estimated_tokens(request.messages[max(0, named.index + 1) :])
    for span in _spans(plan, usage.total_input_tokens / max(1, estimate)):
        if usage.cache_read_tokens >= span.end - span.tolerance - _STEP:
            yield span.name, "read"
        elif usage.cache_read_tokens > span.start + span.tolerance:
            yield span.name, "extended"
        else:
            yield span.name, "uncached"


def _spans(plan: CachePlan, scale: float) -> Iterator[_Span]:
    start = 0.0
    for part in plan.parts:
        end = part.tokens * scale
        yield _Span(part.name, start, end)
        start = end
