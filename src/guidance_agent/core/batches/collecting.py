"""Collecting: a batch is looked at until it has ended, and its results are stored as they come.

Results come in any order, some twice, some for items that nobody knows, and a file may end too early. A row is stored
for the item that it names, once; what cannot be given to an item is counted in the batch's notes. Items that no row
named are asked for again a few times before they count as lost.

The transaction that ends a collection also makes the next round: what expired, failed for a reason that passes, or was
answered in a form that cannot be used, is put into a batch of its own with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.batches.accounts import Accounts
from guidance_agent.core.batches.again import AGAIN, add_batch, sent_again
from guidance_agent.core.batches.answers import KnownItem, values_of
from guidance_agent.core.batches.leases import BatchLease
from guidance_agent.core.batches.states import BatchKind, Parts, Provider
from guidance_agent.core.batches.submitting import Job, provider_of
from guidance_agent.core.batches.traces import ItemSpans
from guidance_agent.core.batches.waiting import put_off, put_off_until
from guidance_agent.core.bulk import Row, insert_rows, is_one_of, update_rows
from guidance_agent.core.ledger import ledger_row
from guidance_agent.core.schema import batch_items, model_calls, provider_batches
from guidance_agent.core.types import JsonObject
from guidance_agent.errors import ConfigurationError, ModelError
from guidance_agent.llm.batch_request import ItemOutcome, Route
from guidance_agent.llm.messages import ModelCall
from guidance_agent.llm.transports.batches.base import ProviderBatch, ResultRow, told

__all__ = ["close_collection", "collect", "has_schema", "look", "store"]

_SHOWN = 5
_GONE = (
    "The provider has no such batch any more, or never had it. If its results were never read they are lost there; "
    "submit the items again as a new job if they are still needed."
)


def has_schema() -> sa.ColumnElement[bool]:
    """Return whether an item's request asks for JSON of a certain form."""
    asked: sa.ColumnElement[bool] = batch_items.c.request["response_schema"].as_string().is_not(None)
    return asked.label("has_schema")


def _schema(kind: BatchKind) -> sa.ColumnElement[Any]:
    """Return the schema of an item's request; where the kind has a type, only whether there is one."""
    if kind.output is not None:
        return has_schema()
    asked: sa.ColumnElement[Any] = batch_items.c.request["response_schema"].as_json()
    return asked.label("has_schema")


async def look(parts: Parts, lease: BatchLease, job: Job) -> bool:
    """See how a submitted batch stands; True where it has moved on."""
    try:
        provider = await provider_of(parts, lease)
        batch = await provider.wire.find(provider.place, lease.row["provider_batch_id"])
        unwanted = (job.cancelled or job.online_due) and not lease.row["notes"].get("cancel_asked")
        if batch is not None and batch.state == "running" and unwanted:
            await provider.wire.cancel(provider.place, batch.id)
            await lease.change({"notes": {**lease.row["notes"], "cancel_asked": True}}, before="submitted")
    except (ConfigurationError, ModelError) as error:
        await put_off(parts, lease, error, before="submitted")
        return False
    if batch is None:
        return await _missing(parts, lease)
    if batch.state == "running":
        await put_off_until(
            lease, parts.now + parts.options.poll, before="submitted", reason="the provider works on it"
        )
        return False
    if batch.state == "failed" and all(problem.line is None for problem in batch.problems):
        # Nothing of it was worked on, as when too much waits at the provider already.
        await _again_as_it_is(parts, lease, batch)
        return False
    if batch.state == "failed":
        await _rows_refused(parts, lease, batch)
    else:
        await lease.move("submitted", "ended", ended_at=parts.clock.now(), reason=None, needs_person=False)
    parts.crash("ended")
    return True


