"""The subjects that the simulated model can speak about, and which of them a question is on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Option", "Topic", "topic_of", "topics"]


@dataclass(frozen=True, slots=True)
class Option:
    """One way open to a customer: how it works, and what could go wrong."""

    name: str
    how: str
    risk: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What can be said on one subject. `plain` is a whole answer for subjects that are no decision."""

    name: str
    weight: float
    cues: tuple[re.Pattern[str], ...]
    plain: str = ""
    opening: str = ""
    options_title: str = ""
    options: tuple[Option, ...] = ()
    affected: str = ""
    check: tuple[str, ...] = ()
    signpost: str = ""
    closing: str = ""


@cache
def topics() -> tuple[Topic, ...]:
    source = files(__package__).joinpath("topics.toml").read_text(encoding="utf-8")
    return tuple(
        Topic(
            name=raw["name"],
            weight=float(raw["weight"]),
            cues=tuple(re.compile(cue, re.IGNORECASE) for cue in raw["cues"]),
            plain=raw.get("plain", "").strip(),
            opening=raw.get("opening", "").strip(),
            options_title=raw.get("options_title", ""),
            options=tuple(Option(*option) for option in raw.get("options", ())),
            affected=raw.get("affected", ""),
            check=tuple(raw.get("check", ())),
            signpost=raw.get("signpost", ""),
            closing=raw.get("closing", ""),
        )
        for raw in tomllib.loads(source)["topic"]
    )


def topic_of(question: str, earlier: Sequence[str] = ()) -> Topic:
    """The topic with the most cues in the question; a short follow-up takes its subject from what came before."""
    best = _best(question)
    if best is None:
        for text in reversed(earlier):
            best = _best(text)
            if best is not None and best.name != "greeting":
                return best
    return best or topics()[-1]


def _best(text: str) -> Topic | None:
    scores = [(topic.weight * sum(1 for cue in topic.cues if cue.search(text)), topic) for topic in topics()]
    score, best = max(scores, key=lambda pair: pair[0])
    return best if score > 0 else None
