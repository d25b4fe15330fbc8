"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from guidance_agent.cli.exit_codes import ExitCode, exit_code_of
from guidance_agent.errors import GuidanceAgentError

__all__ = ["Check", "Status", "failed", "ok", "warn"]

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What a check found. `next_step` says what to do about it; `code` is the exit status of a failure."""

    name: str
    status: Status
    message: str
    next_step: str | None = None
    code: ExitCode = ExitCode.DONE

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "status": self.status, "message": self.message, "next_step": self.next_step}


def ok(name: str, message: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name=name, status="ok", message=message)


def warn(name: str, message: str, next_step: str) -> Check:
    """Return a check that found something that works, but not as well as it could."""
    return Check(name=name, status="warn", message=message, next_step=next_step)


def failed(
    name: str, problem: GuidanceAgentError | str, next_step: str | None = None, *, code: ExitCode | None = None
) -> Check:
    """Return a failed check. An error of the package brings its next step and its exit status along."""
    if code is None:
        code = exit_code_of(problem) if isinstance(problem, GuidanceAgentError) else ExitCode.CONFIGURATION
    return Check(name=name, status="fail", message=str(problem), next_step=next_step, code=code)
