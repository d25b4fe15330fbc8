"""The entries of the prompt caches, and the file in which they outlive the process."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["CacheEntry", "EntryStore", "PrefixStore", "load_entries", "save_entries"]

_PURGE_EVERY = 512


@dataclass(slots=True)
class CacheEntry:
    """A prefix that can be read until `expires`, from `readable_at` on; `born` is when it was first written."""

    ttl: float
    expires: float
    readable_at: float
    born: float


class PrefixStore(Protocol):
    """What the accounting of a request reads and renews."""

    def live(self, key: str, now: float) -> CacheEntry | None:
        """The entry if it can be read now."""

    def refresh(self, entry: CacheEntry, now: float, *, at_most: float = float("inf")) -> None:
        """A read starts the entry's time to live again, up to `at_most` seconds after its birth."""


class EntryStore:
    """Entries by the hash of everything that a prefix depends on."""

    def __init__(self) -> None:
        self._entries: dict[str, CacheEntry] = {}
        self._until_purge = _PURGE_EVERY
        self.changes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def live(self, key: str, now: float) -> CacheEntry | None:
        """The entry if it can be read now."""
        entry = self._entries.get(key)
        if entry is None or now >= entry.expires or now < entry.readable_at:
            return None
        return entry

    def refresh(self, entry: CacheEntry, now: float, *, at_most: float = float("inf")) -> None:
        """A read starts the entry's time to live again, up to `at_most` seconds after its birth."""
        entry.expires = max(entry.expires, min(now + entry.ttl, entry.born + at_most))
        self.changes += 1

    def write(self, key: str, *, ttl: float, started: float, readable_at: float) -> None:
        """Keep a prefix; its time to live runs from the start of the request that wrote it."""
        known = self._entries.get(key)
        if known is not None and readable_at < known.expires:
            known.ttl = max(known.ttl, ttl)
            known.expires = max(known.expires, started + ttl)
        else:
            self._entries[key] = CacheEntry(ttl, started + ttl, readable_at, started)
        self.changes += 1
        self._until_purge -= 1
        if self._until_purge <= 0:
            self._until_purge = _PURGE_EVERY
            self._entries = {k: e for k, e in self._entries.items() if e.expires > readable_at}

    def clear(self) -> None:
        self._entries.clear()
        self.changes += 1

    def adopt(self, entries: Mapping[str, CacheEntry]) -> None:
        """Take over entries that another process left."""
        for key, entry in entries.items():
            self._entries.setdefault(key, entry)

    def snapshot(self) -> dict[str, list[float]]:
        return {key: [entry.ttl, entry.expires, entry.readable_at, entry.born] for key, entry in self._entries.items()}


class _StateFile(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: int
    cache: dict[str, tuple[float, float, float, float]]


def load_entries(path: Path, now: float) -> dict[str, CacheEntry]:
    """The live entries of a state file; none when the file is absent or is not one (a cache may always be empty)."""
    try:
        state = _StateFile.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}
    return {key: CacheEntry(*row) for key, row in state.cache.items() if row[1] > now}


def save_entries(path: Path, entries: Mapping[str, list[float]], now: float, *, replace: bool = False) -> None:
    """Write the entries, joined with those that another process has put there meanwhile, in one atomic step."""
    merged: dict[str, Any] = {}
    if not replace:
        for key, found in load_entries(path, now).items():
            merged[key] = [found.ttl, found.expires, found.readable_at, found.born]
    for key, row in entries.items():
        if row[1] > now and (key not in merged or merged[key][1] < row[1]):
            merged[key] = row
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump({"version": 1, "cache": merged}, file)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
