"""Subjects and their jobs: each goes into one, whoever submits, and whenever a process dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from guidance_agent.core.batch_claims import BatchClaims
from guidance_agent.core.batch_processing import BatchProcessor, BatchRequest
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.schema import batch_claims
from tests.integration.core.batch_desk import APPLIES, MODELS, QUESTION, applied
from tests.integration.core.batch_fixtures import open_processor, processor, provider

__all__ = ["open_processor", "processor", "provider"]

SUBJECTS = [f"subject-{number:02}" for number in range(12)]
READY: sa.Select[tuple[str]] = sa.select(
    sa.union_all(*(sa.select(sa.literal(each).label("id")) for each in SUBJECTS)).subquery().c.id
)
MODEL = MODELS["openai"]


@pytest.fixture
def claims(database: Database) -> BatchClaims:
    return BatchClaims(database, SystemClock())


async def requests(subjects: Sequence[str]) -> Iterable[BatchRequest]:
    return [BatchRequest(custom_id=each, user_message=QUESTION, max_tokens=20) for each in subjects]


async def finish(processor: BatchProcessor) -> None:
    for status in await processor.list():
        await processor.wait(status.job_key, timeout=20)


async def test_each_subject_goes_into_one_job(
    processor: BatchProcessor, claims: BatchClaims, database: Database
) -> None:
    assert await claims.submit_ready(processor, APPLIES.name, READY, requests, model=MODEL) == 12
    assert await claims.submit_ready(processor, APPLIES.name, READY, requests, model=MODEL) == 0
    await finish(processor)
    assert await claims.submit_ready(processor, APPLIES.name, READY, requests, model=MODEL) == 0
    assert await applied(database) == SUBJECTS


async def test_two_that_submit_at_once_share_the_subjects(
    open_processor: Callable[..., BatchProcessor], claims: BatchClaims, database: Database
) -> None:
    several = [open_processor() for _ in range(3)]
    counts = await asyncio.gather(
        *(claims.submit_ready(each, APPLIES.name, READY, requests, model=MODEL) for each in several)
    )
    await claims.submit_ready(several[0], APPLIES.name, READY, requests, model=MODEL)
    await finish(several[0])
    assert sum(counts) <= 12
    assert await applied(database) == SUBJECTS


async def test_claims_of_a_process_that_died_before_its_job_was_made_become_that_job(
    processor: BatchProcessor, claims: BatchClaims, database: Database
) -> None:
    async def dies(subjects: Sequence[str]) -> Iterable[BatchRequest]:
        raise SystemError("the process ends here")

    with pytest.raises(SystemError):
        await claims.submit_ready(processor, APPLIES.name, READY, dies, model=MODEL)
    (key,) = {row.job_key for row in await rows(database)}
    assert await claims.submit_ready(processor, APPLIES.name, READY, requests, model=MODEL) == 12
    assert [status.job_key for status in await processor.list()] == [key]


async def test_what_is_left_out_is_claimed_again_and_the_rest_is_not(
    processor: BatchProcessor, claims: BatchClaims, database: Database
) -> None:
    async def some(subjects: Sequence[str]) -> Iterable[BatchRequest]:
        return await requests([each for each in subjects if each < "subject-05"])

    assert await claims.submit_ready(processor, APPLIES.name, READY, some, model=MODEL) == 5
    assert [row.subject_id for row in await rows(database)] == SUBJECTS[:5]
    assert await claims.submit_ready(processor, APPLIES.name, READY, requests, model=MODEL) == 7


async def test_what_is_left_out_is_claimed_again_though_the_process_dies_when_its_job_is_made(
    open_processor: Callable[..., BatchProcessor], claims: BatchClaims, database: Database
) -> None:
    def die(point: str) -> None:
        if point == "prepared":
            raise SystemError("the process ends here")

    async def some(subjects: Sequence[str]) -> Iterable[BatchRequest]:
        return await requests(subjects[:5])

    dying, living = open_processor(crash=die), open_processor()
    with pytest.raises(SystemError):
        await claims.submit_ready(dying, APPLIES.name, READY, some, model=MODEL)
    assert await claims.submit_ready(living, APPLIES.name, READY, requests, model=MODEL) == 7
    await finish(living)
    assert await applied(database) == SUBJECTS


async def test_a_subject_that_is_let_go_goes_into_a_job_of_its_own(
    processor: BatchProcessor, claims: BatchClaims, database: Database
) -> None:
    await claims.submit_ready(processor, APPLIES.name, READY, requests, model=MODEL)
    await database.transaction(lambda connection: claims.let_go(connection, APPLIES.name, [SUBJECTS[3]]))
    assert await claims.submit_ready(processor, APPLIES.name, READY, requests, model=MODEL) == 1
    await finish(processor)
    assert await applied(database) == sorted([*SUBJECTS, SUBJECTS[3]])


async def rows(database: Database) -> list[Any]:
    query = sa.select(batch_claims.c.subject_id, batch_claims.c.job_key).order_by(batch_claims.c.subject_id)
    return await database.run(lambda connection: list(connection.execute(query)))