async def _missing(parts: Parts, lease: BatchLease) -> bool:
    """Do what there is to do about a batch that its provider does not know; True where it has moved on."""
    since = float(lease.row["notes"].get("gone_since", parts.now))
    before, now = lease.row["state"], parts.clock.now()
    if parts.now - since < parts.options.gone_after:
        young = lease.row["submitted_at"] + timedelta(seconds=parts.options.grace) > now
        values = {
            "not_before": parts.now + (parts.options.poll if young else parts.options.retry_after),
            "reason": "the provider does not show the batch; was the key, or the address, changed?",
            "needs_person": not young,
            "notes": {**lease.row["notes"], "gone_since": since},
        }
        await lease.change(values, before=before)
        return False
    values = {"state": "ended", "ended_at": now, "reason": _GONE, "needs_person": False}
    await lease.within(_all_open(parts, lease.id, "errored_fatal", _GONE, "batch_gone"), values, before=before)
    return True


def _all_open(
    parts: Parts, batch_id: str, outcome: ItemOutcome, error: str, error_type: str
) -> Callable[[sa.Connection], None]:
    """Return what gives all items of a batch that have no outcome the same."""
    table = batch_items.c
    change = sa.update(batch_items).where(table.batch_id == batch_id, table.state == "prepared")
    change = change.values(**_without_answer(outcome, error, error_type, parts.clock.now()))

    def write(connection: sa.Connection) -> None:
        connection.execute(change)

    return write


def _without_answer(outcome: ItemOutcome, error: str, error_type: str, at: datetime) -> JsonObject:
    return {
        "state": "collected",
        "outcome": outcome,
        "error": error,
        "error_type": error_type,
        "collected_at": at,
    }


async def _again_as_it_is(parts: Parts, lease: BatchLease, batch: ProviderBatch) -> None:
    """Have a batch sent again of which the provider took nothing, for a reason that is in none of its rows."""
    reason = told(batch.problems) or "no reason was given"
    times = int(lease.row["notes"].get("refusals", 0)) + 1
    wait = min(parts.options.longest_wait, parts.options.retry_after * 2.0 ** (times - 1))
    await lease.move(
        "submitted",
        "prepared",
        provider_batch_id=None,
        input_file_id=None,
        submitted_at=None,
        not_before=parts.now + wait,
        needs_person=times > 1,
        reason=f"the provider refused the batch: {reason}",
        notes={**lease.row["notes"], "refusals": times, "last_refusal": reason},
    )


async def _rows_refused(parts: Parts, lease: BatchLease, batch: ProviderBatch) -> None:
    """Note which rows the provider refused, and that the others had to go with them."""
    at = parts.clock.now()
    reason = told(batch.problems) or "no reason was given"
    named = {problem.line: problem.message for problem in batch.problems if problem.line is not None}
    table = batch_items.c
    refused = f"the provider refused the batch: {reason}"
    others = _all_open(parts, lease.id, "errored_retryable", refused, "batch_refused")

    def write(connection: sa.Connection) -> None:
        changes = []
        nth = sa.select(table.id).where(table.batch_id == lease.id).order_by(table.position)
        for line, message in named.items():
            found = connection.execute(nth.offset(line - 1).limit(1)).scalar_one_or_none()
            if found is not None:
                changes.append((found, _without_answer("errored_fatal", message, "batch_refused", at)))
        update_rows(connection, batch_items, changes)
        others(connection)

    await lease.within(write, {"state": "ended", "ended_at": at, "reason": refused}, before="submitted")


async def collect(parts: Parts, lease: BatchLease, job: Job) -> bool:
    """Store the results of a batch that has ended; True where it has moved on."""
    if await _open_items(parts, lease.id):
        try:
            provider = await provider_of(parts, lease)
            batch = await provider.wire.find(provider.place, lease.row["provider_batch_id"])
            if batch is None:
                return await _missing(parts, lease)
            await _read_results(parts, lease, job, provider, batch)
        except (ConfigurationError, ModelError) as error:
            await put_off(parts, lease, error, before="ended")
            return False
        lacking = await _open_items(parts, lease.id)
        tries = lease.row["collections"] + 1
        if lacking and batch.results and tries < parts.options.collections:
            wait = parts.now + min(parts.options.retry_after, parts.options.poll)
            reason = f"{lacking} items have no result yet; the results are read again"
            await lease.change({"collections": tries, "not_before": wait, "reason": reason}, before="ended")
            return False
        if lacking:
            await _give_up(parts, lease, lacking, batch.unanswered)
    await close_collection(parts, lease, job)
    parts.crash("collected")
    return True


