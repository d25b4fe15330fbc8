"""The rule book as the rules of the gate."""

from __future__ import annotations

from guidance_agent.compliance.clauses import CLAUSE_MARKS
from guidance_agent.compliance.judging_rules import CueReader
from guidance_agent.compliance.language import Token, Words
from guidance_agent.compliance.rulebook import RuleBook
from guidance_agent.compliance.sentences import SentenceVerdict, judge_sentence

__all__ = ["OPENINGS", "BookRules"]

OPENINGS = frozenset(
    (
        *("if", "if i", "if i were", "if i was", "if it", "if it were", "if it was", "were", "were i", "were it"),
        *("in", "in your", "i", "i would", "i 'd", "i think", "i believe", "i suggest", "we"),
        *("my", "my advice", "my own", "people", "people like", "someone", "someone like", "someone in"),
        *("for", "for someone", "given", "with your", "honestly", "personally", "frankly", "you", "your", "let"),
        *("why", "why not", "do", "just", "take", "keep", "leave"),
    )
)
"""Words with which a clause may begin that turns out to hold a cue; they wait for the next word."""
_LONGEST_OPENING = 3


class BookRules:
    """Finds cues and judges sentences by the patterns of a rule book."""

    def __init__(self, book: RuleBook) -> None:
        self._book = book

    @property
    def version(self) -> str:
        return self._book.version

    def reader(self, before: str) -> CueReader:
        return _BookReader(self._book)

    def judge(self, words: Words, text: str, before: str) -> SentenceVerdict:
        return judge_sentence(words, self._book, text)


class _BookReader:
    def __init__(self, book: RuleBook) -> None:
        self._book = book
        self._tokens: list[Token] = []
        self._clause: list[str] = []

    @property
    def waits(self) -> bool:
        return 0 < len(self._clause) <= _LONGEST_OPENING and " ".join(self._clause) in OPENINGS

    def read(self, token: Token) -> int | None:
        self._tokens.append(token)
        if token.text in CLAUSE_MARKS:
            self._clause.clear()
        elif len(self._clause) <= _LONGEST_OPENING:
            self._clause.append(token.text)
        if token.text not in self._book.cue_words:
            return None
        found = self._book.cue_at(token.text, Words(self._tokens))
        return None if found is None else found.start
