"""Finds the question, the facts and the customer in a prompt, without knowing who wrote it."""

from __future__ import annotations

import calendar
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from guidance_agent.provider_simulator.prompt import Prompt

__all__ = ["FactLine", "PromptReading", "read_prompt", "shown_schema", "stems", "tagged"]

_TAGGED = r"<{name}>\s*(.*?)\s*</{name}>"
_FACT = re.compile(r"^\s*(?:[-*•]|\d+\.)\s*\[([A-Za-z][\w-]{0,39})\]\s*(.+?)\s*$", re.MULTILINE)
_META = re.compile(r"\s*\((?:[^()]|\([^()]*\))*\b(?:source|valid|from|until|upcoming)\b(?:[^()]|\([^()]*\))*\)\s*$")
_NOT_YET = re.compile(r"not in force until (\d{4})-(\d{2})-(\d{2})")
_FIRST_NAME = re.compile(r"^\W*(?:(?i:first[ _]name|customer name|name))\W*?:\s*\"?([A-Z][\w'’-]{1,24})", re.MULTILINE)
_QUESTION_LABEL = re.compile(
    r"^\W*(?:customer(?:'s)? )?(?:question|query|message)\W*?:\s*(.+)$", re.IGNORECASE | re.MULTILINE
)
_WORD = re.compile(r"[a-z]{3,}")
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ments", "ment", "ers", "ed", "es", "s", "y")
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """the and for are was were has have had not but with from that this they them their there what when which who
        how can could would will you your his her its our out all any about into than then too very just some only mine
        get got one two may must does did pension pensions""",
    )
)
_MONTHS = tuple(calendar.month_name)


@dataclass(frozen=True, slots=True)
class FactLine:
    """A fact as it stands in the prompt, without its source, with its start date when it is not in force yet."""

    id: str
    statement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptReading:
    """What the composer needs to know of a prompt."""

    question: str
    earlier: tuple[str, ...]
    facts: tuple[FactLine, ...]
    first_name: str | None


@lru_cache(maxsize=1_024)
def stems(text: str) -> frozenset[str]:
    """Word stems of a text, rough but the same for question and fact."""
    found = set()
    for word in _WORD.findall(text.lower()):
        if word in _STOP_WORDS:
            continue
        for ending in _ENDINGS:
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                word = word[: -len(ending)]
                break
        found.add(word)
    return frozenset(found)


def tagged(text: str, name: str) -> str | None:
    """The content of the last `<name>` element; None when there is none."""
    found = re.findall(_TAGGED.format(name=name), text, re.DOTALL | re.IGNORECASE)
    return str(found[-1]) if found else None


@lru_cache(maxsize=16)
def shown_schema(text: str) -> dict[str, Any] | None:
    """The JSON Schema that a prompt shows between tags of that name, where it asks for JSON in words."""
    shown = tagged(text, "json_schema")
    try:
        schema = json.loads(shown) if shown is not None else None
    except ValueError:
        return None
    return schema if isinstance(schema, dict) else None


def _question_of(message: str) -> str:
    for name in ("question", "customer_question", "query", "customer_message"):
        found = tagged(message, name)
        if found:
            return found
    labelled = _QUESTION_LABEL.findall(message)
    if labelled:
        return str(labelled[-1]).strip()
    return re.sub(r"<(\w+)>.*?</\1>", " ", message, flags=re.DOTALL).strip() or message.strip()


@lru_cache(maxsize=256)
def _facts_in(text: str) -> tuple[FactLine, ...]:
    found = []
    for fact_id, line in _FACT.findall(text):
        statement = _META.sub("", line).strip()
        upcoming = _NOT_YET.search(line)
        if upcoming is not None:
            year, month, day = upcoming.groups()
            statement += f" (not in force until {int(day)} {_MONTHS[int(month)]} {year})"
        found.append(FactLine(fact_id, statement))
    return tuple(found)


@lru_cache(maxsize=256)
def _first_name_in(text: str) -> str | None:
    found = _FIRST_NAME.search(text)
    return found.group(1) if found is not None else None


def read_prompt(prompt: Prompt) -> PromptReading:
    """Read a prompt by the marks that people put into prompts: tags, labels and bullet lines."""
    everything = (*prompt.system, prompt.last_message)
    name = next((found for text in everything if (found := _first_name_in(text))), None)
    facts: dict[str, FactLine] = {}
    for text in reversed(everything):
        for fact in _facts_in(text):
            facts.setdefault(fact.id, fact)
    earlier = tuple(_question_of(text) for role, text in prompt.conversation[:-1] if role == "user" and text.strip())
    return PromptReading(
        question=_question_of(prompt.last_message),
        earlier=earlier,
        facts=tuple(facts.values()),
        first_name=name if name and name.lower() not in ("customer", "unknown", "none") else None,
    )
