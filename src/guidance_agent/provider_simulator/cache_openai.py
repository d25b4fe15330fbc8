"""OpenAI's two prompt-cache regimes.

From GPT-5.6 on a prefix is found only where a breakpoint stands, and writes are reported (and billed). Before that the
longest known prefix in steps of 128 tokens is found, and writes are free.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.cache_anthropic import PlannedWrite, prefix_keys, prefix_tokens
from guidance_agent.provider_simulator.cache_store import PrefixStore
from guidance_agent.provider_simulator.prompt import Prompt

__all__ = ["account_openai_breakpoints", "account_openai_prefix"]

_BREAKPOINT_TTL = {"30m": 1_800.0, "12h": 43_200.0}
_READ_MARKS = 50
_WRITE_MARKS = 4
_STEP = 128
_LONGEST_LIFE = 3_600.0
_RETAINED_LIFE = 86_400.0


def _shard(prompt: Prompt, workspace: str) -> str:
    return f"{workspace}\0{prompt.options['cache_key']}"


def account_openai_breakpoints(
    prompt: Prompt, store: PrefixStore, *, workspace: str, now: float, miss: bool
) -> tuple[CacheUse, list[PlannedWrite]]:
    """What a request reads and writes on the models with breakpoints; `miss` makes it find nothing."""
    sizes = prefix_tokens(prompt.blocks)
    implicit = prompt.options["cache_mode"] == "implicit"
    explicit_marks = [i for i, block in enumerate(prompt.blocks) if block.breakpoint is not None]
    turn_ends = [i for i, block in enumerate(prompt.blocks) if block.ends_turn] if implicit else []
    long_enough = [i for i, size in enumerate(sizes) if size >= prompt.model.cache_minimum]
    if not long_enough:
        return CacheUse(uncached=prompt.input_tokens), []
    shortest = long_enough[0]
    keys = prefix_keys(prompt, _shard(prompt, workspace))
    read = 0
    for mark in sorted({*explicit_marks, *turn_ends})[-_READ_MARKS:] if not miss else []:
        entry = store.live(keys[mark], now) if mark >= shortest else None
        if entry is not None:
            store.refresh(entry, now)
            read = sizes[mark]
    wanted = sorted({*explicit_marks, *turn_ends[-1:]})
    new = [mark for mark in wanted if mark >= shortest and (miss or store.live(keys[mark], now) is None)]
    new = new[-_WRITE_MARKS:]
    ttl = _BREAKPOINT_TTL[str(prompt.options["cache_ttl"])]
    written = max(0, sizes[new[-1]] - read) if new else 0
    use = CacheUse(uncached=prompt.input_tokens - read - written, read=read, written_5m=written)
    return use, [(keys[mark], ttl) for mark in new]


def account_openai_prefix(
    prompt: Prompt, store: PrefixStore, *, workspace: str, now: float, miss: bool, idle_ttl: float
) -> tuple[CacheUse, list[PlannedWrite]]:
    """What a request reads and leaves behind on the models with automatic prefixes; `miss` makes it find nothing."""
    steps = list(_steps(prompt, _shard(prompt, workspace)))
    retained = prompt.options["cache_retention"] == "24h"
    ttl, life = (_RETAINED_LIFE, _RETAINED_LIFE) if retained else (idle_ttl, _LONGEST_LIFE)
    read = 0
    for size, key in () if miss else steps:
        entry = store.live(key, now)
        if entry is not None:
            store.refresh(entry, now, at_most=life)
            read = size
    # A live entry is not written anew: its longest life runs from its birth.
    writes = [(key, ttl) for _, key in steps if store.live(key, now) is None]
    return CacheUse(uncached=prompt.input_tokens - read, read=read), writes


def _steps(prompt: Prompt, workspace: str) -> Iterator[tuple[int, str]]:
    """Size and hash of each prefix of a whole number of steps, from the shortest cacheable one on."""
    salt = prompt.salts.get("tools", b"")
    state = blake2b(f"{prompt.model.name}\0{workspace}\0".encode() + salt, digest_size=16)
    done = 0
    for block in prompt.blocks:
        state.update(block.marker + b"\0")
        done += block.overhead
        start = 0
        next_step = -(-max(done + 1, prompt.model.cache_minimum) // _STEP) * _STEP
        while next_step - done <= block.measured.tokens:
            end = block.measured.ends[next_step - done - 1]
            state.update(block.measured.text[start:end].encode("utf-8", "surrogatepass"))
            start = end
            yield next_step, state.copy().hexdigest()
            next_step += _STEP
        state.update(block.measured.text[start:].encode("utf-8", "surrogatepass"))
        done += block.measured.tokens
