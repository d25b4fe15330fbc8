"""What the judge is asked, check by check, as the package's file says."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict

from guidance_agent.compliance.language import Words, tokens_of
from guidance_agent.compliance.verdict import CHECKS, CheckName
from guidance_agent.core.shipped import read_shipped
from guidance_agent.errors import ConfigurationError

__all__ = ["JudgeCheck", "judge_checks", "words_of"]


class JudgeCheck(BaseModel):
    """One check of the judge.

    Attributes:
        kind: `said` for a check of what a text says; `omission` for one of what it leaves out, which does not apply
            to every text.
        requirements: What is required, by identifier; the first one stands for the check.
        words: Where none of them occurs, the subject of the check is not there; empty where that cannot be told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: CheckName
    title: str
    kind: Literal["said", "omission"]
    question: str
    requirements: dict[str, str]
    fails: tuple[str, ...]
    passes: tuple[str, ...]
    words: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        return next(iter(self.requirements))

    def is_about(self, words: Words) -> bool:
        """Whether the subject of the check may be there."""
        return not self.words or any(f" {word} " in f" {words.line}" for word in self.words)


@lru_cache(maxsize=1)
def judge_checks() -> dict[CheckName, JudgeCheck]:
    """Return the checks in their order."""
    file = resources.files("guidance_agent.compliance") / "templates" / "checks.yaml"
    checks = read_shipped(file, list[JudgeCheck])
    if tuple(check.name for check in checks) != CHECKS:
        raise ConfigurationError(f"templates/checks.yaml must hold {', '.join(CHECKS)}, in this order.")
    return {check.name: check for check in checks}


def words_of(*texts: str) -> Words:
    """Return the words of several texts as one."""
    return Words([token for text in texts for token in tokens_of(text)])
