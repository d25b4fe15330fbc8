"""A process that stood still while it submitted, and goes on when another has taken its batch over.

It alone knows that the provider has accepted what it sent, so it says so, or undoes it: where the other one is still
looking for the batch, its id is written down for it; where the other one has sent the items itself, the second batch is
cancelled, and what its provider has answered by then is paid for in vain.
"""

from __future__ import annotations

import logging

import sqlalchemy as sa

from guidance_agent.core.batches.leases import BatchLease
from guidance_agent.core.batches.states import Parts, Provider
from guidance_agent.core.schema import provider_batches
from guidance_agent.errors import ModelError
from guidance_agent.llm.transports.batches.base import ProviderBatch

__all__ = ["settle_late"]

_logger = logging.getLogger(__name__)


async def settle_late(parts: Parts, lease: BatchLease, provider: Provider, batch: ProviderBatch) -> None:
    """Keep or cancel a batch that was accepted after its row had become another process's."""
    if await _is_kept(parts, lease, batch.id):
        return
    _logger.warning(
        "The batch %s of %s was accepted for the second time, as %s, because this process stood still for longer than "
        "its lease. It is being cancelled.",
        lease.id,
        lease.row["provider"],
        batch.id,
    )
    try:
        await provider.wire.cancel(provider.place, batch.id)
    except ModelError as error:
        _logger.error("The batch %s could not be cancelled: %s. Cancel it at the provider.", batch.id, error)


async def _is_kept(parts: Parts, lease: BatchLease, provider_batch_id: str) -> bool:
    """Write the id down, where nothing was sent since; return whether the batch is the one in the records."""
    table = provider_batches.c
    query = sa.select(table.state, table.attempts, table.provider_batch_id).where(table.id == lease.id)
    now = parts.clock.now()
    change = sa.update(provider_batches).where(table.id == lease.id)
    values = {"state": "submitted", "provider_batch_id": provider_batch_id, "submitted_at": now, "not_before": 0.0}

    def write(connection: sa.Connection) -> bool:
        row = connection.execute(query.with_for_update()).one()
        if row.provider_batch_id == provider_batch_id:
            return True
        unsent = row.attempts == lease.row["attempts"] and row.state in ("submitting", "prepared")
        if unsent and row.provider_batch_id is None:
            # Whoever looks for it holds the row, and finds by its state that it has moved on.
            connection.execute(change.values(**values, reason="accepted late", needs_person=False))
            return True
        return False

    return await parts.database.transaction(write)
