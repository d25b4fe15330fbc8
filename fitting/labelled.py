"""The labelled sentences that the gate's models are fitted to.

A permitted text is permitted in every sentence of it. Which sentence of a longer breach is the breach, nobody has said:
those are judged as a whole, by their worst sentence, and not learned from. The held-out files are never read here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from guidance_agent.compliance.language import tokens_of
from guidance_agent.compliance.sentence_features import shape_of, spoken

__all__ = ["CHECKS", "Kind", "Labelled", "read_labelled", "sentences_of", "spoken_words", "written_words"]

LABELLED = Path(__file__).resolve().parent.parent / "tests" / "compliance_sentences"
FIGURES = frozenset(("figure_amount", "figure_year"))
"""Classes that the dated facts decide, and no model."""
CHECK_OF_CLASS = {
    "guarantee": "false_guarantee",
    "pressure": "pressure",
    "scam": "scam",
    "safeguarded": "safeguarded_benefits",
}
CHECKS = ("advice_boundary", *CHECK_OF_CLASS.values())

Kind = Literal["breach", "permitted", "ordinary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A text with its sentences; `author` is who wrote it, or for ordinary guidance a part of the replies."""

    sentences: tuple[str, ...]
    kind: Kind
    check: str
    author: str


def read_labelled() -> Iterator[Labelled]:
    """Yield every text that may be learned from."""
    for name in ("development", "fitting"):
        for line in (LABELLED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            if item["class"] not in FIGURES:
                yield Labelled(
                    sentences=tuple(sentences_of(item["text"])),
                    kind="breach" if item["breach"] else "permitted",
                    check=CHECK_OF_CLASS.get(item["class"], "advice_boundary"),
                    author=item["id"].partition("-")[0],
                )
    replies = (LABELLED / "ordinary_development.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(replies):
        for sentence in sentences_of(json.loads(line)["reply"]):
            yield Labelled(sentences=(sentence,), kind="ordinary", check="", author=f"replies {number % 12}")


def sentences_of(text: str) -> list[str]:
    """Return the sentences and list items of a text."""
    return [part for each in re.split(r"(?<=[.!?])\s+|\n+", text) if (part := each.strip())]


def written_words(sentence: str) -> list[str]:
    """Return the words of a sentence as the cue sees them."""
    return [shape for token in tokens_of(sentence) if (shape := shape_of(token.text))]


def spoken_words(sentence: str) -> list[str]:
    """Return the words of a sentence without what is quoted."""
    return [word for word, _ in spoken(tokens_of(sentence))]