async def _open_items(parts: Parts, batch_id: str) -> int:
    table = batch_items.c
    query = sa.select(sa.func.count()).select_from(batch_items)
    query = query.where(table.batch_id == batch_id, table.state == "prepared")
    return await parts.database.run(lambda connection: connection.execute(query).scalar_one())


async def _give_up(parts: Parts, lease: BatchLease, lacking: int, outcome: ItemOutcome) -> None:
    message = "The batch has ended, and its results say nothing of this item."
    notes = {**lease.row["notes"], "without_result": lacking}
    given_up = _all_open(parts, lease.id, outcome, message, "no_result")
    await lease.within(given_up, {"notes": notes}, before="ended")


async def _read_results(parts: Parts, lease: BatchLease, job: Job, provider: Provider, batch: ProviderBatch) -> None:
    """Store what the results say."""
    kind = parts.kind(job.kind)
    await parts.gateway.prices_ready()
    accounts = Accounts(parts, lease.row, kind.operation, provider.traits)
    reading = _Reading(parts, lease, kind, accounts, ItemSpans(parts, lease, job))
    rows: list[ResultRow] = []
    async for row in provider.wire.rows(provider.place, batch):
        rows.append(row)
        if len(rows) >= parts.options.items_per_transaction:
            await reading.take(rows)
            rows = []
    await reading.take(rows)
    await lease.change({"notes": {**lease.row["notes"], **reading.notes()}}, before="ended")


class _Reading:
    """One pass over the results of a batch."""

    def __init__(self, parts: Parts, lease: BatchLease, kind: BatchKind, accounts: Accounts, spans: ItemSpans) -> None:
        self._parts = parts
        self._lease = lease
        self._kind = kind
        self._accounts = accounts
        self._spans = spans
        self._seen: set[str] = set()
        self._refused: dict[str, list[str]] = {"unknown": [], "repeated": [], "unreadable": []}
        self._counts = dict.fromkeys(self._refused, 0)

    def notes(self) -> JsonObject:
        """Return what was refused in this pass: how many rows, and the first of them."""
        return {name: {"rows": self._counts[name], "first": first} for name, first in self._refused.items() if first}

    async def take(self, rows: Sequence[ResultRow]) -> None:
        """Store what a number of rows say."""
        new: dict[str, ResultRow] = {}
        for row in rows:
            if row.wire_id is None:
                self._refuse("unreadable", row.error or "")
            elif row.wire_id in self._seen:
                self._refuse("repeated", row.wire_id)
            else:
                self._seen.add(row.wire_id)
                new[row.wire_id] = row
        known = await _known(self._parts, self._lease, self._kind, list(new))
        for name in new.keys() - known.keys():
            self._refuse("unknown", name)
        open_items = {name: item for name, item in known.items() if item is not None}
        changes, calls, paid = await asyncio.to_thread(self._values, open_items, new)
        if changes:
            await store(self._lease, changes, paid)
            self._parts.crash("collecting")
            if self._spans.is_on:
                await asyncio.to_thread(self._spans.show, open_items, dict(changes), calls)

    def _values(
        self, items: Mapping[str, KnownItem], rows: Mapping[str, ResultRow]
    ) -> tuple[list[tuple[str, JsonObject]], dict[str, ModelCall], list[Row]]:
        changes = [
            (item.id, values_of(self._parts, self._kind, item, rows[name], route="batch"))
            for name, item in items.items()
        ]
        made = ((name, self._accounts.call(item, rows[name])) for name, item in items.items())
        calls = {name: call for name, call in made if call is not None}
        return changes, calls, [ledger_row(call) for call in calls.values()]

    def _refuse(self, why: str, what: str) -> None:
        self._counts[why] += 1
        if len(self._refused[why]) < _SHOWN:
            self._refused[why].append(what[:200])


async def store(lease: BatchLease, changes: Sequence[tuple[str, JsonObject]], calls: Sequence[Row] = ()) -> None:
    """Write what became of items, and the calls that they were, while nobody else has their batch."""

    def write(connection: sa.Connection) -> None:
        update_rows(connection, batch_items, changes)
        insert_rows(connection, model_calls, calls)

    await lease.within(write, {})


