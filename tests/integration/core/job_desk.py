"""Work in two stages that tests of jobs let run: each subject is asked about, asked about again, and then told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from guidance_agent.core.batch_claims import BatchClaims
from guidance_agent.core.batch_processing import BatchKind, BatchProcessor, BatchRequest, BatchResult
from guidance_agent.core.batch_work import WorkStanding
from guidance_agent.core.bulk import insert_or_change
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from tests.integration.core.batch_desk import MODELS, QUESTION

STAGES = ("first", "second")

SUBJECTS = sa.Table(
    "subjects_for_tests",
    sa.MetaData(),
    sa.Column("work", sa.String(32), primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("applied", sa.Integer, nullable=False, default=0),
)


class TwoStages:
    """A `BatchWork` over named subjects."""

    def __init__(
        self, database: Database, *, name: str = "two", wire: str = "openai", subjects: Sequence[str] = ()
    ) -> None:
        self._database = database
        self._name = name
        self._model = MODELS[wire]
        self._subjects = subjects
        self._claims = BatchClaims(database, SystemClock())
        self.kinds = [
            BatchKind(name=f"{name}-{stage}", apply=self._carrying(stage, after))
            for stage, after in zip(STAGES, ("second", "told"), strict=True)
        ]
        self.person: list[str] = []
        self.fault: Exception | None = None

    @property
    def name(self) -> str:
        return self._name

    def _carrying(self, stage: str, after: str) -> Any:
        row = SUBJECTS.c

        def apply(connection: sa.Connection, result: BatchResult) -> None:
            change = sa.update(SUBJECTS).where(row.work == self._name, row.id == result.custom_id, row.stage == stage)
            reached = after if result.success else "lost"
            connection.execute(change.values(stage=reached, applied=row.applied + 1))

        return apply

    async def open_new(self, *, limit: int) -> int:
        row = SUBJECTS.c

        def write(connection: sa.Connection) -> int:
            known = set(connection.execute(sa.select(row.id).where(row.work == self._name)).scalars())
            new = [each for each in self._subjects if each not in known][:limit]
            insert = insert_or_change(connection.dialect.name, SUBJECTS).on_conflict_do_nothing()
            for each in new:
                connection.execute(insert.values(work=self._name, id=each, stage="first", applied=0))
            return len(new)

        return await self._database.transaction(write)

    async def advance(self, batches: BatchProcessor) -> int:
        if self.fault is not None:
            raise self.fault
        moved = 0
        for stage, kind in zip(STAGES, self.kinds, strict=True):
            row = SUBJECTS.c
            ready = sa.select(row.id).where(row.work == self._name, row.stage == stage).order_by(row.id)
            moved += await self._claims.submit_ready(batches, kind.name, ready, self._requests, model=self._model)
        return moved

    async def standing(self) -> WorkStanding:
        row = SUBJECTS.c
        query = sa.select(row.stage, sa.func.count()).where(row.work == self._name).group_by(row.stage)
        found = await self._database.run(
            lambda connection: {stage: count for stage, count in connection.execute(query)}
        )
        waiting = {stage: count for stage, count in found.items() if stage in STAGES}
        ended = {stage: count for stage, count in found.items() if stage not in STAGES}
        return WorkStanding(waiting=waiting, ended=ended, needs_person=self.person)

    async def _requests(self, subjects: Sequence[str]) -> Iterable[BatchRequest]:
        return [BatchRequest(custom_id=each, user_message=f"{QUESTION} {each}", max_tokens=20) for each in subjects]


async def make_subjects(database: Database) -> None:
    await database.transaction(lambda connection: SUBJECTS.create(connection, checkfirst=True))


async def told(database: Database) -> list[tuple[str, str, str, int]]:
    """Every subject, how far it came, and how many results were carried over for it."""
    query = sa.select(SUBJECTS).order_by(SUBJECTS.c.work, SUBJECTS.c.id)
    return await database.run(lambda connection: [tuple(row) for row in connection.execute(query)])
