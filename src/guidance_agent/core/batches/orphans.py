"""Batches of which it is not known whether the provider has them: looked for, adopted, and only then sent again.

A provider that keeps our id shows it in its list. Of one that does not, every batch is a candidate that was created at
the right time, holds as many requests and belongs to no other row. While a candidate runs nothing can be said, and
nothing is sent; once it has ended, the custom ids in its results say whose it is. Where there is no candidate, the
batch is sent again when the grace period is over, because a list may lag.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal, cast

import sqlalchemy as sa

from guidance_agent.core.batches.leases import BatchLease
from guidance_agent.core.batches.states import Parts, Provider
from guidance_agent.core.batches.submitting import provider_of, submitted
from guidance_agent.core.batches.waiting import put_off
from guidance_agent.core.schema import batch_items, provider_batches
from guidance_agent.errors import ConfigurationError, ModelError
from guidance_agent.llm.transports.batches.base import ProviderBatch, ResultRow

__all__ = ["settle_orphan"]

_DISCARDED = "discarded"
_ROWS_READ = 20
_NO_LIST = (
    "whether the provider has the batch cannot be seen from here, because its batches are not listed; look there, and "
    "decide: adopt it, or have it sent again"
)

Belongs = Literal["mine", "not mine", "not known yet", "cannot be known"]


async def settle_orphan(parts: Parts, lease: BatchLease) -> bool:
    """Find out what became of a submission; True where the batch has moved on."""
    since = await _unclear_since(parts, lease)
    try:
        provider = await provider_of(parts, lease)
        if not provider.wire.lists:
            await _wait(lease, parts.now + parts.options.longest_wait, _NO_LIST, needs_person=True)
            return False
        intent = lease.row["intent_at"] - timedelta(seconds=parts.options.clock_skew)
        found: ProviderBatch | Belongs | None
        if provider.wire.keeps_keys:
            found = await _named(lease, provider, intent)
        else:
            found = await _among_candidates(parts, lease, provider, intent, since)
    except (ConfigurationError, ModelError) as error:
        await put_off(parts, lease, error, before="submitting")
        return False
    if isinstance(found, ProviderBatch):
        await submitted(parts, lease, found, adopted=True)
        return True
    if found is not None:
        needs_person = found == "cannot be known"
        reason = (
            "a batch at the provider may be this one, and its results cannot say so any more; adopt it, or send again"
            if needs_person
            else "a batch at the provider may be this one; that is known once it has ended"
        )
        await _wait(lease, parts.now + parts.options.poll, reason, needs_person=needs_person)
        return False
    over = since.timestamp() + parts.options.grace
    if parts.now < over:
        await _wait(lease, min(over, parts.now + parts.options.poll), "not found at the provider yet")
        return False
    reason = "the provider never had it; it is sent again"
    await lease.move("submitting", "prepared", reason=reason, not_before=0.0, unclear_since=None)
    return True


async def _unclear_since(parts: Parts, lease: BatchLease) -> datetime:
    """Return when the process that was submitting was last alive: it may have gone on until then."""
    known: datetime | None = lease.row["unclear_since"]
    if known is not None:
        return known
    last = datetime.fromtimestamp(lease.row["last_alive"], UTC)
    since: datetime = max(lease.row["intent_at"], min(last, parts.clock.now()))
    await lease.change({"unclear_since": since}, before="submitting")
    return since


async def _wait(lease: BatchLease, until: float, reason: str, *, needs_person: bool = False) -> None:
    await lease.change({"not_before": until, "reason": reason, "needs_person": needs_person}, before="submitting")


async def _named(lease: BatchLease, provider: Provider, intent: datetime) -> ProviderBatch | None:
    """Return the batch that carries our id. Were there two, the later ones are cancelled: they cost without use."""
    found = [batch async for batch in provider.wire.listed(provider.place, intent) if batch.key == lease.id]
    if not found:
        return None
    found.sort(key=lambda batch: batch.created_at)
    for other in found[1:]:
        await provider.wire.cancel(provider.place, other.id)
    return found[0]


async def _among_candidates(
    parts: Parts, lease: BatchLease, provider: Provider, intent: datetime, since: datetime
) -> ProviderBatch | Belongs | None:
    """Return the batch whose results are ours; else what keeps that from being known; None without any candidate."""
    # A request that was on its way when the process died may have been carried out a little later.
    until = since + timedelta(seconds=parts.options.clock_skew + parts.options.grace)
    candidates = [
        batch
        async for batch in provider.wire.listed(provider.place, intent)
        if batch.created_at <= until and batch.total in (None, lease.row["items"])
    ]
    owned = await _owned(parts, [batch.id for batch in candidates])
    discarded: set[str] = set(lease.row["notes"].get(_DISCARDED, ()))
    answers: set[Belongs] = set()
    for batch in candidates:
        if batch.id in owned or batch.id in discarded:
            continue
        belongs = await _belongs(parts, lease, provider, batch)
        if belongs == "mine":
            return batch
        if belongs == "not mine":
            discarded.add(batch.id)
            await lease.change({"notes": {**lease.row["notes"], _DISCARDED: sorted(discarded)}}, before="submitting")
        else:
            answers.add(belongs)
    return next((answer for answer in ("not known yet", "cannot be known") if answer in answers), None)


async def _owned(parts: Parts, ids: Iterable[str]) -> set[str]:
    column = provider_batches.c.provider_batch_id
    query = sa.select(column).where(column.in_(list(ids)))
    return set(await parts.database.run(lambda connection: connection.execute(query).scalars().all()))


async def _belongs(parts: Parts, lease: BatchLease, provider: Provider, batch: ProviderBatch) -> Belongs:
    if batch.state == "running":
        return "not known yet"
    try:
        seen = [name async for name in _first_ids(provider, batch)]
    except ModelError as error:
        if error.status == 404:
            return "cannot be known"
        raise
    if not seen:
        return "cannot be known"
    table = batch_items.c
    query = (
        sa.select(sa.func.count()).select_from(batch_items).where(table.wire_id.in_(seen), table.batch_id == lease.id)
    )
    ours = await parts.database.run(lambda connection: connection.execute(query).scalar_one())
    return "mine" if ours else "not mine"


async def _first_ids(provider: Provider, batch: ProviderBatch) -> AsyncIterator[str]:
    rows = cast("AsyncGenerator[ResultRow]", provider.wire.rows(provider.place, batch))
    count = 0
    try:
        async for row in rows:
            if row.wire_id is not None:
                yield row.wire_id
            count += 1
            if count >= _ROWS_READ:
                return
    finally:
        await rows.aclose()
