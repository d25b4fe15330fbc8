"""The gate through which every piece of an answer passes before it is journaled.

A gate is a function of the text and of the answers to its questions, never of the pieces: what it has released after a
prefix depends on that prefix alone. `SentenceGate` lets text flow word by word while the sentence that it belongs to
carries no cue. A cue holds the sentence from the first word of the clause that holds it (or from what is not out yet),
to its end or for 1,000 characters; then the rules decide. What they call a breach is withheld and replaced. What they
cannot decide becomes a question, if there is somebody to ask: text behind it is read and judged meanwhile, and nothing
passes it until it is answered.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from guidance_agent.compliance.clauses import clause_start
from guidance_agent.compliance.decided import DEFAULT_CHECK, DecidedLine, Held, UndecidedPolicy, gravest
from guidance_agent.compliance.judging_rules import CueReader, SentenceRules
from guidance_agent.compliance.language import LONGEST_WORD, Token, Words, word_texts, word_tokens
from guidance_agent.compliance.policy import CheckPolicy
from guidance_agent.compliance.released import Answer, Marked, OpenGate, Question, Released, TextGate, Withholding
from guidance_agent.compliance.sentences import SentenceVerdict

__all__ = ["Marked", "OpenGate", "Question", "Released", "SentenceGate", "TextGate", "Withholding"]

LONGEST_HOLD = 1_000
LONGEST_WAIT = 200
"""Characters for which words that may begin a cue wait for the next one."""
LONGEST_SENTENCE = 400
"""Tokens after which a sentence without an end is judged as it stands, so that the work stays linear."""
CONTEXT = 400
"""Characters before a sentence that count when it is judged."""

_BLOCK = 4_096
_PIECE = re.compile(rf"\S{{0,{LONGEST_WORD - 1}}}\s|\S{{{LONGEST_WORD}}}(?=[\s\S])")
"""A word with the one space after it, or as much of a longer one as counts as a word."""
_BOUNDARY = re.compile(r"[.!?…]+[\"'”’)\]*_]*\s|\n")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:e\.g|i\.e|etc|p\.a|p\.m|a\.m|vs|approx|no|mr|mrs|ms|dr|st|ltd|plc|inc|incl|cf|para|sec|art|[a-z])\.\s$",
    re.IGNORECASE,
)
_LONGEST_ABBREVIATION = 10
_LEADING_SIGNS = ("£", "￡")


_new = tuple.__new__
"""What `Token(...)` comes to, without the call between: a gate makes one for every word."""


@lru_cache(maxsize=16_384)
def _may_end(piece: str) -> bool:
    found = _BOUNDARY.search(piece)
    return found is not None and found.end() == len(piece)


@lru_cache(maxsize=16_384)
def _leads_on(piece: str) -> bool:
    """Whether a piece ends in a sign that belongs to the number behind the space."""
    return piece.rstrip().endswith(_LEADING_SIGNS)


def _unheard(start: int, verdict: SentenceVerdict) -> None:
    """Nobody wants to know."""


class SentenceGate:
    """Holds a sentence when it carries a cue, and withholds it when the rules, or a judge, call it a breach.

    Args:
        rules: What is a cue, and what a sentence says.
        policy: What is done about a breach, by the name of the check.
        asks: Whether somebody answers questions about what the rules leave undecided.
        undecided: What is done about it otherwise.
        before: What stands before the text, such as the question that it answers.
        judged: Told the verdict on every sentence that was held, with the place of the sentence in the whole text.

    Attributes:
        sentences: Sentences that have ended.
        sentences_held: Those of them that were held.
    """

    def __init__(
        self,
        rules: SentenceRules,
        policy: Mapping[str, CheckPolicy],
        *,
        asks: bool = False,
        undecided: UndecidedPolicy = "release_and_flag",
        before: str = "",
        judged: Callable[[int, SentenceVerdict], None] = _unheard,
    ) -> None:
        self._rules = rules
        self._policy = policy
        self._asks = asks
        self._judged = judged
        self._line = DecidedLine(policy, undecided)
        self._questions: list[Question] = []
        self._asked = 0
        self._text = ""
        """The sentence that is being read, released part included, and what has been fed after it."""
        self._read = 0
        """How much of it has been read as words."""
        self._free = 0
        """How much of it may be released."""
        self._out = 0
        """How much of it has gone into the line of what is released."""
        self._held_from: int | None = None
        self._tokens: list[Token] = []
        self._before = before[-CONTEXT:]
        self._reader: CueReader | None = None
        self._place = 0
        """Characters of the text before the sentence that is being read."""
        self.sentences = 0
        self.sentences_held = 0

    @property
    def stopped(self) -> bool:
        return self._line.stopped

    @property
    def held(self) -> str:
        is_holding = self._line.length or self._held_from is not None
        return self._line.text + self._text[self._out :] if is_holding else ""

    @property
    def queued(self) -> int:
        return self._line.length

    def feed(self, text: str) -> Sequence[Released]:
        if self.stopped:
            return ()
        for start in range(0, len(text), _BLOCK):
            # In blocks, so that the work on a long piece grows with its length and not with its square.
            self._text += text[start : start + _BLOCK]
            self._read_words(_PIECE.findall(self._text, self._read))
        self._let_out()
        return self._released()

    def finish(self, *, ask: bool = False) -> Sequence[Released]:
        self._asks = self._asks and ask
        if self._read < len(self._text):
            self._read_words([self._text[self._read :]])
        if self._text:
            self._end_sentence(len(self._text))
        return self._released()

    def questions(self) -> Sequence[Question]:
        questions, self._questions = self._questions, []
        return questions

    def answer(self, number: int, answer: Answer | None) -> Sequence[Released]:
        self._line.answer(number, answer)
        return self._released()

    def _released(self) -> Sequence[Released]:
        released = self._line.release()
        if self._line.stopped:
            self._questions.clear()
            self._forget_sentence(len(self._text))
        return released

    def _read_words(self, pieces: Sequence[str]) -> None:
        """Read what follows in the text: words, each with the space after it."""
        place = 0
        while place < len(pieces):
            passed = 0 if self._read else self._pass_sentence(pieces, place)
            place = place + passed if passed else self._read_sentence(pieces, place)

    def _pass_sentence(self, pieces: Sequence[str], first: int) -> int:
        """Read a sentence of which nothing has been read, if all that is judged of it is there and carries no cue.

        Returns:
            How many pieces it had; 0 for a sentence that has to be read word by word.
        """
        words: list[str] = []
        end = 0
        for number in range(first, len(pieces)):
            piece = pieces[number]
            end += len(piece)
            words += word_texts(piece)
            if len(words) >= LONGEST_SENTENCE or (_may_end(piece) and self._is_end(end)):
                if not self._rules.passes(words):
                    return 0
                self._line.put_text(self._text[:end])
                self._ended(end, has_words=bool(words))
                return number + 1 - first
        return 0

    def _read_sentence(self, pieces: Sequence[str], first: int) -> int:
        """Read words up to the end of the sentence, or all of them, and return the number of the piece after it."""
        end, tokens, free, held_from, text = self._read, self._tokens, self._free, self._held_from, self._text
        reader = self._reader
        if reader is None:
            reader = self._reader = self._rules.reader(self._before)
        for number in range(first, len(pieces)):
            piece = pieces[number]
            began, end = end, end + len(piece)
            for word, start, last in word_tokens(piece):
                token = _new(Token, (word, began + start, began + last))
                tokens.append(token)
                if held_from is None and (place := reader.read(token, text)) is not None:
                    held_from = self._hold_from(free, tokens[clause_start(tokens, place)].start)
            if held_from is None:
                if (not reader.waits and not _leads_on(piece)) or end - free > LONGEST_WAIT:
                    free = end
                is_held_too_long = False
            else:
                is_held_too_long = end - held_from >= LONGEST_HOLD
            is_end = _may_end(piece) and self._is_end(end)
            if is_end or is_held_too_long or len(tokens) >= LONGEST_SENTENCE:
                self._free, self._held_from = free, held_from
                self._end_sentence(end, ends=is_end)
                return number + 1
        self._read, self._free, self._held_from = end, free, held_from
        return len(pieces)

    def _hold_from(self, free: int, start: int) -> int:
        """Return where what begins at `start` is held from: with the sign that leads on to it."""
        return free if self._text[free:start].strip() in _LEADING_SIGNS else max(free, start)

    def _is_end(self, end: int) -> bool:
        before = self._text[max(0, end - _LONGEST_ABBREVIATION) : end]
        return before.endswith("\n") or _ABBREVIATION.search(before) is None

    def _let_out(self) -> None:
        if self._free > self._out:
            self._line.put_text(self._text[self._out : self._free])
            self._out = self._free

    def _end_sentence(self, end: int, *, ends: bool = True) -> None:
        self._free = end if self._held_from is None else self._held_from
        self._let_out()
        if self._held_from is not None:
            self._judge(self._held_from, end, ends)
            self.sentences += bool(self._tokens)
            self._forget_sentence(end)
        else:
            self._ended(end, has_words=bool(self._tokens))

    def _ended(self, end: int, *, has_words: bool) -> None:
        """Go on behind a sentence that was not held."""
        if has_words:
            self._line.put_end()
            self.sentences += 1
        self._forget_sentence(end)

    def _forget_sentence(self, end: int) -> None:
        self._place += end
        self._before = (self._before + self._text[:end])[-CONTEXT:]
        self._text = self._text[end:]
        self._read = self._free = self._out = 0
        self._held_from = None
        self._tokens = []
        self._reader = None

    def _judge(self, held_from: int, end: int, ends: bool) -> None:
        text = self._text[:end]
        verdict = self._rules.judge(Words(self._tokens), text, self._before)
        self.sentences_held += 1
        self._judged(self._place, verdict)
        question = None
        if verdict.decision == "undecided" and self._asks:
            question, self._asked = self._asked, self._asked + 1
            finding = gravest(verdict, self._policy)
            check = DEFAULT_CHECK if finding is None else finding.check
            self._questions.append(Question(number=question, sentence=text.strip(), context=self._before, check=check))
        placed = dataclasses.replace(
            verdict,
            findings=tuple(
                dataclasses.replace(each, start=each.start + self._place, end=each.end + self._place)
                for each in verdict.findings
            ),
        )
        held = Held(lead=text[:held_from], stretch=text[held_from:], ends=ends, verdict=placed, question=question)
        self._line.put_held(held)
