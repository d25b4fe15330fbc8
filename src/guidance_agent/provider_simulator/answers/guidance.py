"""Puts an answer together: what was asked, what the facts say, the ways open side by side, a check, a signpost."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

from guidance_agent.provider_simulator.answers.reading import FactLine, PromptReading, stems
from guidance_agent.provider_simulator.answers.topics import Topic, topic_of
from guidance_agent.provider_simulator.tokens import count_tokens

__all__ = ["guidance_text", "notes_text"]

_GREETINGS = ("Thank you for asking{name}.", "Thanks for the question{name}.", "That is a fair question{name}.")
_AGAIN = ("Picking up from there{name}:", "To carry on from that{name}:", "On that point{name}:")
_FACTS_TITLE = ("What the facts say", "The facts in brief", "Facts that bear on this")
_GUIDANCE = (
    "This is guidance, not advice, and the choice is yours.",
    "This is general guidance and not a recommendation; the decision stays with you.",
)
_LEAST_FACT_ROOM = 25
_OVERRUN = 40
# Facts about rules for firms are in some prompts, too; a customer has no use for them.
_FOR_FIRMS = re.compile(
    r"\b(?:authorised firm|a firm must|firms must|guidance service|COBS|PERG|PRIN|handbook|regulated activity|"
    r"targeted support|consumer duty|language models?|this service|transcripts?)\b",
    re.IGNORECASE,
)


def _relevant(facts: Sequence[FactLine], question: str, topic: Topic) -> list[FactLine]:
    asked = stems(question)
    ways = " ".join(f"{option.name} {option.how} {option.risk}" for option in topic.options)
    around = stems(f"{topic.opening} {topic.affected} {ways}")
    words = [stems(fact.statement) for fact in facts]
    spread = Counter(stem for found in words for stem in found)
    scored = []
    for order, (fact, found) in enumerate(zip(facts, words, strict=True)):
        shared = found & (asked | around)
        if len(shared) < 2 or _FOR_FIRMS.search(fact.statement):
            continue
        # A word that many facts share says little about any of them.
        score = sum((2.0 if stem in asked else 1.0) / spread[stem] ** 0.5 for stem in shared)
        scored.append((-score / (6 + len(found)) ** 0.5, order, fact))
    return [fact for _, _, fact in sorted(scored, key=lambda row: row[:2])]


def _fact_lines(reading: PromptReading, topic: Topic, room: int) -> list[str]:
    lines: list[str] = []
    for fact in _relevant(reading.facts, reading.question, topic):
        size = count_tokens(fact.statement) + 3
        if size <= room and len(lines) < 3:
            lines.append(f"- {fact.statement}")
            room -= size
    return lines


def _lead(reading: PromptReading, topic: Topic, rng: random.Random) -> str:
    name = f", {reading.first_name}" if reading.first_name else ""
    if topic.name in ("bereavement", "scam"):
        return f"Thank you for telling me{name}." if topic.name == "scam" else ""
    return rng.choice(_AGAIN if reading.earlier else _GREETINGS).format(name=name)


def guidance_text(reading: PromptReading, *, seed: int, target_tokens: int) -> str:
    """An answer in plain British English of about `target_tokens`, without a steer; the same for the same prompt."""
    topic = topic_of(reading.question, reading.earlier)
    if topic.plain:
        return topic.plain
    rng = random.Random(f"{seed}:{topic.name}:{reading.question}")
    options = "\n".join(f"- **{option.name}**: {option.how}. Risk: {option.risk}." for option in topic.options)
    lead, check = _lead(reading, topic, rng), rng.choice(topic.check)
    title, guidance = rng.choice(_FACTS_TITLE), rng.choice(_GUIDANCE)
    fixed = [
        f"**{topic.options_title}**\n{options}",
        f"**What may be affected**\n{topic.affected}",
        f"{check}",
        f"{topic.signpost} {guidance} {topic.closing}",
    ]
    opening = f"{lead} {topic.opening}".strip()
    used = count_tokens("\n\n".join((opening, *fixed)))
    room = max(_LEAST_FACT_ROOM, target_tokens + _OVERRUN - used)
    facts = _fact_lines(reading, topic, room)
    parts = [opening, *([f"**{title}**\n" + "\n".join(facts)] if facts else []), *fixed]
    return "\n\n".join(parts)


def notes_text(reading: PromptReading) -> str:
    """Private notes for whoever answers: some 25 tokens, nothing meant for the customer."""
    topic = topic_of(reading.question, reading.earlier)
    ids = ", ".join(fact.id for fact in _relevant(reading.facts, reading.question, topic)[:2])
    subject = topic.name.replace("_", " ")
    facts = f"facts {ids}" if ids else "no facts given"
    safety = "safety first" if topic.name in ("crisis", "scam") else "no safety sign"
    return f"Needs {subject}; {facts}; name risks, both sides; no steer; {safety}."
