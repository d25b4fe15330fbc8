"""The prompt cache of the batches, in the database.

It is a cache of its own: interactive calls and batches do not see each other's entries, later batches see those of
earlier ones. Requests of one wave are under way at once, so none of them reads what another one writes.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from guidance_agent.provider_simulator.cache_store import CacheEntry

__all__ = ["PrefixTable", "forget_expired"]


@dataclass(slots=True)
class _KeyedEntry(CacheEntry):
    key: str


class PrefixTable:
    """The entries as one wave of a batch sees them."""

    def __init__(self, connection: sqlite3.Connection, wave: str) -> None:
        self._connection = connection
        self._wave = wave

    def live(self, key: str, now: float) -> CacheEntry | None:
        """The entry if it can be read now."""
        row = self._connection.execute(
            "SELECT ttl, expires, readable_at, born FROM prefixes "
            "WHERE key = ? AND expires > ? AND readable_at <= ? AND wave != ?",
            (key, now, now, self._wave),
        ).fetchone()
        if row is None:
            return None
        return _KeyedEntry(row["ttl"], row["expires"], row["readable_at"], row["born"], key)

    def refresh(self, entry: CacheEntry, now: float, *, at_most: float = float("inf")) -> None:
        """A read starts the entry's time to live again, up to `at_most` seconds after its birth."""
        expires = min(now + entry.ttl, entry.born + at_most)
        if isinstance(entry, _KeyedEntry) and expires > entry.expires:
            self._connection.execute("UPDATE prefixes SET expires = ? WHERE key = ?", (expires, entry.key))

    def write(self, key: str, *, ttl: float, now: float) -> None:
        """Keep a prefix; one that is known lives as long as the longer of the two."""
        self._connection.execute(
            "INSERT INTO prefixes (key, ttl, expires, readable_at, born, wave) "
            "VALUES (:key, :ttl, :ends, :now, :now, :wave) "
            "ON CONFLICT (key) DO UPDATE SET "
            "wave = CASE WHEN expires > :now THEN wave ELSE :wave END, "
            "born = CASE WHEN expires > :now THEN born ELSE :now END, "
            "readable_at = CASE WHEN expires > :now THEN min(readable_at, :now) ELSE :now END, "
            "ttl = CASE WHEN expires > :now THEN max(ttl, :ttl) ELSE :ttl END, "
            "expires = max(expires, :ends)",
            {"key": key, "ttl": ttl, "ends": now + ttl, "now": now, "wave": self._wave},
        )


def forget_expired(connection: sqlite3.Connection, now: float) -> None:
    connection.execute("DELETE FROM prefixes WHERE expires <= ?", (now,))
