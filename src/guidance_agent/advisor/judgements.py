"""What has become of a turn's judgement: its verdict for those who wait for it, its corrections for the next turn."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

from guidance_agent.advisor.events import Corrected, event_from_json
from guidance_agent.errors import InputError, UnknownTurnError

if TYPE_CHECKING:
    from guidance_agent.advisor.services import AdvisorServices
    from guidance_agent.compliance.verdict import Verdict
    from guidance_agent.core.verdicts import UndeliveredCorrection

__all__ = ["EarlierCorrections", "wait_for_verdict"]

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

    stored = await services.verdicts.standing_verdict(turn_id)
    return None if stored is None else Verdict.model_validate(stored.verdict)


class EarlierCorrections:
    """The corrections of a consultation's earlier turns that its customer has not received.

    They are read when the first is asked for, while the model of the new turn answers, and noted as received when
    the next event is asked for: one that is lost on its way comes again with the next turn.
    """

    def __init__(self, services: AdvisorServices, *, consultation_id: str, turn_id: str) -> None:
        self._verdicts = services.verdicts
        self._consultation_id = consultation_id
        self._turn_id = turn_id
        self._left: list[UndeliveredCorrection] | None = None
        self._handed_out: list[str] = []

    async def next(self) -> Corrected | None:
        """Return the next correction; None after the last."""
        await self.note_delivery()
        if self._left is None:
            found = await self._verdicts.undelivered_corrections(self._consultation_id, before=self._turn_id)
            self._left = list(found)
        if not self._left:
            return None
        correction = self._left.pop(0)
        self._handed_out.append(correction.id)
        return cast("Corrected", event_from_json(correction.payload))

    async def note_delivery(self) -> None:
        """Note that what was handed out has been received."""
        handed_out, self._handed_out = self._handed_out, []
        if handed_out:
            await self._verdicts.corrections_delivered(handed_out)
