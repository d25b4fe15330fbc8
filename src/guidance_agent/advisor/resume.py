"""Reading a turn from the journal: what a client missed, then what follows while the turn runs.

Resuming is reading: every public event is a row before anybody receives it. A turn of this process is read again after
each of its commits; one of another process is polled. A turn whose process has died is closed on the way, as the
sweep would, so that nobody who follows it waits for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, cast

from guidance_agent.advisor.events import PublicEvent, event_from_json
from guidance_agent.errors import InputError, UnknownTurnError

if TYPE_CHECKING:
    from guidance_agent.advisor.services import AdvisorServices
    from guidance_agent.core.records import EventRecord, Records

__all__ = ["follow_turn"]

PAGE = 32
"""Events that are read at once; one may carry half a megabyte of text."""
POLL_SECONDS = 0.1
OWN_POLL_SECONDS = 5.0
"""A turn of this process announces its commits; it is still looked at now and then, should its lease be lost."""


async def follow_turn(
    services: AdvisorServices, turn_id: str, *, after: int, customer_id: str | None, until_judged: bool = False
) -> AsyncGenerator[PublicEvent, None]:
    """Yield the turn's public events with a sequence greater than `after`, until the turn has ended.

    With `until_judged` it goes on until the turn has its verdict, or has none to wait for. A correction that is read on
    behalf of a customer has reached that customer.

    Raises:
        InputError: when `after` is not a whole number of at least -1.
        UnknownTurnError: when there is no such turn, or it is not this customer's.
        DatabaseUnavailableError: when the records cannot be read.
    """
    if not isinstance(after, int) or isinstance(after, bool) or after < -1:
        raise InputError(f"after={after!r} is no sequence number. Use that of the last event received, or -1 for none.")
    records = services.records
    with services.journal.watch(turn_id) as changed:
        while True:
            changed.clear()
            progress = await records.progress(turn_id, after=after, limit=PAGE)
            if progress is None or customer_id not in (None, progress.customer_id):
                raise UnknownTurnError(
                    f"There is no turn {turn_id!r} of this customer. Use the id that its first event told."
                )
            for record in progress.events:
                yield await _event(records, turn_id, record)
                after = record.sequence
                if record.type == "corrected" and customer_id is not None:
                    await services.verdicts.correction_delivered(turn_id, record.sequence)
            if len(progress.events) == PAGE:
                continue
            if progress.state != "streaming" and not (until_judged and progress.is_pending):
                return
            if progress.state == "streaming" and progress.lease_until < services.clock.now().timestamp():
                await services.close_dead_turns()
            is_own = turn_id in services.journal.live_turns
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OWN_POLL_SECONDS if is_own else POLL_SECONDS):
                    await changed.wait()


async def _event(records: Records, turn_id: str, record: EventRecord) -> PublicEvent:
    values = dict(record.payload)
    if record.type == "text_delta":
        values["text"] = record.text
    elif record.type == "completed":
        values["text"] = await records.text(turn_id)
    return cast("PublicEvent", event_from_json(values))
