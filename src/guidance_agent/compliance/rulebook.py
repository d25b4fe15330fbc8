"""The rules of the gate: read from the package's files once, then applied to one sentence at a time.

A rule is a pattern with a meaning:

- a *breach* says that a sentence crosses a line; its weight says how surely (1 decides by itself);
- a *permit* says that words which look like a breach are none here (a negation, what an adviser must do, both sides of
  a choice): it voids the breaches of its family that it overlaps, or all of them in the sentence where its scope is
  `sentence`; a family is what the names of its files begin with;
- a *cue* is a reason to hold a sentence and look. Every breach is a cue, too.

Which rules are tried is decided by the words of a sentence, so most sentences cost one look-up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from guidance_agent.compliance.language import Words
from guidance_agent.compliance.patterns import (
    Alphabet,
    PatternError,
    ending_words,
    literals,
    needed_words,
    translate_pattern,
)

__all__ = ["Match", "Rule", "RuleBook", "load_rulebook"]

Kind = Literal["breach", "permit", "cue"]


class _RuleEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    kind: Kind
    check: str = "advice_boundary"
    patterns: tuple[str, ...]
    weight: float = Field(default=1.0, ge=0, le=3)
    scope: Literal["overlap", "sentence"] = "overlap"
    note: str = ""


@dataclass(frozen=True, eq=False)
class Rule:
    """One pattern of a rule. `needs` are words of which a sentence must have one, `ends` those it can end with.

    Its regular expression is compiled when a sentence first calls for it: most answers need a few hundred of them.
    """

    id: str
    kind: Kind
    family: str
    check: str
    weight: float
    scope: str
    expression: str
    needs: frozenset[str]
    ends: frozenset[str]

    @cached_property
    def regex(self) -> re.Pattern[str]:
        return re.compile(self.expression)


class Match(NamedTuple):
    """A rule that was found, and where in the line of the sentence."""

    rule: Rule
    start: int
    end: int


class RuleBook:
    """All rules, by the words that call for them. Immutable; may be shared between threads."""

    def __init__(self, rules: Iterable[Rule], alphabet: Alphabet, version: str) -> None:
        self.rules = tuple(rules)
        self.alphabet = alphabet
        self.version = version
        self._by_need: dict[str, list[Rule]] = {}
        self._by_end: dict[str, list[Rule]] = {}
        for rule in self.rules:
            for word in rule.needs:
                self._by_need.setdefault(word, []).append(rule)
            if rule.kind != "permit":
                for word in rule.ends:
                    self._by_end.setdefault(word, []).append(rule)
        self._words = frozenset(self._by_need)
        self.cue_words = frozenset(self._by_end)

    def matches(self, words: Words) -> list[Match]:
        """Return every place where a rule is found in the sentence, in the order of their places."""
        line = self.alphabet.encode(words.texts)
        by_need = self._by_need
        candidates = {rule for word in self._words & words.vocabulary for rule in by_need[word]}
        found = [Match(rule, *match.span()) for rule in candidates for match in rule.regex.finditer(line)]
        found.sort(key=lambda match: (match.start, match.end, match.rule.id))
        return found

    def cue_at(self, last: str, words: Words) -> Match | None:
        """Return a cue that the last token completes and that nothing before it excuses; None when there is none."""
        line = None
        for rule in self._by_end.get(last, ()):
            if rule.needs.isdisjoint(words.vocabulary):
                continue
            line = line or self.alphabet.encode(words.texts)
            for match in rule.regex.finditer(line):
                return Match(rule, *match.span())
        return None


@lru_cache(maxsize=1)
def load_rulebook() -> RuleBook:
    """Return the package's rules; raise `PatternError` when one of them cannot be read."""
    folder = resources.files("guidance_agent.compliance") / "rules"
    # A file of rules is named after its family; others hold words for other readers.
    named = (entry for entry in folder.iterdir() if entry.name == "lexicon.yaml" or "_" in entry.name)
    files = sorted((entry for entry in named if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    texts = {entry.name: entry.read_text(encoding="utf-8") for entry in files}
    return read_rulebook(texts)


def read_rulebook(texts: Mapping[str, str]) -> RuleBook:
    """Return the rules of the files in `texts`, by file name; those that end in `lexicon.yaml` hold lists of words."""
    import hashlib

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    lexicon: dict[str, list[str]] = {}
    for name, text in texts.items():
        if name.endswith("lexicon.yaml"):
            lexicon |= TypeAdapter(dict[str, list[str]]).validate_python(yaml.load(text, Loader=loader))  # noqa: S506
    entries = {
        (name, entry)
        for name, text in texts.items()
        if not name.endswith("lexicon.yaml")
        for entry in _entries_of(name, yaml.load(text, Loader=loader))  # noqa: S506
    }
    named = {word for words in lexicon.values() for entry in words for word in entry.split()}
    named |= {word for _, entry in entries for pattern in entry.patterns for word in literals(pattern)}
    alphabet = Alphabet(sorted(named))
    ordered = sorted(entries, key=lambda each: (each[0], each[1].id))
    rules = [rule for name, entry in ordered for rule in _rules_of(name.partition("_")[0], entry, lexicon, alphabet)]
    ids = [rule.id for rule in rules]
    if len(set(ids)) != len(ids):
        twice = sorted({each for each in ids if ids.count(each) > 1})
        raise PatternError(f"The rule ids {', '.join(twice)} are used more than once. Give each pattern its own.")
    digest = hashlib.sha256("\0".join(f"{name}\0{texts[name]}" for name in sorted(texts)).encode()).hexdigest()
    return RuleBook(rules, alphabet, digest[:16])


def _entries_of(name: str, values: Any) -> list[_RuleEntry]:
    try:
        return TypeAdapter(list[_RuleEntry]).validate_python(values)
    except ValidationError as error:
        raise PatternError(f"The rules in {name!r} are not valid: {error}. Correct the file.") from error


def _rules_of(
    family: str, entry: _RuleEntry, lexicon: Mapping[str, Sequence[str]], alphabet: Alphabet
) -> Iterator[Rule]:
    for number, pattern in enumerate(entry.patterns, 1):
        yield Rule(
            id=f"{entry.id}.{number}",
            kind=entry.kind,
            family=family,
            check=entry.check,
            weight=entry.weight,
            scope=entry.scope,
            expression=translate_pattern(pattern, lexicon, alphabet),
            needs=needed_words(pattern, lexicon),
            ends=frozenset() if entry.kind == "permit" else ending_words(pattern, lexicon),
        )
