"""Submitting: the intent first, then the rows, then the batch, and after each of them what is known.

    intent committed → rows written to a file of ours → [uploaded → its id committed] → batch created → its id committed

What a provider refuses with a status, or was never reached with, made no batch: the batch is `prepared` again. Anything
else that goes wrong, and the death of the process, leaves `submitting`: whether there is a batch is then for
`orphans.py` to find out, and nothing is sent before it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.batches.again import halve, is_too_large
from guidance_agent.core.batches.bodies import corrected, prepared_call
from guidance_agent.core.batches.late import settle_late
from guidance_agent.core.batches.leases import BatchLease, LeaseGone
from guidance_agent.core.batches.states import Parts, Provider
from guidance_agent.core.batches.waiting import cause, put_off, put_off_until
from guidance_agent.core.schema import batch_items, batch_jobs, provider_batches
from guidance_agent.errors import ConfigurationError, ModelError, ModelNotFoundError
from guidance_agent.llm.batch_request import request_from_json
from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.transports.batches.base import BatchPlace, BatchWire, ProviderBatch, surely_not_accepted

__all__ = ["Job", "job_of", "provider_of", "submit", "submitted"]

_PAGE = 200
_ENDED = ("ended", "collected", "applied")


class Job(NamedTuple):
    """What a batch needs to know of its job."""

    id: str
    kind: str
    cancelled: bool
    late: bool
    online_due: bool
    created_at: float
    traceparent: str | None


async def job_of(parts: Parts, lease: BatchLease) -> Job:
    """Return the job of a batch, as it stands now."""
    query = sa.select(batch_jobs).where(batch_jobs.c.id == lease.row["job_id"])
    row = await parts.database.run(lambda connection: connection.execute(query).mappings().one())
    late = row["deadline"] is not None and row["deadline"] <= parts.clock.now()
    return Job(
        id=row["id"],
        kind=row["kind"],
        cancelled=row["cancelled_at"] is not None,
        late=late,
        online_due=late and row["online_allowed"],
        created_at=row["created_at"].timestamp(),
        traceparent=row["traceparent"],
    )


async def provider_of(parts: Parts, lease: BatchLease) -> Provider:
    """Return the way to a batch's provider.

    Raises:
        ConfigurationError: its model cannot be called as things are set up now.
    """
    call, _ = await parts.gateway.routed(ModelRequest(model=lease.row["model"], messages=()))
    place = BatchPlace(endpoint=call.endpoint, timeouts=call.timeouts, model=call.model_id)
    return Provider(await parts.wires.of(call.endpoint), place, call.traits)


async def submit(parts: Parts, lease: BatchLease, job: Job) -> bool:
    """Submit a batch that is prepared; False where it has to wait."""
    held_until = await _held_until(parts, lease, job)
    if held_until > parts.now:
        await put_off_until(
            lease, held_until, before="prepared", reason="waits for the batch that primes its cached prefix"
        )
        return False
    intent = {"intent_at": parts.clock.now(), "attempts": lease.row["attempts"] + 1, "unclear_since": None}
    await lease.move("prepared", "submitting", **intent)
    parts.crash("intent_recorded")
    with contextlib.ExitStack() as stack:
        try:
            # A disk that is full may show here, or while the rows are written.
            file = stack.enter_context(tempfile.TemporaryFile())
            provider = await provider_of(parts, lease)
            source = await _source(parts, lease, provider, file)
        except (ConfigurationError, ModelError, OSError) as error:
            if is_too_large(error):
                await halve(parts, lease, error)
                return True
            # A file costs nothing and is no batch; only what is made of it must not be made twice.
            await put_off(parts, lease, error, before="submitting", after="prepared")
            return False
        # Beyond this line it may be paid for: nobody else may have the batch by now.
        await lease.renew()
        lease.check()
        try:
            batch = await provider.wire.create(provider.place, lease.id, source)
        except ModelError as error:
            if is_too_large(error):
                await halve(parts, lease, error)
                return True
            await _failed(parts, lease, error)
            return False
    parts.crash("accepted")
    try:
        await submitted(parts, lease, batch)
    except LeaseGone:
        await settle_late(parts, lease, provider, batch)
        raise
    return True


async def submitted(parts: Parts, lease: BatchLease, batch: ProviderBatch, **notes: Any) -> None:
    """Note that the provider has the batch, and under which id."""
    kept = {name: value for name, value in lease.row["notes"].items() if name != "waits"}
    await lease.move(
        "submitting",
        "submitted",
        provider_batch_id=batch.id,
        submitted_at=parts.clock.now(),
        not_before=0.0,
        reason=None,
        needs_person=False,
        notes={**kept, **notes},
    )
    parts.crash("submitted")


async def _held_until(parts: Parts, lease: BatchLease, job: Job) -> float:
    """Return until when the batch waits for the one that primes its prefix; a moment that has passed is no wait."""
    prime = lease.row["after_batch_id"]
    if prime is None or job.cancelled or job.online_due:
        return 0.0
    table = provider_batches.c
    query = sa.select(table.state, table.submitted_at).where(table.id == prime)
    row = await parts.database.run(lambda connection: connection.execute(query).one())
    if row.state in _ENDED:
        return 0.0
    since = job.created_at if row.submitted_at is None else row.submitted_at.timestamp()
    last = since + parts.options.prime_wait
    return 0.0 if parts.now >= last else min(last, parts.now + parts.options.poll)


async def _write_rows(parts: Parts, lease: BatchLease, wire: BatchWire, file: BinaryIO) -> None:
    """Write the rows of a batch to a file, a page of items in memory at a time."""
    piece = bytearray(wire.before)
    first = True
    async for items in _pages(parts, lease.id):
        for item in items:
            request = corrected(request_from_json(item["request"]), item["reason"])
            if not first:
                piece += wire.between
            piece += wire.row(item["wire_id"], await prepared_call(parts.gateway, request))
            first = False
        await asyncio.to_thread(file.write, bytes(piece))
        piece.clear()
        lease.check()
    piece += wire.after
    await asyncio.to_thread(file.write, bytes(piece))
    await asyncio.to_thread(file.seek, 0)


async def _pages(parts: Parts, batch_id: str) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    table = batch_items.c
    columns = sa.select(table.position, table.wire_id, table.request, table.reason)
    after = 0
    while True:
        query = columns.where(table.batch_id == batch_id, table.position > after).order_by(table.position).limit(_PAGE)
        rows = await parts.database.run(partial(_mappings, query=query))
        if not rows:
            return
        after = rows[-1]["position"]
        yield rows


def _mappings(connection: sa.Connection, query: sa.Select[Any]) -> Sequence[Mapping[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]


async def _source(parts: Parts, lease: BatchLease, provider: Provider, file: BinaryIO) -> BinaryIO | str:
    """Return what a batch is made of: the file with its rows, or the id of that file at the provider."""
    wire, place, _ = provider
    if lease.row["input_file_id"] is not None:
        return str(lease.row["input_file_id"])
    await _write_rows(parts, lease, wire, file)
    uploaded = await wire.upload(place, lease.id, file)
    if uploaded is None:
        return file
    parts.crash("uploaded")
    await lease.change({"input_file_id": uploaded}, before="submitting")
    parts.crash("upload_recorded")
    return uploaded


async def _failed(parts: Parts, lease: BatchLease, error: ModelError) -> None:
    if isinstance(error, ModelNotFoundError) and lease.row["input_file_id"] is not None:
        # The provider may have removed the file; the next attempt brings another.
        await lease.change({"input_file_id": None}, before="submitting")
    if surely_not_accepted(error):
        await put_off(parts, lease, error, before="submitting", after="prepared")
        return
    lease.failure = error
    await lease.change(
        {
            "unclear_since": parts.clock.now(),
            "reason": f"whether it was accepted is not known ({cause(error)})",
            "not_before": parts.now + min(parts.options.retry_after, parts.options.grace),
        },
        before="submitting",
    )
