"""Preparing a job: its requests become items in batches that no provider refuses for their size.

Requests are read as they come and written in slices, so that a hundred thousand never stand in memory. Until the last
one is written the job is `preparing` and nothing of it leaves; a process that dies there leaves a job that is prepared
anew. The transaction that opens the job also seals it: the same key with the same requests is the same job, with others
it is a conflict.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.batches.bodies import CORRECTION_BYTES, prepared_call, shared_prefix
from guidance_agent.core.batches.states import BatchHandle, BatchKind, Parts
from guidance_agent.core.bulk import insert_or_change, insert_rows
from guidance_agent.core.schema import batch_items, batch_jobs, provider_batches
from guidance_agent.core.stored_json import stored_json
from guidance_agent.errors import BatchConflictError, BatchRequestError
from guidance_agent.llm.batch_request import BatchRequest, model_request, request_to_json
from guidance_agent.llm.messages import ModelRequest
from guidance_agent.llm.transports.batches.base import BatchWire

__all__ = ["JobPlan", "Requests", "item_id", "prepare", "wire_id"]

Requests = Iterable[BatchRequest] | AsyncIterable[BatchRequest]

_AT_ONCE = 16
_MOST_PRIMES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """What a job is, apart from its requests."""

    key: str
    kind: str
    model: str | None
    deadline: datetime | None
    online_allowed: bool
    metadata: Mapping[str, str]
    traceparent: str | None


def item_id(job_key: str, custom_id: str) -> str:
    """Return the id of an item, which follows from its job and its own id: 40 characters that every provider takes."""
    return hashlib.sha256(f"{job_key}\0{custom_id}".encode("utf-8", "surrogatepass")).hexdigest()[:40]


def wire_id(item: str, number: int) -> str:
    """Return the custom id by which a provider knows an item in its round."""
    return f"{item}-{number}"


@dataclass(slots=True)
class _Batch:
    row: dict[str, Any]
    written: bool = False


@dataclass(slots=True)
class _Group:
    """The batches of one model of one provider, while they fill."""

    wire: BatchWire
    provider: str
    model: str
    batches: list[_Batch] = field(default_factory=list)
    prime: _Batch | None = None
    prefixes: set[str] = field(default_factory=set)

    @property
    def items(self) -> int:
        return sum(int(batch.row["items"]) for batch in [*self.batches, *([self.prime] if self.prime else [])])


async def prepare(parts: Parts, requests: Requests, plan: JobPlan) -> BatchHandle:
    """Write a job with its items and batches, or find the one that was written before.

    Raises:
        BatchRequestError: a request cannot go into a batch; nothing of the job stays.
        BatchConflictError: the key stands for other requests, or another process prepares the job right now.
        ConfigurationError: a model cannot be called as things are set up.
    """
    token = parts.clock.new_id("lease")
    if await _begin(parts, plan, token):
        preparation = _Preparation(parts, plan, token)
        try:
            await preparation.write(requests)
        except BaseException:
            await _forget(parts, plan.key, token)
            raise
        parts.crash("prepared")
    else:
        await _compare(parts, requests, plan)
    return await _handle(parts, plan.key)


async def _begin(parts: Parts, plan: JobPlan, token: str) -> bool:
    """Begin to prepare a job; False where it is prepared already."""
    until = parts.now + parts.options.lease

    row = {
        "id": plan.key,
        "kind": plan.kind,
        "state": "preparing",
        "deadline": plan.deadline,
        "online_allowed": plan.online_allowed,
        "metadata": dict(plan.metadata),
        "traceparent": plan.traceparent,
        "owner": token,
        "lease_until": until,
    }

    def begin(connection: sa.Connection) -> bool:
        jobs = batch_jobs.c
        # Of two that begin at once, one waits here for the other, and then sees its job.
        insert = insert_or_change(connection.dialect.name, batch_jobs).on_conflict_do_nothing(index_elements=["id"])
        insert = insert.values(**row, created_at=parts.clock.now())
        if connection.execute(insert.returning(jobs.id)).first() is not None:
            return True
        query = sa.select(jobs.state, jobs.lease_until).where(jobs.id == plan.key).with_for_update()
        before = connection.execute(query).first()
        if before is not None and before.state != "preparing":
            return False
        # None: whoever began to prepare it has given it up in this moment.
        if before is None or before.lease_until >= parts.now:
            raise BatchConflictError(
                f"The job {plan.key!r} is being prepared by another process. Submit it again when that has ended."
            )
        # Nothing of a job that was not sealed has left: whoever prepared it is gone.
        _delete_parts(connection, plan.key)
        change = sa.update(batch_jobs).where(jobs.id == plan.key)
        connection.execute(change.values(owner=token, lease_until=until, created_at=parts.clock.now()))
        return True

    return await parts.database.transaction(begin)


def _delete_parts(connection: sa.Connection, key: str) -> None:
    connection.execute(sa.delete(batch_items).where(batch_items.c.job_id == key))
    connection.execute(sa.delete(provider_batches).where(provider_batches.c.job_id == key))


async def _forget(parts: Parts, key: str, token: str) -> None:
    mine = sa.and_(batch_jobs.c.id == key, batch_jobs.c.owner == token, batch_jobs.c.state == "preparing")

    def forget(connection: sa.Connection) -> None:
        if connection.execute(sa.select(batch_jobs.c.id).where(mine).with_for_update()).first() is not None:
            _delete_parts(connection, key)
            connection.execute(sa.delete(batch_jobs).where(mine))

    await parts.database.transaction(forget)


async def _compare(parts: Parts, requests: Requests, plan: JobPlan) -> None:
    """Raise `BatchConflictError` unless the requests are those of the job that has their key."""
    query = sa.select(batch_jobs.c.fingerprint).where(batch_jobs.c.id == plan.key)
    before = await parts.database.run(lambda connection: connection.execute(query).scalar_one())
    digest = _Digest()
    async for custom_id, request, _ in _read(requests, plan, parts.kind(plan.kind)):
        digest.add(custom_id, request)
    if digest.hexdigest() != before:
        raise BatchConflictError(
            f"The job {plan.key!r} is in the records with other requests. Give these a key of their own."
        )


async def _handle(parts: Parts, key: str) -> BatchHandle:
    def read(connection: sa.Connection) -> BatchHandle:
        items = connection.execute(sa.select(batch_jobs.c["items"]).where(batch_jobs.c.id == key)).scalar_one()
        count = sa.select(sa.func.count()).select_from(provider_batches).where(provider_batches.c.job_id == key)
        return BatchHandle(job_key=key, items=items, batches=connection.execute(count).scalar_one())

    return await parts.database.run(read)


class _Digest:
    """What makes two jobs the same: ids and requests, in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, custom_id: str, request: Mapping[str, Any]) -> None:
        text = f"{custom_id}\0{stored_json(request)}\n"
        self._hash.update(text.encode("utf-8", "surrogatepass"))

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _typed(request: BatchRequest, custom_id: str, kind: BatchKind) -> BatchRequest:
    """Return the request with its kind's type of answer, which it need not name and must not contradict."""
    if request.response_schema is None and kind.output is not None:
        return replace(request, response_schema=kind.output)
    if isinstance(request.response_schema, type) and request.response_schema is not kind.output:
        raise BatchRequestError(
            f"The request {custom_id!r} asks for a {request.response_schema.__name__}, which is not the output of "
            f"its kind {kind.name!r}: no other process could read it. Make it that, or pass a JSON Schema."
        )
    return request


