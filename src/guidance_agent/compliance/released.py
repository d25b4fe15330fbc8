"""What comes out of a gate: text, what stands for text that is withheld, and what is shown but put on record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from guidance_agent.compliance.sentences import Finding

__all__ = ["Answer", "Asked", "Marked", "OpenGate", "Question", "Released", "TextGate", "Withholding"]

Answer = Literal["breach", "permitted"]
Asked = Literal["breach", "permitted", "no_answer"]
"""What a judge said of a sentence, or that it said nothing in time that could be read."""


@dataclass(frozen=True, slots=True)
class Withholding:
    """A stretch of the model's text that is not shown, and the text that stands in its place.

    Attributes:
        stops: Whether the answer ends with it.
        findings: Why; their offsets count the model's own text.
        asked: What a judge said of it; None when none was asked.
    """

    check: str
    reason: str
    replacement: str
    withheld: str = ""
    stops: bool = False
    findings: tuple[Finding, ...] = ()
    asked: Asked | None = None


@dataclass(frozen=True, slots=True)
class Marked:
    """Text that is shown although there is something to say about it: flagged, or permitted by a judge."""

    check: str
    reason: str
    text: str
    findings: tuple[Finding, ...] = ()
    asked: Asked | None = None

    @property
    def is_permitted(self) -> bool:
        """Whether a judge permitted it; otherwise it is flagged."""
        return self.asked == "permitted"


Released: TypeAlias = str | Withholding | Marked


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A sentence that the rules cannot decide.

    Attributes:
        number: Counts the questions of a text from 0.
        sentence: The whole sentence, without the space around it.
        context: The last few hundred characters of what stands before it.
        check: What it may offend against.
    """

    number: int
    sentence: str
    context: str
    check: str


class TextGate(Protocol):
    """What stands between the model's text and the journal. Called on the event loop; must not block."""

    @property
    def stopped(self) -> bool:
        """Whether the answer ends here, whatever the model goes on to say."""

    @property
    def held(self) -> str:
        """What is kept back because of a cue or a question; empty when only a word or two wait for the next one."""

    @property
    def queued(self) -> int:
        """Characters that wait for the answer to a question."""

    def feed(self, text: str) -> Sequence[Released]:
        """Take the next piece of the model's text and return what may now be shown, in order."""

    def finish(self, *, ask: bool = False) -> Sequence[Released]:
        """Say that the model's text has ended, and return what may be shown; `ask` allows one question more."""

    def questions(self) -> Sequence[Question]:
        """Return the questions that have come up since the last call."""

    def answer(self, number: int, answer: Answer | None) -> Sequence[Released]:
        """Answer a question, None for no answer, and return what may be shown with it. The first answer counts."""


class OpenGate:
    """Releases every piece as it comes."""

    stopped = False
    held = ""
    queued = 0

    def feed(self, text: str) -> Sequence[Released]:
        return (text,)

    def finish(self, *, ask: bool = False) -> Sequence[Released]:
        return ()

    def questions(self) -> Sequence[Question]:
        return ()

    def answer(self, number: int, answer: Answer | None) -> Sequence[Released]:
        return ()
