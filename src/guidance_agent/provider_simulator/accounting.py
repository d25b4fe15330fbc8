"""How many input tokens a request read from the cache, wrote to it, or neither."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheUse"]


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Input tokens of one request, split so that the parts add up."""

    uncached: int
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0

    @property
    def written(self) -> int:
        return self.written_5m + self.written_1h

    @property
    def total(self) -> int:
        return self.uncached + self.read + self.written
