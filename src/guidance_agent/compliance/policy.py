"""What follows from a finding: the requirement behind each check, what is done, and what is shown instead."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

__all__ = ["Action", "CheckPolicy", "load_policy"]

Action = Literal["replace", "stop", "flag"]


class CheckPolicy(BaseModel):
    """The policy of one check; `after` replaces the rest of a sentence whose beginning is out already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requirement: str
    action: Action
    instead: str
    after: str


@lru_cache(maxsize=1)
def load_policy() -> dict[str, CheckPolicy]:
    """Return the package's policy by the name of the check."""
    text = (resources.files("guidance_agent.compliance") / "policy.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, CheckPolicy]).validate_python(yaml.safe_load(text))
