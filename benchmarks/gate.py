"""What the rules of the gate know: labelled sentences that they were not written from, class by class, and their cost.

`tests/compliance_sentences/held_out.jsonl` and `ordinary_held_out.jsonl` were written by other hands than the rules and
are looked at only here. The development files are those that the rules were written from: their figures say nothing.
The rules are those of one day with its dated facts, as an answer has them. Times are CPU times of the thread, so that a
busy machine does not count as the gate's work.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path

from benchmarks.rows import Place, Row
from guidance_agent.compliance.checks import TextVerdict, check_text
from guidance_agent.compliance.dated_rules import DatedRules, GateRules
from guidance_agent.compliance.gate import SentenceGate, Withholding
from guidance_agent.compliance.language import Words, tokens_of
from guidance_agent.compliance.policy import load_policy
from guidance_agent.knowledge.loader import load_knowledge

__all__ = ["run"]

SENTENCES = Path(__file__).parents[1] / "tests" / "compliance_sentences"
DAY = date(2026, 11, 21)
"""The day for which the sentences say whether a figure is right."""
ADVISOR_PATH = Path(__file__).parent / "results" / "advisor_path.json"
WHOLE_PATH = "whole path, CPU per chunk, burst, anthropic"
CUED, DECIDED, FALSE = "breaches cued", "breaches decided", "permitted decided (false alarms)"


def _lines(name: str) -> Iterator[Mapping[str, str | bool]]:
    with (SENTENCES / name).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


@lru_cache(maxsize=1)
def _rules() -> DatedRules:
    return GateRules(load_knowledge(None)).on(DAY)


def _verdict(text: str) -> TextVerdict:
    return check_text(text, _rules(), load_policy())


def _labelled(name: str, title: str) -> Iterator[Row]:
    counts: Counter[tuple[str, str]] = Counter()
    for line in _lines(name):
        verdict, is_breach = _verdict(str(line["text"])), bool(line["breach"])
        for kind in (str(line["class"]), "all"):
            counts[kind, "breaches" if is_breach else "permitted"] += 1
            counts[kind, CUED] += is_breach and verdict.cued
            counts[kind, DECIDED if is_breach else FALSE] += verdict.decision in ("replace", "stop", "flag")
    targets = {CUED: "≥ 0.95", DECIDED: "≥ 0.60", FALSE: "≤ 0.05"}
    for kind in [*sorted({kind for kind, _ in counts} - {"all"}), "all"]:
        for column, of in ((CUED, "breaches"), (DECIDED, "breaches"), (FALSE, "permitted")):
            share = counts[kind, column] / counts[kind, of]
            words = f"{counts[kind, column]} of {counts[kind, of]} ({share:.2f})"
            yield Row(
                name=f"{title}: {kind}, {column}",
                unit="",
                value=round(share, 3),
                floor=None,
                ratio=None,
                target=targets[column] if kind == "all" else "",
                place=Place(table=title, line=kind, column=f"{column} {targets[column]}", words=words),
            )


def _ordinary(name: str, title: str) -> Iterator[Row]:
    sentences = held = replaced = 0
    for line in _lines(name):
        gate = SentenceGate(_rules(), load_policy())
        released = [*gate.feed(str(line["reply"])), *gate.finish()]
        sentences += gate.sentences
        held += gate.sentences_held
        replaced += sum(isinstance(item, Withholding) for item in released)
    share = round(held / sentences, 3)
    yield Row(
        name=f"{title}: sentences held, of {sentences}", unit="", value=share, floor=None, ratio=None, target="≤ 0.15"
    )
    yield Row(name=f"{title}: sentences replaced", unit="", value=replaced, floor=None, ratio=None, target="0")


def _cost() -> Iterator[Row]:
    texts = [str(line["text"]) for line in _lines("held_out.jsonl")]
    for text in texts:
        _rules().judge(Words(tokens_of(text)), text, "")
    took = [
        min(_spent([text[start : start + 4] for start in range(0, len(text), 4)]) for _ in range(3)) for text in texts
    ]
    percent = statistics.quantiles(took, n=100)
    for name, value, target in (("p50", percent[49], ""), ("p99", percent[98], "< 1")):
        yield Row(
            name=f"gate, CPU of a hard sentence in pieces of 4, {name}",
            unit="ms",
            value=round(value * 1e3, 2),
            floor=None,
            ratio=None,
            target=target,
        )
    ordinary = " ".join(str(line["reply"]) for line in _lines("ordinary_held_out.jsonl"))
    pieces = [ordinary[start : start + 5] for start in range(0, len(ordinary), 5)]
    path = _whole_path()
    for size, name in ((1, "each fed by itself"), (200, "200 fed at a time, beside the whole path")):
        fed = ["".join(pieces[start : start + size]) for start in range(0, len(pieces), size)]
        spent = statistics.median(_spent(fed) for _ in range(5)) / len(pieces) * 1e6
        # The path was measured with its gate on, in a burst, where pieces come together as these do.
        beside = path if size > 1 else None
        yield Row(
            name=f"gate, CPU per chunk of ordinary guidance, {name}",
            unit="µs",
            value=round(spent, 1),
            floor=beside,
            ratio=round(spent / beside, 2) if beside else None,
            target="",
        )


def _spent(pieces: Sequence[str]) -> float:
    """Return the seconds of CPU that a gate takes for a text."""
    gate = SentenceGate(_rules(), load_policy())
    began = time.thread_time()
    for piece in pieces:
        gate.feed(piece)
    gate.finish()
    return time.thread_time() - began


def _whole_path() -> float | None:
    """Return what the whole advisor path took for a chunk when it was measured last; None if it has not been."""
    if not ADVISOR_PATH.exists():
        return None
    rows: list[Row] = json.loads(ADVISOR_PATH.read_text(encoding="utf-8"))
    return next((row["value"] for row in rows if row["name"] == WHOLE_PATH), None)


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures."""
    return [
        *_labelled("held_out.jsonl", "Held-out sentences"),
        *_ordinary("ordinary_held_out.jsonl", "Ordinary guidance, held out"),
        *_cost(),
    ]
