"""From what the caller passes to what is asked: the history, the question, and where the conversation stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from guidance_agent.core.types import ConversationRole, CustomerProfile, HistoryEntry
from guidance_agent.errors import HistoryError, NoQuestionError, PromptTooLongError

__all__ = [
    "QUESTION_LIMIT",
    "Conversation",
    "EmotionalTone",
    "Entry",
    "Phase",
    "emotional_tone",
    "phase",
    "read_conversation",
]

Phase = Literal["opening", "exploring", "explaining", "checking_understanding", "closing"]
EmotionalTone = Literal["neutral", "anxious", "distressed", "urgent", "confused", "frustrated"]

QUESTION_LIMIT = 100_000
"""Characters of one question: some forty pages. Longer ones would hold up the streams of other customers."""

_ROLES: dict[str, ConversationRole] = {
    "customer": "customer",
    "user": "customer",
    "advisor": "advisor",
    "assistant": "advisor",
}

_TONES: tuple[tuple[EmotionalTone, re.Pattern[str]], ...] = (
    (
        "distressed",
        re.compile(
            r"\b((can'?t|cannot) (cope|go on)|desperate|suicid\w*|end (it all|my life)|kill(ing)? myself|want to die"
            r"|self[- ]harm\w*|hopeless|crying|grie(f|ving))\b",
            re.I,
        ),
    ),
    (
        "urgent",
        re.compile(
            r"\b((need|must|have to|got to|decide|sign|reply)\b[^.?!\n]{0,40}\btoday(?!')|right now"
            r"|by (today(?!')|tonight|tomorrow|friday)|urgent\w*|deadline|straight away)\b",
            re.I,
        ),
    ),
    (
        "anxious",
        re.compile(r"\b(worr(y|ied|ying)|anxious|scared|afraid|nervous|panic\w*|frightened|stress\w*)\b", re.I),
    ),
    (
        "confused",
        re.compile(r"\b(confus\w*|don'?t (understand|get|follow)|no idea|what does .{1,40} mean|lost me)\b", re.I),
    ),
    ("frustrated", re.compile(r"\b(ridiculous|fed up|annoy\w*|useless|waste of time|nobody (tells|listens))\b", re.I)),
)
_CLOSING = re.compile(r"\b(thank(s| you)|that'?s all|goodbye|bye|nothing else)\b", re.I)
_UNDERSTOOD = re.compile(
    r"(^|[.!?]\s+)(\w+,? )?so,? (you mean|that means|i)\b|\b(if i understand|in other words|do i have that right)\b",
    re.I,
)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NOT_PLAIN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


class Entry(NamedTuple):
    """One entry of a conversation."""

    role: ConversationRole
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said before, oldest first and beginning with the customer, and the question to answer now."""

    history: tuple[Entry, ...]
    question: str


def read_conversation(customer: CustomerProfile, history: Sequence[HistoryEntry] | None) -> Conversation:
    """Split a history into what was said and what is asked.

    The question is the last entry if that is the customer's, else the customer's `presenting_question`.

    Raises:
        HistoryError: for an entry that is not a mapping of `role` and `content`, an unknown role, an empty entry, text
            with control characters, or roles that do not alternate beginning with the customer. What the advisor
            said is taken as it was delivered, even if that was a line break or holds control characters.
        NoQuestionError: when there is no question, or the presenting question is already answered in the history.
        PromptTooLongError: when the question has more than `QUESTION_LIMIT` characters.
    """
    if history is not None and not isinstance(history, Iterable):
        raise HistoryError(f"A history is a list of entries, not {type(history).__name__}. Pass a list, or None.")
    entries = [_entry(index, item) for index, item in enumerate(history or ())]
    for index, entry in enumerate(entries):
        expected = "customer" if index % 2 == 0 else "advisor"
        if entry.role != expected:
            raise HistoryError(
                f"History entry {index} is of {entry.role!r} where {expected!r} was due. Begin with the customer and "
                "alternate; leave greetings and unanswered questions out."
            )
    if entries and entries[-1].role == "customer":
        return Conversation(tuple(entries[:-1]), _not_too_long(entries[-1].content))
    question = customer.presenting_question or ""
    if not question.strip():
        raise NoQuestionError(
            "There is no question: the history does not end with a customer entry and the customer has no "
            "presenting_question. Add one of them."
        )
    if any(entry.role == "customer" and entry.content.strip() == question.strip() for entry in entries):
        raise NoQuestionError(
            "The customer's presenting_question is already answered in the history. Add the new question to the end of "
            "the history."
        )
    return Conversation(tuple(entries), _not_too_long(question))


def _not_too_long(question: str) -> str:
    if len(question) > QUESTION_LIMIT:
        raise PromptTooLongError(
            f"The question has {len(question)} characters; at most {QUESTION_LIMIT} are taken. Shorten it, or send the "
            "part that the question is about."
        )
    return question


def _entry(index: int, item: object) -> Entry:
    try:
        role, content = item["role"], item["content"]  # type: ignore[index]
    except (TypeError, KeyError, IndexError) as error:
        raise HistoryError(
            f"History entry {index} is {type(item).__name__} without 'role' and 'content'. Pass "
            '{"role": "customer" or "advisor", "content": "…"}.'
        ) from error
    if not isinstance(role, str) or role not in _ROLES:
        raise HistoryError(f"History entry {index} has the role {role!r}. Use one of {', '.join(sorted(_ROLES))}.")
    if not isinstance(content, str):
        raise HistoryError(f"History entry {index} has content of type {type(content).__name__}. Pass its text as str.")
    delivered = _ROLES[role] == "advisor"
    if not (content if delivered else content.strip()):
        raise HistoryError(f"History entry {index} has no text. Leave empty entries out.")
    if (_UNSTORABLE if delivered else _NOT_PLAIN).search(content):
        raise HistoryError(f"History entry {index} holds control characters or a lone surrogate. Pass plain text.")
    return Entry(_ROLES[role], content)


def phase(conversation: Conversation) -> Phase:
    """Return where the conversation stands, from its length and the customer's last words."""
    question = _plain_apostrophes(conversation.question)
    if _CLOSING.search(question) and len(question) < 200 and "?" not in question:
        return "closing"
    if _UNDERSTOOD.search(question):
        return "checking_understanding"
    turns = len(conversation.history) // 2
    if turns == 0:
        return "opening"
    return "exploring" if turns == 1 else "explaining"


def emotional_tone(text: str) -> EmotionalTone:
    """Return the strongest tone that the words show; a hint for the answer's manner, never a diagnosis."""
    text = _plain_apostrophes(text)
    return next((tone for tone, pattern in _TONES if pattern.search(text)), "neutral")


def _plain_apostrophes(text: str) -> str:
    return text.replace("’", "'")
