"""After the deadline: what no batch has answered is asked interactively, at the interactive price, if that is allowed.

Each answer is stored as soon as it is there. A process that dies has paid for those that were under way, at most
`online_at_a_time`, and the next one asks them again: no provider takes back a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.batches.accounts import ids_of
from guidance_agent.core.batches.answers import KnownItem, values_of
from guidance_agent.core.batches.bodies import corrected, prepared_call
from guidance_agent.core.batches.collecting import close_collection, has_schema, store
from guidance_agent.core.batches.leases import BatchLease
from guidance_agent.core.batches.states import BatchKind, BatchState, Parts
from guidance_agent.core.batches.submitting import Job, job_of
from guidance_agent.core.batches.traces import trace_online
from guidance_agent.core.batches.waiting import put_off
from guidance_agent.core.schema import batch_items
from guidance_agent.errors import ConfigurationError, ModelError, ModelTimeoutError
from guidance_agent.llm.batch_request import ItemOutcome, request_from_json
from guidance_agent.llm.messages import Completion
from guidance_agent.llm.transports.base import RawCompletion
from guidance_agent.llm.transports.batches.base import ResultRow

__all__ = ["answer_online", "cancel_prepared"]

_PAGE = 200


async def answer_online(parts: Parts, lease: BatchLease, job: Job) -> bool:
    """Ask what is open in a batch online; True where it has moved on."""
    if lease.row["state"] == "prepared":
        await lease.move("prepared", "submitted", route="online", submitted_at=parts.clock.now(), reason=None)
    kind = parts.kind(job.kind)
    await parts.gateway.prices_ready()
    try:
        while items := await _open_items(parts, lease.id):
            if (await job_of(parts, lease)).cancelled:
                await _cancel_open(parts, lease, {}, before="submitted")
                break
            waiting = iter(items)
            askers = (_ask_all(parts, lease, job, kind, waiting) for _ in range(parts.options.online_at_a_time))
            # Where one has failed, what the others have asked is paid for: they bring it home.
            failures = [each for each in await asyncio.gather(*askers, return_exceptions=True) if each is not None]
            if failures:
                raise failures[0]
    except ConfigurationError as error:
        await put_off(parts, lease, error, before="submitted")
        return False
    await lease.move("submitted", "ended", ended_at=parts.clock.now(), needs_person=False)
    await close_collection(parts, lease, job)
    parts.crash("collected")
    return True


async def cancel_prepared(parts: Parts, lease: BatchLease, job: Job) -> None:
    """End a batch that never left: its items are cancelled."""
    values = {"state": "ended", "ended_at": parts.clock.now()}
    await _cancel_open(parts, lease, values, before="prepared")
    await close_collection(parts, lease, job)


async def _cancel_open(parts: Parts, lease: BatchLease, values: Mapping[str, Any], *, before: BatchState) -> None:
    """Cancel the items that nobody was asked about, and change their batch's row."""
    table = batch_items.c
    change = sa.update(batch_items).where(table.batch_id == lease.id, table.state == "prepared")
    change = change.values(
        state="collected",
        outcome="canceled",
        error="The job was cancelled before the item was submitted.",
        error_type="not_submitted",
        collected_at=parts.clock.now(),
    )
    await lease.within(lambda connection: connection.execute(change), values, before=before)


async def _open_items(parts: Parts, batch_id: str) -> list[Mapping[str, Any]]:
    table = batch_items.c
    query = (
        sa.select(
            table.id, table.custom_id, table.request, table.reason, table.spent_usd, table["metadata"], has_schema()
        )
        .where(table.batch_id == batch_id, table.state == "prepared")
        .order_by(table.position)
        .limit(_PAGE)
    )
    return await parts.database.run(lambda connection: [dict(row) for row in connection.execute(query).mappings()])


async def _ask_all(
    parts: Parts, lease: BatchLease, job: Job, kind: BatchKind, waiting: Iterator[Mapping[str, Any]]
) -> None:
    """Ask one item after the other until the job is cancelled, and store each answer at once."""
    for item in waiting:
        lease.check()
        if (await job_of(parts, lease)).cancelled:
            return
        row = await _asked(parts, lease, job, item)
        values = values_of(parts, kind, _known(item, lease.row["model"]), row, route="online")
        await store(lease, [(item["id"], values)])
        parts.crash("collecting")


def _known(item: Mapping[str, Any], model: str) -> KnownItem:
    schema = item["request"].get("response_schema")
    return KnownItem(item["id"], item["custom_id"], model, item["has_schema"], item["spent_usd"], schema=schema)


async def _asked(parts: Parts, lease: BatchLease, job: Job, item: Mapping[str, Any]) -> ResultRow:
    request = corrected(request_from_json(item["request"]), item["reason"])
    call = await prepared_call(parts.gateway, request)
    try:
        with trace_online(parts, lease, job, item):
            answer = await _within(
                item, parts.gateway.complete(replace(call.request, metadata=ids_of(item["metadata"])))
            )
    except ModelError as error:
        outcome: ItemOutcome = "errored_retryable" if error.retryable else "errored_fatal"
        return ResultRow(wire_id=None, outcome=outcome, error=str(error), error_type=type(error).__name__)
    raw = RawCompletion(
        text=answer.text,
        finish_reason=answer.finish_reason,
        usage=answer.call.usage,
        reasoning=answer.reasoning,
        tool_calls=answer.tool_calls,
        request_id=answer.call.request_id,
    )
    return ResultRow(wire_id=None, answer=raw, simulated=answer.call.simulated)


async def _within(item: Mapping[str, Any], answer: Awaitable[Completion]) -> Completion:
    """Return an answer that comes within the time that its request leaves it.

    Raises:
        ModelTimeoutError: it does not come in time.
    """
    seconds: float | None = item["request"].get("timeout")
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError as error:
        raise ModelTimeoutError(
            f"The request {item['custom_id']!r} had no answer within {seconds} s online. Give it longer, or ask for "
            "less.",
            phase="turn",
        ) from error
