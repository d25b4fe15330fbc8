"""Statements without a number that are true only from a day on, said as if they held already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from guidance_agent.compliance.figure_context import FigureContext, Stretch
from guidance_agent.compliance.figure_topics import Statement
from guidance_agent.compliance.language import Words
from guidance_agent.compliance.patterns import Alphabet

__all__ = ["Statements"]


class Statements:
    """All of them, by the words that call for them."""

    def __init__(self, statements: Sequence[Statement], alphabet: Alphabet) -> None:
        self._statements = tuple(statements)
        self._alphabet = alphabet
        self.words = frozenset().union(
            *(sought.needs for each in statements for sought in (*each.patterns, *each.then))
        )

    def untimely(self, words: Words, *, on: date, before: FigureContext | None) -> Iterator[tuple[Statement, int, int]]:
        """Yield what a sentence states too early, and where it stands in the text."""
        if self.words.isdisjoint(words.vocabulary):
            return
        here = Stretch(words, self._alphabet)
        for statement in self._statements:
            if statement.effective_from <= on:
                continue
            match = next(here.matches(statement.patterns), None)
            if match is None and before is not None:
                match = next(here.matches(statement.then), None)
                if match is not None and not before.plain.has(statement.after):
                    match = None
            if match is not None and not here.has(statement.unless):
                yield statement, *words.stretch(*match.span())