async def _known(parts: Parts, lease: BatchLease, kind: BatchKind, names: Sequence[str]) -> dict[str, KnownItem | None]:
    """Return the batch's items by the ids in its rows; None for one that has its result already."""
    if not names:
        return {}
    table, model = batch_items.c, lease.row["model"]
    query = sa.select(
        table.wire_id,
        table.id,
        table.custom_id,
        table.state,
        table.spent_usd,
        table["metadata"],
        _schema(kind),
        # Compared here: as a condition it would have a database read the whole batch for each slice of its results.
        table.batch_id,
    )

    def read(connection: sa.Connection) -> Sequence[Any]:
        these = is_one_of(connection.dialect.name, table.wire_id)
        return connection.execute(query.where(these), {"ids": list(names)}).all()

    return {
        row.wire_id: None
        if row.state != "prepared"
        else KnownItem(
            row.id,
            row.custom_id,
            model,
            bool(row.has_schema) if kind.output is not None else row.has_schema is not None,
            row.spent_usd,
            row.metadata,
            None if kind.output is not None else row.has_schema,
        )
        for row in await parts.database.run(read)
        if row.batch_id == lease.id
    }


async def close_collection(parts: Parts, lease: BatchLease, job: Job) -> None:
    """Count what came, put what goes again into a batch of its own, and note that all is collected."""
    route: Route = "online" if job.online_due else "batch"
    new_id = parts.clock.new_id("batch")
    at = parts.clock.now()
    table = batch_items.c
    mine = table.batch_id == lease.id
    summed = (
        sa.select(
            table.outcome,
            sa.func.count(),
            sa.func.sum(table.cost_usd),
            sa.func.sum(table.interactive_usd),
            sa.func.sum(sa.case((sa.and_(table.usage.is_not(None), table.cost_usd.is_(None)), 1), else_=0)),
            sa.func.max(table.result["simulated"].as_string()),
        )
        .where(mine)
        .group_by(table.outcome)
    )

    def write(connection: sa.Connection) -> JsonObject:
        sums = connection.execute(summed).all()
        figures = {
            "counts": {row[0]: row[1] for row in sums},
            "cost_usd": _total(row[2] for row in sums),
            "interactive_usd": _total(row[3] for row in sums),
            "unpriced": sum(row[4] for row in sums),
            "simulated": any(row[5] is not None for row in sums),
        }
        connection.execute(sa.update(provider_batches).where(provider_batches.c.id == lease.id).values(**figures))
        _next_round(connection)
        return figures

    def _next_round(connection: sa.Connection) -> None:
        again = _goes_again(parts, lease, job, route)
        if again is None:
            return
        count, size = connection.execute(sa.select(sa.func.count(), sa.func.sum(table.size)).where(mine, again)).one()
        if not count:
            return
        row = lease.row
        wait = parts.options.retry_after if row["counts"] is not None and route == "batch" else 0.0
        add_batch(
            connection,
            {
                "id": new_id,
                "job_id": job.id,
                "round": row["round"] + 1,
                "route": route,
                "provider": row["provider"],
                "model": row["model"],
                "items": count,
                "bytes": size,
                "not_before": parts.now + min(parts.options.longest_wait, wait * 2.0 ** (row["round"] - 1)),
                "reason": f"sent again after batch {row['number']}",
            },
        )
        connection.execute(sa.update(batch_items).where(mine, again).values(**sent_again(new_id)))

    values = {"state": "collected", "collected_at": at, "not_before": 0.0, "needs_person": False}
    lease.row |= await lease.within(write, values, before="ended")


def _goes_again(parts: Parts, lease: BatchLease, job: Job, route: Route) -> sa.ColumnElement[bool] | None:
    """Return which items of a batch go into another; None where none does."""
    if job.cancelled:
        return None
    table = batch_items.c
    if route == "online":
        if lease.row["route"] == "online":
            return None
        return table.outcome.in_((*AGAIN, "canceled"))
    if job.late:
        return None
    return sa.and_(table.outcome.in_(AGAIN), table.round < parts.options.max_rounds)


def _total(values: Any) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) if known else None
