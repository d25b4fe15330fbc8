"""Words by which a text is refused, and why: read from the files that come with this package."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from importlib import resources

from pydantic import BaseModel, ConfigDict

from guidance_agent.core.shipped import read_shipped

__all__ = ["Wording", "wordings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What is not to be said.

    Attributes:
        name: Of the check that fails.
        reason: Why a text is refused that says it.
        patterns: How it is said.
        unless: What excuses it where it stands before it.
    """

    name: str
    reason: str
    patterns: tuple[re.Pattern[str], ...]
    unless: re.Pattern[str] | None

    def first_in(self, text: str) -> re.Match[str] | None:
        """Return where a text says it without excuse, by the first pattern that finds it; None where it does not."""
        for pattern in self.patterns:
            for hit in pattern.finditer(text):
                if self.unless is None or not self.unless.search(text[: hit.start()]):
                    return hit
        return None


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    reason: str
    patterns: tuple[str, ...]
    unless: str | None = None


@functools.cache
def wordings(file: str) -> tuple[Wording, ...]:
    """Return what a file of this package names, in its order.

    Raises:
        KnowledgeError: when it is missing or holds something else.
    """
    written = read_shipped(resources.files("guidance_agent.learning") / file, list[_Written])
    return tuple(
        Wording(
            name=each.name,
            reason=each.reason,
            patterns=tuple(re.compile(pattern, re.IGNORECASE) for pattern in each.patterns),
            unless=None if each.unless is None else re.compile(each.unless, re.IGNORECASE),
        )
        for each in written
    )
