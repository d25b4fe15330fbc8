"""What has become of a turn's judgement, for those who wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from guidance_agent.errors import InputError, UnknownTurnError

if TYPE_CHECKING:
    from guidance_agent.advisor.services import AdvisorServices
    from guidance_agent.compliance.verdict import Verdict

__all__ = ["wait_for_verdict"]

POLL_SECONDS = 0.25
"""Another process may judge, and does not announce it here."""


async def wait_for_verdict(services: AdvisorServices, turn_id: str, *, timeout: float | None) -> Verdict | None:
    """Return the verdict on what a turn delivered, as soon as there is one.

    Raises:
        UnknownTurnError: when there is no such turn.
        InputError: when `timeout` is negative.
        StorageError: when the records cannot be read.
    """
    if timeout is not None and timeout < 0:
        raise InputError(f"timeout={timeout!r} is no time to wait. Use seconds from 0 on, or None to wait for ever.")
    with services.journal.watch(turn_id) as changed:
        end = None if timeout is None else services.clock.monotonic() + timeout
        while True:
            changed.clear()
            standing = await services.verdicts.standing(turn_id)
            if standing is None:
                raise UnknownTurnError(f"There is no turn {turn_id!r}. Use the id that its first event told.")
            if standing.state != "streaming":
                if standing.judgement in ("passed", "failed"):
                    return await _stored(services, turn_id)
                if standing.judgement != "pending":
                    return None
            left = POLL_SECONDS if end is None else min(POLL_SECONDS, end - services.clock.monotonic())
            if left <= 0:
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await changed.wait()


async def _stored(services: AdvisorServices, turn_id: str) -> Verdict | None:
    from guidance_agent.compliance.verdict import Verdict

    stored = await services.verdicts.verdict(turn_id)
    return None if stored is None else Verdict.model_validate(stored.verdict)
