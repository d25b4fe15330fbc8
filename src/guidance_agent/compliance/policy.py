"""What follows from a finding: the requirement behind each check, what is done, and what is shown instead."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict

from guidance_agent.core.shipped import read_shipped
from guidance_agent.errors import ConfigurationError

__all__ = ["Action", "CheckPolicy", "load_policy", "policy_fingerprint"]

Action = Literal["replace", "stop", "flag"]


class CheckPolicy(BaseModel):
    """The policy of one check.

    Attributes:
        requirement: The rule behind the check.
        action: `replace` shows `instead` or `after`; `stop` does so and ends the answer; `flag` only records.
        instead: Stands for a whole sentence.
        after: Stands for the rest of a sentence whose beginning is out already.
        again: Stands for such a rest where `after` was what was shown last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requirement: str
    action: Action
    instead: str
    after: str
    again: str


def load_policy(actions: Mapping[str, Action] | None = None) -> dict[str, CheckPolicy]:
    """Return the package's policy by the name of the check, with the actions that `actions` names for some of them.

    Raises:
        ConfigurationError: when `actions` names a check that does not exist.
    """
    policy = dict(_packaged())
    for check, action in (actions or {}).items():
        if check not in policy:
            close = difflib.get_close_matches(check, policy, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(
                f"gate.actions names {check!r}, which is no check of the gate.{guess} Use {', '.join(policy)}."
            )
        policy[check] = policy[check].model_copy(update={"action": action})
    return policy


def policy_fingerprint(*versions: str, policy: Mapping[str, CheckPolicy]) -> str:
    """Return one fingerprint of a policy and of the versions of what it is applied to."""
    content = [list(versions), {check: entry.model_dump() for check, entry in sorted(policy.items())}]
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def _packaged() -> dict[str, CheckPolicy]:
    return read_shipped(resources.files("guidance_agent.compliance") / "policy.yaml", dict[str, CheckPolicy])
