"""What is done with held sentences, in their order: released, marked, replaced, or the end of the answer.

Nothing passes a sentence whose question is open, and what is decided depends on what came out before it. So this is the
place that knows what the customer read last: it chooses a replacement that goes on from there.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from guidance_agent.compliance.policy import CheckPolicy
from guidance_agent.compliance.released import Answer, Asked, Marked, Released, Withholding
from guidance_agent.compliance.sentences import Finding, SentenceVerdict

__all__ = ["DecidedLine", "Held", "UndecidedPolicy", "gravest"]

UndecidedPolicy = Literal["release_and_flag", "replace"]

DEFAULT_CHECK = "advice_boundary"
_GRAVITY = {"flag": 0, "replace": 1, "stop": 2}
_WORD = re.compile(r"\w")
_GOES_ON = re.compile(r"(?:[,;:–—(]|\b(?:and|but|so))$", re.IGNORECASE)
_NEEDS_NO_SPACE = re.compile(r"[\s(\[“‘«]$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A held stretch with the verdict on its sentence.

    Attributes:
        lead: What of the sentence is out already.
        stretch: What is held, with the space behind it.
        ends: Whether the sentence ends with it, or was cut because it was held for too long.
        verdict: The verdict, its findings with offsets into the model's own text.
        question: The number of the question that was asked about it; None for none.
    """

    lead: str
    stretch: str
    ends: bool
    verdict: SentenceVerdict
    question: int | None = None


def gravest(verdict: SentenceVerdict, policy: Mapping[str, CheckPolicy]) -> Finding | None:
    """Return the finding that decides what is done: the one with the gravest action, of these the surest."""
    found = [finding for finding in verdict.findings if finding.score > 0] or verdict.findings
    return max(found, key=lambda each: (_GRAVITY[policy[each.check].action], each.score), default=None)


class DecidedLine:
    """Text and held sentences in their order, released from the front."""

    def __init__(self, policy: Mapping[str, CheckPolicy], undecided: UndecidedPolicy) -> None:
        self._policy = policy
        self._undecided = undecided
        self._line: deque[str | Held | None] = deque()
        self._answers: dict[int, Answer | None] = {}
        self._last = ""
        """The replacement that was shown last, until a whole sentence has passed."""
        self.length = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """Everything that waits, as the model wrote it."""
        return "".join(item if isinstance(item, str) else item.stretch for item in self._line if item is not None)

    def put_text(self, text: str) -> None:
        """Add text that may pass."""
        if text:
            self.length += len(text)
            if self._line and isinstance(last := self._line[-1], str):
                self._line[-1] = last + text
            else:
                self._line.append(text)

    def put_end(self) -> None:
        """Say that a sentence that was not held has ended."""
        if not self._line or self._line[-1] is not None:
            self._line.append(None)

    def put_held(self, held: Held) -> None:
        """Add a held stretch."""
        self.length += len(held.stretch)
        self._line.append(held)

    def answer(self, number: int, answer: Answer | None) -> None:
        """Note the answer to a question; the first one counts."""
        self._answers.setdefault(number, answer)

    def release(self) -> list[Released]:
        """Return what may pass now."""
        if len(self._line) == 1 and isinstance(text := self._line[0], str):
            self._line.clear()
            self.length = 0
            return [text]
        released: list[Released] = []
        while self._line and not self.stopped:
            item = self._line[0]
            if isinstance(item, Held) and item.question is not None and item.question not in self._answers:
                break
            self._line.popleft()
            if item is None:
                self._last = ""
                continue
            self.length -= len(item if isinstance(item, str) else item.stretch)
            released.append(item if isinstance(item, str) else self._decided(item))
        if self.stopped:
            self._line.clear()
            self.length = 0
        return released

    def _decided(self, held: Held) -> Released:
        verdict, asked = held.verdict, self._asked(held)
        if verdict.decision == "pass":
            self._last = ""
            return held.stretch
        finding = gravest(verdict, self._policy)
        check = DEFAULT_CHECK if finding is None else finding.check
        reason = verdict.decision if finding is None else finding.rule
        if verdict.decision == "breach" or asked == "breach":
            action = self._policy[check].action
        elif asked == "permitted":
            action = "flag"
        else:
            action = "replace" if self._undecided == "replace" else "flag"
        if action == "flag":
            self._last = ""
            return Marked(check, reason, held.stretch, verdict.findings, asked)
        self.stopped = action == "stop"
        replacement = self._replacement(held, self._policy[check])
        return Withholding(check, reason, replacement, held.stretch, self.stopped, verdict.findings, asked)

    def _asked(self, held: Held) -> Asked | None:
        if held.question is None:
            return None
        return self._answers[held.question] or "no_answer"

    def _replacement(self, held: Held, policy: CheckPolicy) -> str:
        """Return what stands for the stretch: it goes on from what is out, and never repeats what was said last."""
        space = held.stretch[len(held.stretch.rstrip()) :] or ("" if held.ends else " ")
        lead = held.lead.rstrip()
        has_begun = _WORD.search(lead) is not None
        words = policy.after if has_begun else policy.instead
        if words == self._last:
            words = policy.again if lead else ""
        self._last = words or self._last
        if not words:
            return space if "\n" in space else ""
        if has_begun and _GOES_ON.search(lead) is None:
            words = f"– {words}"
        elif not has_begun or words.startswith("I "):
            words = words[0].upper() + words[1:]
        if held.lead and _NEEDS_NO_SPACE.search(held.lead) is None:
            words = f" {words}"
        return words + space
