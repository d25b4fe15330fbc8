"""How sure the service is of a rule, and what experience with it does to that.

A rule begins with the confidence of its validation times the value that it was given. Then each piece of experience
moves it a part of the way to one of its bounds:

    helped, or the same lesson drawn from another failure    c + 0.1 × (0.95 - c)
    harmed                                                   c - 0.2 × (c - 0.05)

so that a rule is never certain and never beyond recovery, one report weighs less the more is known in its direction,
and harm counts more than help: from 0.70 it takes five reports of harm to fall below `RETIRED_BELOW`, and as many of
help to rise to 0.80.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["HIGHEST", "LOWEST", "RELEASED_FROM", "RETIRED_BELOW", "FeedbackOutcome", "first_confidence", "updated"]

FeedbackOutcome = Literal["helped", "harmed"]

LOWEST, HIGHEST = 0.05, 0.95
RELEASED_FROM = 0.5
"""Drafts with less confidence are released only where they are named."""
RETIRED_BELOW = 0.3

_HELP, _HARM = 0.1, 0.2


def first_confidence(confidence: float, value: float) -> float:
    """Return where a rule begins, from its validation's confidence and its value, each from 0 to 1."""
    return min(HIGHEST, max(LOWEST, confidence * value))


def updated(confidence: float, outcome: FeedbackOutcome) -> float:
    """Return the confidence after one piece of experience."""
    if outcome == "helped":
        return confidence + _HELP * (HIGHEST - confidence)
    return confidence - _HARM * (confidence - LOWEST)
