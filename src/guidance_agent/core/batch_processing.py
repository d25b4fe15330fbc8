"""Batches at the providers' batch price, as durable work: a job is paid for once, and each of its items applied once.

    async with BatchProcessor(database, gateway, kinds=[kind]) as processor:
        handle = await processor.submit(requests, job_key="reflection-2026-11-21", kind="reflect", model=model)
        ...
        await processor.resume()            # later, in whichever process: whatever can be done now
        async for result in processor.results(handle.job_key): ...

Nothing has to stay up meanwhile. Each call of `resume` takes every batch as far as it goes at this moment; two that run
at the same time share the batches. `specs/batch.md` draws the states.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

import sqlalchemy as sa

from guidance_agent.core.batches.again import resubmit
from guidance_agent.core.batches.applying import apply_results, results_of
from guidance_agent.core.batches.collecting import collect, look
from guidance_agent.core.batches.leases import BatchLease, LeaseGone, taken
from guidance_agent.core.batches.online import answer_online, cancel_prepared
from guidance_agent.core.batches.orphans import settle_orphan
from guidance_agent.core.batches.preparing import JobPlan, Requests, prepare
from guidance_agent.core.batches.states import (
    CRASH_POINTS,
    OPEN_STATES,
    TEXT,
    BatchHandle,
    BatchKind,
    BatchOptions,
    BatchStatus,
    CrashPoint,
    Parts,
    ProviderBatchStatus,
    no_crash,
)
from guidance_agent.core.batches.statuses import (
    due_batches,
    job_keys,
    next_moment,
    settle_jobs,
    status_of,
)
from guidance_agent.core.batches.submitting import Job, job_of, submit
from guidance_agent.core.batches.sync import SyncBatchProcessor
from guidance_agent.core.batches.traces import preparing, step_span, trace_done, trace_step, trace_unanswered
from guidance_agent.core.clock import Clock, SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.schema import batch_items, batch_jobs, provider_batches
from guidance_agent.errors import BatchRequestError, BatchTimeoutError, UnknownBatchError
from guidance_agent.llm.batch_request import BatchRequest, BatchResult
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.transports.batches.registry import BatchWires
from guidance_agent.tracing.tracer import NO_TRACING, Tracing

__all__ = [
    "CRASH_POINTS",
    "BatchHandle",
    "BatchKind",
    "BatchOptions",
    "BatchProcessor",
    "BatchRequest",
    "BatchResult",
    "BatchStatus",
    "ProviderBatchStatus",
    "SyncBatchProcessor",
]

_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_PAGE = 500


class BatchProcessor:
    """Jobs of many requests at providers' batch APIs.

    Args:
        database: The records; open.
        gateway: The way to models: keys, addresses, prices, and the bodies of requests.
        kinds: What items are for. A process can only go on with jobs whose kind it knows.
        options: Times and sizes.
        clock: Wall clock and ids; None is the real one.
        tracing: Makes the spans of jobs, batches and items.
        backend: Who answers the jobs that are submitted here: the providers' batch APIs, or `concurrent` calls right
            away, at the interactive price and as durable. A job keeps its own.
        crash: Told of each crash point that is passed; for tests.
    """

    def __init__(
        self,
        database: Database,
        gateway: ModelGateway,
        *,
        kinds: Sequence[BatchKind] = (),
        options: BatchOptions | None = None,
        clock: Clock | None = None,
        tracing: Tracing = NO_TRACING,
        backend: Literal["provider", "concurrent"] = "provider",
        crash: CrashPoint = no_crash,
    ) -> None:
        self._now = backend == "concurrent"
        self._kinds = {kind.name: kind for kind in (TEXT, *kinds)}
        self._wires = BatchWires(gateway.settings)
        self._parts = Parts(
            database=database,
            gateway=gateway,
            wires=self._wires,
            kind=self._kind,
            options=options or BatchOptions(),
            clock=clock or SystemClock(),
            crash=crash,
            tracing=tracing,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections to providers; jobs go on with the next `resume`, here or elsewhere."""
        await self._wires.aclose()

    async def release(self) -> None:
        """Close every connection, the gateway's too; whatever is called next opens new ones, on its own loop."""
        await self._wires.aclose()
        await self._parts.gateway.release()

    @property
    def sync(self) -> SyncBatchProcessor:
        """The same for code without an event loop: a processor with a loop of its own, for one `with` block."""
        return SyncBatchProcessor(self)

    async def submit(
        self,
        requests: Requests,
        *,
        job_key: str | None = None,
        kind: str = TEXT.name,
        model: str | None = None,
        deadline: datetime | None = None,
        online_after_deadline: bool = False,
        metadata: Mapping[str, str] | None = None,
        traceparent: str | None = None,
    ) -> BatchHandle:
        """Prepare a job and submit what can be submitted now. The same key with the same requests is the same job.

        Args:
            requests: What to ask, read as it comes.
            job_key: 1 to 64 letters, digits and `_.:-`; None makes one. Give one where the caller may be run again.
            kind: What the items are for; one of the processor's kinds.
            model: For requests that name none.
            deadline: After it nothing is sent in a further round.
            online_after_deadline: Whether what has no answer by then is cancelled at the provider, and asked online at
                the interactive price.
            metadata: Kept with the job.
            traceparent: The trace that the job belongs to.

        Raises:
            BatchRequestError: a request cannot go into a batch; nothing of the job is kept.
            BatchConflictError: the key stands for other requests, or another process prepares the job right now.
            ConfigurationError: a model cannot be called as things are set up, or has no batch API.
        """
        self._kind(kind)
        key = job_key or self._parts.clock.new_id("job")
        if not _KEY.fullmatch(key):
            raise BatchRequestError(f"The job key {key!r} is none: use 1 to 64 letters, digits, '_', '.', ':' and '-'.")
        if deadline is not None and deadline.tzinfo is None:
            raise BatchRequestError(f"The deadline {deadline!r} has no time zone. Give it one.")
        plan = JobPlan(
            key=key,
            kind=kind,
            model=model,
            deadline=self._parts.clock.now() if self._now else deadline,
            online_allowed=online_after_deadline or self._now,
            metadata=metadata or {},
            traceparent=traceparent,
        )
        with preparing(self._parts.tracing, plan) as traced:
            handle = await prepare(self._parts, requests, traced.plan)
            await traced.prepared(self._parts, handle)
        await self.resume(key)
        return handle

    async def resume(self, job_key: str | None = None) -> None:
        """Take every batch, or those of one job, as far as it goes now. Safe at any time, twice, and at once.

        Without a key, jobs of kinds that this processor does not know are left to one that does.

        Raises:
            BatchRequestError: the job is of a kind that this processor does not know.
            UnknownBatchError: there is no such job.
        """
        if job_key is not None:
            self._kind((await self.status(job_key)).kind)
        seen: set[str] = set()
        while found := await due_batches(self._parts, job_key, self._kinds, seen):
            for batch_id in found:
                seen.add(batch_id)
                await self._work_on(batch_id)
        await self._settle()

    async def status(self, job_key: str) -> BatchStatus:
        """Return how a job stands, as far as the records know; `resume` asks the provider.

        Raises:
            UnknownBatchError: there is no such job.
        """
        return await status_of(self._parts, job_key)

    async def list(self, *, limit: int = 100) -> Sequence[BatchStatus]:
        """Return how the newest jobs stand, the newest first."""
        return [await status_of(self._parts, key) for key in await job_keys(self._parts, limit=limit)]

    async def results(self, job_key: str) -> AsyncIterator[BatchResult]:
        """Yield the results that are final so far, in the order of the requests, a page of them in memory.

        Raises:
            UnknownBatchError: there is no such job.
        """
        kind = self._kind((await status_of(self._parts, job_key)).kind)
        after = 0
        item = batch_items.c
        # What is collected but not final is put into another round by the transaction that ends its collection.
        final = sa.or_(item.state == "applied", provider_batches.c.state.in_(("collected", "applied")))
        while True:
            which = sa.and_(
                item.job_id == job_key, item.position > after, item.state.in_(("collected", "applied")), final
            )
            page = await results_of(self._parts, kind, which, _PAGE)
            for _, _, result in page:
                yield result
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    async def wait(self, job_key: str, *, timeout: float | None = None) -> BatchStatus:
        """Work on a job until it has ended, and return how it stands then.

        Args:
            job_key: The job.
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            BatchTimeoutError: it has not ended by then; it can be waited for again.
            UnknownBatchError: there is no such job.
        """
        clock, options = self._parts.clock, self._parts.options
        until = None if timeout is None else clock.monotonic() + timeout
        while True:
            await self.resume(job_key)
            status = await self.status(job_key)
            if status.done:
                return status
            left = options.poll if until is None else until - clock.monotonic()
            if left <= 0:
                raise BatchTimeoutError(
                    f"The job {job_key!r} has not ended within {timeout:g} s. Wait for it again, or look at its status."
                )
            moment = await next_moment(self._parts, job_key)
            pause = options.poll if moment is None else moment - self._parts.now
            await asyncio.sleep(max(0.01, min(left, pause, options.poll)))

    async def cancel(self, job_key: str) -> BatchStatus:
        """Ask for a job to be ended: what has not left stays, what runs is cancelled at the provider.

        What the provider has answered already is collected and paid for.

        Raises:
            UnknownBatchError: there is no such job.
        """
        jobs, batch = batch_jobs.c, provider_batches.c
        change = sa.update(batch_jobs).where(jobs.id == job_key, jobs.cancelled_at.is_(None), jobs.state != "done")
        waits = sa.update(provider_batches).where(batch.job_id == job_key, batch.state != "applied")

        def write(connection: sa.Connection) -> None:
            connection.execute(change.values(cancelled_at=self._parts.clock.now()))
            connection.execute(waits.values(not_before=0.0))

        await self.status(job_key)
        await self._parts.database.transaction(write)
        await self.resume(job_key)
        return await self.status(job_key)

    async def resubmit(self, job_key: str, *, deadline: datetime | None = None) -> int:
        """Send the items of a job once more that ended without an answer; return how many those are.

        These are items that expired, failed for a reason that passes, or were answered in a form that cannot be used.
        The kind's `apply` is called again with what becomes of them now. Other items stay as they are.

        Args:
            job_key: The job.
            deadline: As in `submit`; the one that the job had is over.

        Raises:
            UnknownBatchError: there is no such job.
            BatchRequestError: it was cancelled, or is of a kind that this processor does not know.
        """
        self._kind((await self.status(job_key)).kind)
        count = await resubmit(self._parts, job_key, deadline)
        await self.resume(job_key)
        return count

    async def decide(self, batch_id: str, *, adopt: str | None = None) -> None:
        """Decide by hand about a batch of which it is not known whether the provider has it.

        Args:
            batch_id: The batch, as the job's status names it.
            adopt: The provider's id of the batch that it is; None says that there is none, and has it sent again.

        Raises:
            UnknownBatchError: there is no such batch, or its submission is not unclear.
        """
        async with taken(self._parts, batch_id, ("submitting",), early=True) as lease:
            if lease is None:
                raise UnknownBatchError(
                    f"No batch {batch_id!r} waits for a decision. Look at the status of its job; if another process "
                    "works on it, try again in a minute."
                )
            reason = {"reason": "decided by a person", "needs_person": False, "not_before": 0.0}
            if adopt is None:
                await lease.move("submitting", "prepared", **reason)
            else:
                now = self._parts.clock.now()
                await lease.move("submitting", "submitted", provider_batch_id=adopt, submitted_at=now, **reason)

    def _kind(self, name: str) -> BatchKind:
        kind = self._kinds.get(name)
        if kind is None:
            known = ", ".join(sorted(self._kinds))
            raise BatchRequestError(
                f"The kind {name!r} is not known here. Pass it to the processor, which has {known}."
            )
        return kind

    async def _work_on(self, batch_id: str) -> None:
        """Take one batch through as many states as it can go through now."""
        async with taken(self._parts, batch_id, OPEN_STATES) as lease:
            if lease is None:
                return
            try:
                while await self._step(lease):
                    pass
            except LeaseGone:
                # Another process has it by now, and goes on where the records say.
                return

    async def _settle(self) -> None:
        """Note which jobs have ended."""
        for key, traceparent in await settle_jobs(self._parts):
            if self._parts.tracing.is_on:
                trace_done(self._parts.tracing, await self.status(key), traceparent)

    async def _step(self, lease: BatchLease) -> bool:
        """Take a batch one step further; False where there is nothing more to do now."""
        parts, state = self._parts, lease.row["state"]
        if state == "applied":
            return False
        job = await job_of(parts, lease)
        online = lease.row["route"] == "online" or (job.online_due and state == "prepared")
        cancels = state == "prepared" and job.cancelled
        asks = state in ("prepared", "submitted") and online
        began, lease.failure = parts.clock.now(), None
        moved = await self._do(lease, job, cancels=cancels, asks=asks)
        if lease.row["state"] == "collected" and state != "collected":
            await trace_unanswered(parts, lease, job)
        trace_step(parts.tracing, lease, job, step_span(state, cancels=cancels, online=asks), state, began)
        return moved

    async def _do(self, lease: BatchLease, job: Job, *, cancels: bool, asks: bool) -> bool:
        """Do what a batch's state asks for."""
        parts, state = self._parts, lease.row["state"]
        if cancels:
            await cancel_prepared(parts, lease, job)
            return True
        if asks:
            return await answer_online(parts, lease, job)
        match state:
            case "prepared":
                return await submit(parts, lease, job)
            case "submitting":
                return await settle_orphan(parts, lease)
            case "submitted":
                return await look(parts, lease, job)
            case "ended":
                return await collect(parts, lease, job)
            case _:
                return await apply_results(parts, lease, job)
