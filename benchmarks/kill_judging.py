"""Where the judging of a process stands: told by the process at each step, so that it can be killed there.

The product's own functions are wrapped: loading the durable runner, asking the judge, storing the verdict. A process
lingers for a moment at each step, so that a signal finds it there, and other processes come upon the same turn. Some
verdicts are made to fail, the same ones in every process, so that there are corrections that could be told twice.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Literal

from guidance_agent.compliance.validator import GuidanceValidator
from guidance_agent.compliance.verdict import CheckResult, Verdict
from guidance_agent.core import durable
from guidance_agent.core.verdicts import NewVerdict, VerdictRecords

__all__ = ["Step", "tell_of_judging"]

Step = Literal["asked", "answered", "stored"]

_LINGER_SECONDS = 0.03
_ONE_IN = 4
_QUOTED = 20

Tell = Callable[..., None]


def tell_of_judging(tell: Tell) -> None:
    """Have this process tell `judging`, a `Step`, with the id of a `turn`, and with `durable` what becomes of DBOS."""
    validate, store, open_runner = GuidanceValidator.validate, VerdictRecords.store, durable.open_runner

    async def told_validate(self: GuidanceValidator, text: str, **details: Any) -> Verdict:
        turn_id = details["turn_id"]
        tell(turn=turn_id, judging="asked")
        verdict = await validate(self, text, **details)
        tell(turn=turn_id, judging="answered")
        await asyncio.sleep(_LINGER_SECONDS)
        return _failed(verdict, text) if zlib.crc32(turn_id.encode()) % _ONE_IN == 0 else verdict

    async def told_store(self: VerdictRecords, new: NewVerdict, *rest: Any, **payloads: Any) -> str | None:
        stored = await store(self, new, *rest, **payloads)
        if stored is not None:
            tell(turn=new.turn_id, judging="stored")
            await asyncio.sleep(_LINGER_SECONDS)
        return stored

    async def told_open(*arguments: Any, **options: Any) -> durable.DurableRunner:
        tell(durable="starting")
        runner = await open_runner(*arguments, **options)
        tell(durable="started")
        return runner

    GuidanceValidator.validate = told_validate  # type: ignore[method-assign]
    VerdictRecords.store = told_store  # type: ignore[method-assign]
    durable.open_runner = told_open


def _failed(verdict: Verdict, text: str) -> Verdict:
    """Return the verdict with two failures: one of words that are quoted, one of words that were left out."""
    quote = text[:_QUOTED]
    failures = (
        CheckResult(
            check="clear_not_misleading",
            status="fail",
            severity="high",
            requirement="Made to fail",
            explanation="Made to fail, so that there is something to correct.",
            quote=quote,
            start=0,
            end=len(quote),
            source="judge",
        ),
        CheckResult(
            check="understanding_check",
            status="fail",
            severity="low",
            requirement="Made to fail",
            explanation="Made to fail, so that there is something to add.",
            source="judge",
        ),
    )
    return verdict.model_copy(update={"checks": (*verdict.checks, *failures)})
