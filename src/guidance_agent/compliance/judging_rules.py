"""What the gate asks of whoever knows where a cue begins and what a sentence says.

The gate cuts text into sentences, holds, orders and releases; it knows nothing of rules or models. `SentenceRules` is
all that it asks. Whatever stands behind it must be a function of what it is given: the same sentence after the same
text gets the same answer, word by word and as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from guidance_agent.compliance.language import Token, Words
from guidance_agent.compliance.sentences import SentenceVerdict

__all__ = ["CueReader", "SentenceRules"]


class CueReader(Protocol):
    """Reads one sentence, token by token, until it has found a cue."""

    @property
    def waits(self) -> bool:
        """Whether the words so far may begin a cue, so that they are kept back until the next word is read."""

    def read(self, token: Token, text: str) -> int | None:
        """Take the next token.

        Args:
            text: Where the token's offsets point, up to its end at least.

        Returns:
            The number of the token in the sentence at which a cue begins, once one is complete; None so far. Nothing
            is read after that.
        """


class SentenceRules(Protocol):
    """Finds cues and judges sentences. Immutable; may be shared between threads."""

    @property
    def version(self) -> str:
        """A fingerprint: equal for rules that give the same verdicts."""

    def reader(self, before: str) -> CueReader:
        """Return the reader of one sentence; `before` is as in `judge`."""

    def passes(self, words: Sequence[str]) -> bool:
        """Whether a whole sentence of these words carries no cue, whatever stands before it.

        False where only reading it word by word tells.
        """

    def judge(self, words: Words, text: str, before: str) -> SentenceVerdict:
        """Judge a sentence.

        Args:
            words: The sentence.
            text: The text into which the offsets of its tokens, and those of the findings, point.
            before: The last few hundred characters of what stands before it: the model's own text and, before that,
                the question that it answers.
        """