async def _read(
    requests: Requests, plan: JobPlan, kind: BatchKind
) -> AsyncIterator[tuple[str, dict[str, Any], tuple[ModelRequest, Mapping[str, str]]]]:
    """Yield id, record and call of each request."""
    seen: set[str] = set()
    number = 0
    async for request in _each(requests):
        number += 1
        custom_id = str(number) if request.custom_id is None else request.custom_id
        if custom_id in seen:
            raise BatchRequestError(f"The id {custom_id!r} stands twice in the job. Give every request one of its own.")
        seen.add(custom_id)
        call = model_request(_typed(request, custom_id, kind), custom_id, model=plan.model, operation=kind.operation)
        record = request_to_json(call)
        if request.timeout is not None:
            record["timeout"] = request.timeout
        yield custom_id, record, (call, request.metadata)


async def _each(requests: Requests) -> AsyncIterator[BatchRequest]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
        return
    for number, request in enumerate(requests):
        if number % _AT_ONCE == 0:
            # What else runs on this loop has its turn.
            await asyncio.sleep(0)
        yield request


class _Preparation:
    """One job while its items are written."""

    def __init__(self, parts: Parts, plan: JobPlan, token: str) -> None:
        self._parts = parts
        self._plan = plan
        self._token = token
        self._groups: dict[tuple[str, str], _Group] = {}
        self._batches = 0
        self._items = 0
        self._rows: list[dict[str, Any]] = []

    async def write(self, requests: Requests) -> None:
        digest = _Digest()
        async for custom_id, record, (call, metadata) in _read(requests, self._plan, self._parts.kind(self._plan.kind)):
            digest.add(custom_id, record)
            await self._add(custom_id, record, call, metadata)
            if len(self._rows) >= self._parts.options.items_per_transaction:
                await self._flush()
        await self._flush()
        await self._seal(digest.hexdigest())

    async def _add(
        self, custom_id: str, record: dict[str, Any], request: ModelRequest, metadata: Mapping[str, str]
    ) -> None:
        call = await prepared_call(self._parts.gateway, request)
        key = (call.endpoint.provider, call.request.model)
        group = self._groups.get(key)
        if group is None:
            wire = await self._parts.wires.of(call.endpoint)
            group = self._groups[key] = _Group(wire, *key)
        item = item_id(self._plan.key, custom_id)
        row_id = wire_id(item, 1)
        size = len(group.wire.row(row_id, call)) + group.wire.limits.overhead
        if request.response_schema is not None:
            size += CORRECTION_BYTES
        batch = self._batch_for(group, shared_prefix(call), size, custom_id)
        batch.row["items"] += 1
        batch.row["bytes"] += size
        self._items += 1
        self._rows.append(
            {
                "id": item,
                "job_id": self._plan.key,
                "batch_id": batch.row["id"],
                "position": self._items,
                "custom_id": custom_id,
                "wire_id": row_id,
                "state": "prepared",
                "request": record,
                "size": size,
                "metadata": dict(metadata),
            }
        )

    def _batch_for(self, group: _Group, prefix: str | None, size: int, custom_id: str) -> _Batch:
        limits, options = group.wire.limits, self._parts.options
        most_items = min(limits.items, options.most_items or limits.items)
        most_bytes = min(limits.bytes, options.most_bytes or limits.bytes)
        if size > most_bytes:
            raise BatchRequestError(
                f"The request {custom_id!r} has {size} bytes, and a batch of {group.provider} {most_bytes}. Shorten it."
            )
        if group.wire.primes and prefix is not None and prefix not in group.prefixes:
            room = group.prime is None or group.prime.row["bytes"] + size <= most_bytes
            if room and len(group.prefixes) < min(_MOST_PRIMES, most_items):
                group.prefixes.add(prefix)
                group.prime = group.prime or self._new_batch(group)
                return group.prime
        last = group.batches[-1] if group.batches else None
        if last is None or last.row["items"] >= most_items or last.row["bytes"] + size > most_bytes:
            last = self._new_batch(group)
            group.batches.append(last)
        return last

    def _new_batch(self, group: _Group) -> _Batch:
        self._batches += 1
        return _Batch(
            {
                "id": self._parts.clock.new_id("batch"),
                "job_id": self._plan.key,
                "number": self._batches,
                "provider": group.provider,
                "model": group.model,
                "state": "prepared",
                "items": 0,
                "bytes": 0,
            }
        )

    def _all_batches(self) -> list[_Batch]:
        return [b for g in self._groups.values() for b in [*([g.prime] if g.prime else []), *g.batches]]

    async def _flush(self) -> None:
        rows, self._rows = self._rows, []
        new = [batch for batch in self._all_batches() if not batch.written]
        if not rows:
            return

        def write(connection: sa.Connection) -> None:
            self._still_mine(connection, {})
            insert_rows(connection, provider_batches, [batch.row for batch in new])
            insert_rows(connection, batch_items, rows)

        await self._parts.database.transaction(write)
        for batch in new:
            batch.written = True
        self._parts.crash("preparing")

    async def _seal(self, fingerprint: str) -> None:
        groups = list(self._groups.values())
        opened = {
            "state": "open" if self._items else "done",
            "fingerprint": fingerprint,
            "items": self._items,
            "ended_at": None if self._items else self._parts.clock.now(),
            "owner": None,
        }

        def write(connection: sa.Connection) -> None:
            self._still_mine(connection, opened)
            for group in groups:
                self._seal_group(connection, group)

        await self._parts.database.transaction(write)

    def _seal_group(self, connection: sa.Connection, group: _Group) -> None:
        prime = group.prime
        if prime is not None and group.items < self._parts.options.prime_from and group.batches:
            self._merge(connection, prime, group)
        primes = prime is not None and bool(prime.row["items"]) and group.items >= self._parts.options.prime_from
        for batch in [*([prime] if prime else []), *group.batches]:
            values = {"items": batch.row["items"], "bytes": batch.row["bytes"]}
            if batch is prime:
                values["primes"] = primes and bool(group.batches)
            elif primes and prime is not None:
                values["after_batch_id"] = prime.row["id"]
            mine = provider_batches.c.id == batch.row["id"]
            if batch.row["items"]:
                connection.execute(sa.update(provider_batches).where(mine).values(**values))
            else:
                connection.execute(sa.delete(provider_batches).where(mine))

    def _merge(self, connection: sa.Connection, prime: _Batch, group: _Group) -> None:
        """Put the items that would have primed few others into the batch of these, where they have room."""
        into = group.batches[0]
        limits, options = group.wire.limits, self._parts.options
        if into.row["items"] + prime.row["items"] > min(limits.items, options.most_items or limits.items):
            return
        if into.row["bytes"] + prime.row["bytes"] > min(limits.bytes, options.most_bytes or limits.bytes):
            return
        move = sa.update(batch_items).where(batch_items.c.batch_id == prime.row["id"])
        connection.execute(move.values(batch_id=into.row["id"]))
        for name in ("items", "bytes"):
            into.row[name] += prime.row[name]
            prime.row[name] = 0

    def _still_mine(self, connection: sa.Connection, values: Mapping[str, Any]) -> None:
        mine = sa.update(batch_jobs).where(
            batch_jobs.c.id == self._plan.key, batch_jobs.c.owner == self._token, batch_jobs.c.state == "preparing"
        )
        until = self._parts.now + self._parts.options.lease
        if not connection.execute(mine.values(lease_until=until, **values)).rowcount:
            raise BatchConflictError(
                f"Another process has begun to prepare the job {self._plan.key!r}. Submit it again when that has ended."
            )
