"""The figures of a sentence that is being read: which of them is wrong so far.

A sentence is looked at again and again while it grows. Most of those looks end after a few operations on sets of bits:
no number can be what the words call for, or what it can be it is rightly. Only what is left is read as a whole.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from guidance_agent.compliance.figure_index import NOTHING_CALLED
from guidance_agent.compliance.figure_times import names_other_time
from guidance_agent.compliance.language import Token, Words
from guidance_agent.compliance.quantities import MARKS, QuantityReader
from guidance_agent.compliance.sums import may_state_sum

if TYPE_CHECKING:
    from guidance_agent.compliance.figure_context import FigureContext
    from guidance_agent.compliance.figures import FigureChecker

__all__ = ["GrowingFigures"]

_REACH = 8
"""Words of a sentence among which a number may be what only the words before it name."""
_ELLIPTIC = frozenset(("it", "that"))
"""Words that make every number one of those."""


class GrowingFigures:
    """What is wrong with the figures of one sentence, as far as it has been read.

    Args:
        checker: Knows the figures.
        on: The day on which it is said.
        before: What stands before the sentence.
    """

    __slots__ = (
        *("_before", "_called", "_checker", "_context", "_counted", "_index", "_is_context_read", "_is_stating", "_on"),
        *("_numbers", "_vocabulary", "tokens"),
    )

    def __init__(self, checker: FigureChecker, on: date, before: str) -> None:
        self.tokens: list[Token] = []
        self._checker = checker
        self._index = checker.index
        self._on = on
        self._before = before
        self._context: FigureContext | None = None
        self._is_context_read = False
        self._numbers: QuantityReader | None = None
        self._counted = 0
        """How many of the tokens are in the sets below."""
        self._called = self._index.always | checker.called_by_marks
        self._vocabulary = set(MARKS)
        self._is_stating = False

    def holds_number(self) -> None:
        """Say that the sentence has a number; before that there can only be statements of another time."""
        if self._numbers is None:
            self._numbers = QuantityReader()

    def wrong_from(self, text: str) -> int | None:
        """Return where the first wrong figure begins; None as long as none is.

        Args:
            text: Where the offsets of the tokens point, up to the end of the last one at least.
        """
        self._count()
        wrong: list[int] = []
        if self._is_stating:
            found = self._checker.untimely(Words(self.tokens), text, on=self._on, before=self._read_context())
            wrong += [finding.start for finding in found]
        if self._numbers is not None:
            self._numbers.read(self.tokens, text)
            if self._may_be_wrong(self._numbers):
                context = self._read_context()
                found = self._checker.wrong_figures(self._numbers, text, on=self._on, before=context)
                wrong += [finding.start for finding in found]
        return min(wrong, default=None)

    def _count(self) -> None:
        """Take the new words into what the sentence calls for: some more than are left once its numbers are marked."""
        new = {token[0] for token in self.tokens[self._counted :]} - self._vocabulary
        called = self._index.by_word.get
        for word in new:
            self._called |= called(word, 0)
        self._vocabulary |= new
        self._is_stating = self._is_stating or not new.isdisjoint(self._checker.stating_words)
        self._counted = len(self.tokens)

    def _may_be_wrong(self, read: QuantityReader) -> bool:
        """Whether reading the figures can find anything; errs on the side of reading them."""
        numbers = read.numbers
        if not numbers:
            return False
        if may_state_sum(numbers):
            return True
        index = self._index
        fitting = elliptic = suspects = 0
        says_it = not _ELLIPTIC.isdisjoint(self._vocabulary)
        for place, quantity in numbers:
            bits = index.fitting(quantity)
            fitting |= bits
            suspects |= bits & ~index.right(quantity, self._on)
            if place < _REACH or says_it:
                elliptic |= bits
        if not fitting:
            return False
        called = index.unpacked(self._called)
        if not fitting & (called.names | called.says | called.then | elliptic):
            return False
        context = self._read_context()
        before = NOTHING_CALLED if context is None else context.called(index)
        if not before.adds(called, elliptic, fitting):
            before = NOTHING_CALLED
        possible = fitting & called.collecting(before, elliptic)
        if not possible:
            return False
        if "born" in self._vocabulary or (context is not None and "born" in context.vocabulary):
            suspects |= index.by_birth
        words = self._vocabulary
        if any(topic.may_be_said(words, context) for _, topic in index.topics(possible & suspects)):
            return True
        is_of_other_time = any(quantity.kind == "date" for _, quantity in numbers) or names_other_time(read.words.line)
        return is_of_other_time and any(topic.may_be_said(words, context) for _, topic in index.topics(possible))

    def _read_context(self) -> FigureContext | None:
        if not self._is_context_read:
            self._context = self._checker.context(self._before)
            self._is_context_read = True
        return self._context
