"""Texts with planted personal data, and what must be seen of them nowhere outside the process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Planted", "planted"]

_FILE = Path(__file__).with_name("planted.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A text; `markers` are its parts that must not be exported, `known` the names that the profile has."""

    id: str
    kind: str
    text: str
    markers: tuple[str, ...]
    known: tuple[str, ...]

    def leaks_in(self, text: str) -> list[str]:
        """Return the markers that the text shows, as they are or as JSON writes them."""
        return [marker for marker in self.markers if any(form in text for form in _forms(marker))]


def _forms(marker: str) -> Iterator[str]:
    yield marker
    yield json.dumps(marker)[1:-1]
    yield json.dumps(marker, ensure_ascii=False)[1:-1]


def planted() -> tuple[Planted, ...]:
    """Return all of them."""
    texts = []
    for line in _FILE.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        texts.append(Planted(**{**entry, "markers": tuple(entry["markers"]), "known": tuple(entry["known"])}))
    return tuple(texts)
