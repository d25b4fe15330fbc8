"""Enough judgement for a simulated judge: it sees a plain steer in the text that it is asked to judge."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Steer", "find_steer", "judged_text"]

_JUDGED = re.compile(
    r"<(reply|answer|response|advisor_reply|delivered_text|delivered|judged_text|candidate|text|sentence)\b[^>]*>"
    r"\n?(.*?)\n?</\1>",
    re.DOTALL | re.IGNORECASE,
)
# A prompt that names a code in its first line closes each block with it, and nothing in the block can.
_CODE = re.compile(r"[^\n]*\bcode of the blocks is ([0-9a-f]{8,64})\b")
_STEER = re.compile(
    r"\b(?:you (?:should|ought to|need to) (?:really |definitely |probably )?"
    r"(?:transfer|take|buy|move|keep|leave|stay|sell|cash|combine|opt|go|choose|put|wait|draw)"
    r"|(?:i|we)(?: would|'d|’d)? (?:strongly )?(?:recommend|suggest|advise) (?:that )?"
    r"(?:you|taking|moving|keeping|buying|transferring)"
    r"|(?:is|would be|looks|seems) (?:clearly |probably )?(?:the )?"
    r"(?:best|right|better|ideal) (?:option|choice|thing|fit|one)? ?for you"
    r"|(?:is|would be) (?:your )?best (?:option|choice|bet)"
    r"|(?:is|are) (?:suitable|perfect|ideal) for you"
    r"|if i were you|in your (?:shoes|place),? i|no.brainer|people like you should)\b",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:not|never|cannot|can't|no one|nobody|whether)\b[^.!?]{0,40}$", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")


class Steer(NamedTuple):
    """A sentence that tells the customer what to do, with its place in the judged text."""

    quote: str
    start: int
    end: int


def judged_text(message: str) -> str | None:
    """The text that a judging request is about; None when the message is no such request."""
    code = _CODE.match(message)
    if code is None:
        judged = _JUDGED.findall(message)
        return str(judged[-1][1]) if judged else None
    marked = re.search(rf"<(judged_\w+)-{code[1]}>\n(.*?)\n</\1-{code[1]}>", message, re.DOTALL)
    return None if marked is None else str(marked[2])


def find_steer(message: str) -> Steer | None:
    """The first plain steer in the text of a judging request; None without such a text or steer."""
    text = judged_text(message)
    if text is None:
        return None
    for sentence in _SENTENCE.finditer(text):
        found = _STEER.search(sentence.group())
        if found is None or _NEGATED.search(sentence.group()[: found.start()]):
            continue
        quote = sentence.group().strip()
        start = text.index(quote, sentence.start())
        return Steer(quote, start, start + len(quote))
    return None
