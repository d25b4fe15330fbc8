"""What is asked after an answer that could not be read: a correction for its fault, cooler, within a bound of tokens.

Only the last answer goes back, with what was wrong with it: the request does not grow with the attempts, and the prefix
that a provider has cached stays as it was. The words for each fault are in `templates/json_corrections.md`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources

from guidance_agent.errors import StructuredOutputError
from guidance_agent.llm.json_faults import FaultClass, JsonFault
from guidance_agent.llm.messages import Message, ModelRequest

__all__ = ["RetryStrategy", "get_retry_strategy", "next_request", "runs_away"]

TEMPERATURES = (0.4, 0.2, 0.0)
"""The highest temperature of the second, the third and every later attempt."""

GROWTH = 4
"""How many times the tokens of the first attempt a later one may have, where answers were cut off."""

_ASKED_AGAIN = frozenset({"empty", "truncated", "not_json", "extra_text", "repeated_key", "wrong_schema"})
_SHOWN = 2_000
_NEAR = 40
_MOST_FIELDS = 20
_TAIL = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryStrategy:
    """How the next attempt is made.

    Attributes:
        temperature: At most this: it falls with the attempts.
        correction_prompt: What the model is told of its last answer.
        max_tokens: Upper bound for the next answer.
    """

    temperature: float
    correction_prompt: str
    max_tokens: int


def get_retry_strategy(
    error_type: FaultClass | JsonFault,
    attempt: int,
    *,
    text: str = "",
    max_tokens: int = 1024,
    longest: int | None = None,
    cut_off: bool = False,
) -> RetryStrategy:
    """Return how to ask again.

    Args:
        error_type: What was wrong with the answer, or the class of it.
        attempt: Number of the attempt that failed, from 1.
        text: The answer.
        max_tokens: Its upper bound.
        longest: The highest bound; None is 4 times `max_tokens`.
        cut_off: Whether the answer ended at its bound. The next may be twice as long, unless this one only repeated
            itself: that is given half, because more would be more of the same.
    """
    fault = error_type if isinstance(error_type, JsonFault) else JsonFault(kind=error_type)
    words = _corrections()[fault.kind]
    if cut_off:
        runaway = runs_away(text)
        words = _corrections()["runaway" if runaway else "cut_off"]
        top = GROWTH * max_tokens if longest is None else longest
        max_tokens = max(16, max_tokens // 2) if runaway else max(max_tokens, min(top, 2 * max_tokens))
    fields = "\n".join(f"- {place or 'the whole answer'}: {what}" for place, what in fault.fields[:_MOST_FIELDS])
    prompt = words.replace("{place}", _place(fault, text)).replace("{fields}\n", f"{fields}\n" if fields else "")
    return RetryStrategy(
        temperature=TEMPERATURES[min(attempt, len(TEMPERATURES)) - 1],
        correction_prompt=prompt,
        max_tokens=max_tokens,
    )


def next_request(
    first: ModelRequest,
    messages: Sequence[Message],
    error: StructuredOutputError,
    *,
    text: str,
    attempt: int,
    limit: int,
) -> ModelRequest | None:
    """Return the request that follows an answer that could not be read; None where asking again is of no use.

    Args:
        first: The request of the first attempt.
        messages: What the answer was given to: the first request's messages, and what tools said meanwhile.
        error: Why the answer cannot be read.
        text: The answer.
        attempt: Its number, from 1.
        limit: Its upper bound, in tokens.
    """
    if error.kind not in _ASKED_AGAIN:
        return None
    fault = error.fault or JsonFault(kind="wrong_structure")
    strategy = get_retry_strategy(
        fault,
        attempt,
        text=text,
        max_tokens=limit,
        longest=GROWTH * first.max_tokens,
        cut_off=error.kind == "truncated",
    )
    said = [Message("assistant", _shown(text))] if text.strip() else []
    temperature = strategy.temperature
    if first.temperature is not None:
        temperature = min(first.temperature, temperature)
    return replace(
        first,
        messages=(*messages, *said, Message("user", strategy.correction_prompt)),
        temperature=temperature,
        max_tokens=strategy.max_tokens,
    )


def runs_away(text: str) -> bool:
    """Return whether the end of a text is only the same few characters over and over."""
    tail = text[-_TAIL:]
    if len(tail) < _TAIL:
        return False
    return any(tail == (tail[-size:] * (_TAIL // size + 1))[-_TAIL:] for size in range(1, _TAIL // 4))


def _shown(text: str) -> str:
    if len(text) <= 2 * _SHOWN:
        return text.rstrip()
    return f"{text[:_SHOWN]}\n[…]\n{text[-_SHOWN:]}".rstrip()


def _place(fault: JsonFault, text: str) -> str:
    if fault.position is None or not text:
        return "somewhere in it"
    near = text[max(0, fault.position - _NEAR) : fault.position + _NEAR]
    return f"at character {fault.position + 1}, near: {near}"


@lru_cache(maxsize=1)
def _corrections() -> dict[str, str]:
    page = (resources.files("guidance_agent.llm") / "templates" / "json_corrections.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (\w+)\n", page, flags=re.MULTILINE)
    return {name: words.strip() for name, words in zip(parts[1::2], parts[2::2], strict=True)}
