"""Malformed answers of a known class: six classes, at every depth and place of a nested object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from guidance_agent.llm.json_faults import FaultClass

__all__ = ["DEPTHS", "PLACES", "Case", "corpus", "document"]

DEPTHS = range(1, 6)
PLACES = range(3)

Entries = list[tuple[str, str]]
Break = Callable[[Entries, int], str]


class Case(NamedTuple):
    """A text, and what is wrong with it."""

    kind: FaultClass
    name: str
    text: str


def whole(entries: Entries) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in entries) + "}"


def document(depth: int, at: int = -1, place: int = 0, broken: Break | None = None) -> str:
    """Return an object of `depth` levels, the one at level `at` written by `broken`."""
    text = '"end"'
    for level in reversed(range(depth)):
        entries = [('"name"', f'"Pot {level}, \\"A\\": {{1}} [£]"'), ('"values"', "[1, -2.5e3, true, null]")]
        entries.insert(level % 3, ('"inner"', text))
        text = whole(entries) if level != at or broken is None else broken(entries, place)
    return text


def _with_value(value: str) -> Break:
    return lambda entries, place: whole([*entries[:place], (entries[place][0], value), *entries[place + 1 :]])


def _with_entry(written: Callable[[str, str], str]) -> Break:
    def broken(entries: Entries, place: int) -> str:
        parts = [f"{key}: {value}" for key, value in entries]
        parts[place] = written(*entries[place])
        return "{" + ", ".join(parts) + "}"

    return broken


def _without_comma(entries: Entries, place: int) -> str:
    parts = [f"{key}: {value}" for key, value in entries]
    after = place if place < 2 else 1
    return "{" + "".join(part + ("" if i == 2 else " " if i == after else ", ") for i, part in enumerate(parts)) + "}"


BREAKS: dict[FaultClass, dict[str, Break]] = {
    "trailing_comma": {
        "of an object": lambda entries, place: whole(entries)[:-1] + ",}",
        "before blanks": lambda entries, place: whole(entries)[:-1] + " , \n }",
        "of a list": _with_value("[1, 2,]"),
        "of an object in a list": _with_value('[{"a": "b", }]'),
    },
    "missing_value": {
        "after a colon": _with_entry(lambda key, value: f"{key}: "),
        "and the colon": _with_entry(lambda key, value: key),
        "between commas": lambda entries, place: _with_entry(lambda key, value: f"{key}: {value},")(entries, place % 2),
        "first in a list": _with_value("[, 1]"),
        "in a list": _with_value("[1,, 2]"),
        "first in an object": lambda entries, place: "{," + whole(entries)[1:],
    },
    "wrong_structure": {
        "key without quotes": _with_entry(lambda key, value: f"{key[1:-1]}: {value}"),
        "single quotes": _with_entry(lambda key, value: f"'{key[1:-1]}': {value}"),
        "value in single quotes": _with_value("'yes'"),
        "equals sign": _with_entry(lambda key, value: f"{key} = {value}"),
        "no comma": _without_comma,
        "no comma in a list": _with_value("[1 2]"),
        "wrong bracket": _with_value("[1, 2}"),
        "not a number": _with_value("NaN"),
        "another language's word": _with_value("None"),
        "a number that is none": _with_value("01"),
        "a comment": _with_value("1 /* pounds */"),
        "a line break in a text": _with_value('"one\ntwo"'),
    },
}
AROUND: dict[str, Callable[[str], str]] = {
    "words after": lambda text: f"{text}\nI hope this helps.",
    "words before": lambda text: f"Here is the answer:\n{text}",
    "a code fence": lambda text: f"```json\n{text}\n```",
    "a second object": lambda text: f"{text}\n{text}",
    "a bracket too many": lambda text: f"{text}}}",
    "a comma after": lambda text: f"{text},",
}


def corpus() -> Iterator[Case]:
    """Yield all cases but those that break a schema, which need one."""
    for depth in DEPTHS:
        for at in range(depth):
            for place in PLACES:
                for kind, breaks in BREAKS.items():
                    for name, broken in breaks.items():
                        text = document(depth, at, place, broken)
                        yield Case(kind, f"{name}, depth {depth}, level {at}, place {place}", text)
        text = document(depth)
        for name, around in AROUND.items():
            yield Case("extra_data", f"{name}, depth {depth}", around(text))
        for cut in range(1, len(text), 7):
            yield Case("unterminated", f"cut at {cut}, depth {depth}", text[:cut])
