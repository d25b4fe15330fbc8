"""The closing material that is due at the end of an answer, whatever the model said or left out.

A risk warning is due where the answer discusses a decision. A signpost is due where it is about pensions at all, and
where it did not end as the model meant it to: cut off, refused, failed or stopped, when the customer needs to know
where to turn. A greeting needs neither. What the answer says already is not said again.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

from pydantic import BaseModel, ConfigDict

from guidance_agent.compliance.decision_points import LONGEST_READ, discusses_decision, speaks_of_pensions
from guidance_agent.core.shipped import read_shipped

__all__ = ["closing_for", "closing_version"]


class _Material(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    said: tuple[str, ...]

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(self.said), re.IGNORECASE)

    def is_in(self, text: str) -> bool:
        found = self.pattern.search
        return (found(text, 0, LONGEST_READ) or found(text, max(0, len(text) - LONGEST_READ))) is not None


class _Closing(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    risk_warning: _Material
    signpost: _Material


def closing_for(text: str, *, is_whole: bool) -> str:
    """Return what must be added to an answer, with the space before it; empty when nothing is due.

    Args:
        text: What was released of the answer.
        is_whole: Whether it ended as the model meant it to.
    """
    material = _material()
    due = []
    if discusses_decision(text) and not material.risk_warning.is_in(text):
        due.append(material.risk_warning.text)
    if (not is_whole or speaks_of_pensions(text)) and not material.signpost.is_in(text):
        due.append(material.signpost.text)
    return _space_after(text) + " ".join(due) if due else ""


def closing_version() -> str:
    """Return the wording as it is, to be part of a fingerprint."""
    return _material().model_dump_json()


def _space_after(text: str) -> str:
    if not text or text.endswith("\n\n"):
        return ""
    return "\n" if text.endswith("\n") else "\n\n"


@lru_cache(maxsize=1)
def _material() -> _Closing:
    return read_shipped(resources.files("guidance_agent.compliance") / "closing.yaml", _Closing)
