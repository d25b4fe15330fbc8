"""One process at a time for each batch: a lease that is taken, renewed while work goes on, and given back.

Every change of a batch's row is conditional on the lease and on the state that it starts from. Whoever has lost its
lease changes nothing, and finds out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import sqlalchemy as sa

from guidance_agent.core.batches.states import BatchState, Parts
from guidance_agent.core.schema import provider_batches
from guidance_agent.errors import DatabaseUnavailableError

__all__ = ["BatchLease", "LeaseGone", "taken"]

T = TypeVar("T")
_RENEWALS = 4.0


class LeaseGone(Exception):
    """Raised inside a step whose batch has become another process's; what it was about to write is not written."""


class BatchLease:
    """The right to work on one batch.

    Attributes:
        row: The batch as this process last wrote or read it.
        failure: What the present step failed with; None where it did not.
        items_shown: How many items of the batch have left spans.
    """

    def __init__(self, parts: Parts, row: Mapping[str, Any]) -> None:
        self._parts = parts
        self.row: dict[str, Any] = dict(row)
        self.failure: Exception | None = None
        self.items_shown = 0
        self._valid_until = parts.clock.monotonic() + parts.options.lease

    @property
    def id(self) -> str:
        return str(self.row["id"])

    def check(self) -> None:
        """Raise `LeaseGone` unless nobody else can have the batch yet.

        Two clocks are asked: the monotonic one stands still while a machine sleeps, the other one may be set.
        """
        if self._parts.clock.monotonic() >= self._valid_until or self._parts.now >= self.row["lease_until"]:
            raise LeaseGone(self.id)

    async def renew(self) -> None:
        self._valid_until = await self._renewed()

    async def _renewed(self) -> float:
        until = self._parts.clock.monotonic() + self._parts.options.lease
        await self.change({})
        return until

    async def move(self, before: BatchState, after: BatchState, **values: Any) -> None:
        """Bring the batch from one state to the next, in a transaction of its own."""
        await self.change({"state": after, **values}, before=before)

    async def change(self, values: Mapping[str, Any], *, before: BatchState | None = None) -> None:
        """Write values of the batch's row."""
        await self.within(lambda connection: None, values, before=before)

    async def within(
        self, work: Callable[[sa.Connection], T], values: Mapping[str, Any], *, before: BatchState | None = None
    ) -> T:
        """Do `work` and change the batch's row in one transaction, or neither."""
        written = {**values, "lease_until": self._parts.now + self._parts.options.lease}
        table = provider_batches
        change = sa.update(table).where(table.c.id == self.id, table.c.owner == self.row["owner"])
        if before is not None:
            change = change.where(table.c.state == before)

        def write(connection: sa.Connection) -> T:
            if not connection.execute(change.values(**written)).rowcount:
                raise LeaseGone(self.id)
            return work(connection)

        result = await self._parts.database.transaction(write)
        self.row |= written
        return result


@asynccontextmanager
async def taken(
    parts: Parts, batch_id: str, states: tuple[BatchState, ...], *, early: bool = False
) -> AsyncIterator[BatchLease | None]:
    """Have a batch's lease while the block runs; yields None when another process has it, or it is not its time.

    `early` says that it may be taken before its time.
    """
    table, owner = provider_batches, parts.clock.new_id("lease")
    now = parts.now
    free = sa.or_(table.c.owner.is_(None), table.c.lease_until < now)
    mine = table.c.id == batch_id

    def take(connection: sa.Connection) -> Mapping[str, Any] | None:
        before = connection.execute(sa.select(table).where(mine).with_for_update()).mappings().first()
        change = sa.update(table).where(
            mine, free, table.c.state.in_(states), sa.true() if early else table.c.not_before <= now
        )
        if (
            before is None
            or not connection.execute(change.values(owner=owner, lease_until=now + parts.options.lease)).rowcount
        ):
            return None
        # When the owner before was last alive is what an unclear submission is judged by.
        until = now + parts.options.lease
        return {**before, "owner": owner, "lease_until": until, "last_alive": before["lease_until"]}

    row = await parts.database.transaction(take)
    if row is None:
        yield None
        return
    lease = BatchLease(parts, row)
    renewing = asyncio.create_task(_keep(lease, parts))
    try:
        yield lease
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])
        await _give_back(parts, batch_id, owner)


async def _keep(lease: BatchLease, parts: Parts) -> None:
    while True:
        await asyncio.sleep(parts.options.lease / _RENEWALS)
        try:
            await lease.renew()
        except LeaseGone:
            return
        except DatabaseUnavailableError:
            # The next renewal may succeed; `check` knows when it is too late.
            continue


async def _give_back(parts: Parts, batch_id: str, owner: str) -> None:
    table = provider_batches
    change = sa.update(table).where(table.c.id == batch_id, table.c.owner == owner)
    await parts.database.transaction(
        lambda connection: connection.execute(change.values(owner=None, lease_until=parts.now))
    )
