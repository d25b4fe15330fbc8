"""Anthropic's prompt-cache rules.

Entries are written at breakpoints only; a breakpoint looks back over at most 20 positions for an entry that an earlier
request wrote. With A the longest prefix read, B the last one-hour breakpoint and C the last breakpoint, A is billed as
read, B - A as one-hour write, and C - B as five-minute write.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.cache_store import CacheEntry, PrefixStore
from guidance_agent.provider_simulator.prompt import Block, Prompt, Section

__all__ = ["PlannedWrite", "account_anthropic"]

PlannedWrite = tuple[str, float]
"""Key of an entry and its time to live in seconds."""

_LOOK_BACK = 20
_TTL = {"5m": 300.0, "1h": 3_600.0}


def prefix_keys(prompt: Prompt, workspace: str) -> list[str]:
    """For each block the hash of the prefix that ends with it, and of all that the prefix depends on."""
    state = blake2b(f"{prompt.model.wire}\0{prompt.model.name}\0{workspace}\0".encode(), digest_size=16).digest()
    keys = []
    salted = -1
    order: tuple[Section, ...] = ("tools", "system", "messages")
    for block in prompt.blocks:
        for section in order[salted + 1 : order.index(block.section) + 1]:
            salt = prompt.salts.get(section, b"")
            state = blake2b(state + section.encode() + salt, digest_size=16).digest()
        salted = max(salted, order.index(block.section))
        state = blake2b(state + block.digest, digest_size=16).digest()
        keys.append(state.hex())
    return keys


def prefix_tokens(blocks: Sequence[Block]) -> list[int]:
    """For each block the tokens of the prefix that ends with it."""
    total = 0
    sizes = []
    for block in blocks:
        total += block.tokens
        sizes.append(total)
    return sizes


def _look_back(
    store: PrefixStore, blocks: Sequence[Block], keys: Sequence[str], mark: int, now: float
) -> tuple[int, CacheEntry] | None:
    positions = 1
    for index in range(mark, -1, -1):
        if index < mark and not (blocks[index].run and blocks[index].run == blocks[index + 1].run):
            positions += 1
        if positions > _LOOK_BACK:
            return None
        entry = store.live(keys[index], now)
        if entry is not None:
            return index, entry
    return None


def account_anthropic(
    prompt: Prompt, store: PrefixStore, *, workspace: str, now: float, miss: bool = False
) -> tuple[CacheUse, list[PlannedWrite]]:
    """What a request reads and writes; reads are refreshed, writes are left to the caller.

    `miss` makes it find nothing, as happens to requests of a batch.
    """
    blocks = prompt.blocks
    sizes = prefix_tokens(blocks)
    marks = [
        index
        for index, block in enumerate(blocks)
        if block.breakpoint is not None and sizes[index] >= prompt.model.cache_minimum
    ]
    total = prompt.input_tokens
    if not marks:
        return CacheUse(uncached=total), []
    keys = prefix_keys(prompt, workspace)
    read_index, read_entry = -1, None
    for mark in marks if not miss else []:
        hit = _look_back(store, blocks, keys, mark, now)
        if hit is None:
            continue
        store.refresh(hit[1], now)
        if hit[0] > read_index:
            read_index, read_entry = hit
    read = sizes[read_index] if read_entry is not None else 0
    hour_marks = [sizes[mark] for mark in marks if blocks[mark].breakpoint == "1h"]
    to_hour = max([read, *hour_marks])
    to_last = max(read, sizes[marks[-1]])
    writes = []
    for mark in marks:
        if not miss and store.live(keys[mark], now) is not None:
            continue
        ttl = _TTL[blocks[mark].breakpoint or "5m"]
        if read_entry is not None and mark < read_index:
            # Nothing is computed for a mark inside what was read: it cannot outlive what it came from.
            ttl = min(ttl, read_entry.ttl)
        writes.append((keys[mark], ttl))
    use = CacheUse(uncached=total - to_last, read=read, written_5m=to_last - to_hour, written_1h=to_hour - read)
    return use, writes
