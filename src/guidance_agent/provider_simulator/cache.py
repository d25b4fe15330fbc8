"""The prompt caches of the simulated providers: what a request reads, and what it leaves for later ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from guidance_agent.provider_simulator.accounting import CacheUse
from guidance_agent.provider_simulator.cache_anthropic import PlannedWrite, account_anthropic
from guidance_agent.provider_simulator.cache_openai import account_openai_breakpoints, account_openai_prefix
from guidance_agent.provider_simulator.cache_store import EntryStore, PrefixStore, load_entries, save_entries
from guidance_agent.provider_simulator.clock import Clock
from guidance_agent.provider_simulator.faults import seeded
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.settings import SimulatorSettings

__all__ = ["CacheLease", "PromptCaches", "account"]

_SAVE_AFTER = 0.2


def account(
    prompt: Prompt, store: PrefixStore, *, workspace: str, now: float, miss: bool, idle_ttl: float
) -> tuple[CacheUse, list[PlannedWrite]]:
    """What a request reads and writes by the rules of its model; `miss` makes it find nothing."""
    match prompt.model.regime:
        case "anthropic":
            return account_anthropic(prompt, store, workspace=workspace, now=now, miss=miss)
        case "openai_breakpoints":
            return account_openai_breakpoints(prompt, store, workspace=workspace, now=now, miss=miss)
        case "openai_prefix":
            return account_openai_prefix(prompt, store, workspace=workspace, now=now, miss=miss, idle_ttl=idle_ttl)
        case "none":
            return CacheUse(uncached=prompt.input_tokens), []


@dataclass(frozen=True, slots=True)
class CacheLease:
    """What one request read and what it will write: nothing is readable before its response has begun."""

    use: CacheUse
    writes: tuple[PlannedWrite, ...]
    started: float
    store: EntryStore

    def commit(self, now: float) -> None:
        """Make the writes readable; called when the response begins."""
        for key, ttl in self.writes:
            self.store.write(key, ttl=ttl, started=self.started, readable_at=now)


class PromptCaches:
    """Entries of all models and workspaces, each model by its provider's rules."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._settings = settings
        self._store = EntryStore()
        self._draws = 0
        self._forgotten = False

    @property
    def size(self) -> int:
        return len(self._store)

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()
        self._forgotten = True

    def begin(self, prompt: Prompt, *, workspace: str, now: float) -> CacheLease:
        """Account for a request that arrived `now`; the lease is committed when its response begins."""
        use, writes = account(
            prompt,
            self._store,
            workspace=workspace,
            now=now,
            miss=prompt.model.wire == "openai" and self._misses(),
            idle_ttl=self._settings.openai_idle_ttl,
        )
        return CacheLease(use, tuple(writes), now, self._store)

    def _misses(self) -> bool:
        if not self._settings.openai_miss_rate:
            return False
        self._draws += 1
        return seeded(self._settings.seed, "miss", self._draws).random() < self._settings.openai_miss_rate

    async def load(self, path: Path, now: float) -> None:
        self._store.adopt(await asyncio.to_thread(load_entries, path, now))

    async def save(self, path: Path, now: float) -> None:
        replace, self._forgotten = self._forgotten, False
        await asyncio.to_thread(save_entries, path, self._store.snapshot(), now, replace=replace)

    async def keep_saved(self, path: Path, clock: Clock) -> None:
        """Save shortly after every change, until cancelled; the caller saves once more at the end."""
        saved = self._store.changes
        while True:
            await asyncio.sleep(_SAVE_AFTER)
            if self._store.changes != saved:
                saved = self._store.changes
                await self.save(path, clock.now())
