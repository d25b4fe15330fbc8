"""Which subject goes into which job: each at most once for each kind, whoever submits, and whenever a process dies.

A claim is committed before its job is made. A process that dies in between leaves claims without a job, and the next
one makes it; two that do so at once make the same, because its key stands with the claims. What a subject's result was
is for the work to know: it lets a claim go (`let_go`) where the subject is to be sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.batch_processing import BatchProcessor, BatchRequest
from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database
from guidance_agent.core.schema import batch_claims, batch_jobs
from guidance_agent.errors import BatchConflictError

__all__ = ["MOST_SUBJECTS", "BatchClaims", "RequestsFor"]

MOST_SUBJECTS = 5_000
"""The most subjects of one job."""

RequestsFor = Callable[[Sequence[str]], Awaitable[Iterable[BatchRequest]]]
"""Makes the requests of subjects, each with its subject's id as custom id. It may leave some out, and keeps account of
those itself: their claims are let go, and they are claimed again while they are ready."""

_logger = logging.getLogger("guidance_agent.batches")


class BatchClaims:
    """Puts subjects into jobs of batches."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def submit_ready(
        self, batches: BatchProcessor, kind: str, ready: sa.Select[Any], requests: RequestsFor, *, model: str
    ) -> int:
        """Submit what is ready and in no job of this kind yet; returns how many items that were.

        Args:
            batches: Knows the kind.
            kind: Name of the kind.
            ready: Selects one column: the ids of the subjects that are ready. Their order promises nothing: where more
                are ready than one job takes, any may go first, and `requests` gets those of a job sorted by id.
            requests: Makes their requests.
            model: For requests that name none.
        """
        submitted = 0
        for unmade in await self._without_job(kind):
            submitted += await self._submit(batches, kind, unmade, requests, model)
        while (key := await self._claim(kind, ready)) is not None:
            items = await self._submit(batches, kind, key, requests, model)
            if not items:
                break
            submitted += items
        return submitted

    def let_go(self, connection: sa.Connection, kind: str, subject_ids: Sequence[str]) -> None:
        """Have subjects claimed again when they are ready; inside the transaction that says why."""
        claim = batch_claims.c
        for first in range(0, len(subject_ids), 500):
            some = list(subject_ids[first : first + 500])
            connection.execute(sa.delete(batch_claims).where(claim.kind == kind, claim.subject_id.in_(some)))

    async def _claim(self, kind: str, ready: sa.Select[Any]) -> str | None:
        """Claim what is ready for a new job, and return its key; None where nothing was left to claim."""
        key, now, claim = self._clock.new_id("job"), self._clock.now(), batch_claims.c
        wanted = ready.subquery()
        (subject,) = wanted.c
        taken = sa.exists().where(claim.kind == kind, claim.subject_id == subject)
        query = sa.select(subject).where(~taken).limit(MOST_SUBJECTS)

        def write(connection: sa.Connection) -> str | None:
            found = connection.execute(query).scalars().all()
            if not found:
                return None
            # Another process that claims the same at this moment is waited for, and keeps what it has.
            insert = insert_or_change(connection.dialect.name, batch_claims).on_conflict_do_nothing()
            rows = [{"kind": kind, "subject_id": each, "job_key": key, "claimed_at": now} for each in found]
            connection.execute(insert, rows)
            mine = sa.select(claim.subject_id).where(claim.job_key == key).limit(1)
            return None if connection.execute(mine).first() is None else key

        return await self._database.transaction(write)

    async def _without_job(self, kind: str) -> list[str]:
        """Return the keys of claims whose job was never sealed."""
        claim, job = batch_claims.c, batch_jobs.c
        sealed = sa.exists().where(job.id == claim.job_key, job.state != "preparing")
        query = sa.select(claim.job_key).where(claim.kind == kind, ~sealed).distinct()
        return await self._database.run(lambda connection: list(connection.execute(query).scalars()))

    async def _submit(self, batches: BatchProcessor, kind: str, key: str, requests: RequestsFor, model: str) -> int:
        claim = batch_claims.c
        query = sa.select(claim.subject_id).where(claim.job_key == key).order_by(claim.subject_id)
        subjects = await self._database.run(lambda connection: list(connection.execute(query).scalars()))
        made = list(await requests(subjects))
        left_out = sorted(set(subjects) - {str(request.custom_id) for request in made})
        if left_out:
            # Before the job is made: nobody looks for claims without an item once it is.
            await self._database.transaction(lambda connection: self.let_go(connection, kind, left_out))
        if not made:
            return 0
        try:
            handle = await batches.submit(made, job_key=key, kind=kind, model=model)
        except BatchConflictError as error:
            # Whoever else submits this key has the same subjects, and the job is theirs.
            _logger.info("job %s is another process's: %s", key, error)
            return 0
        return handle.items
