"""Reflection in rounds: processors beside a runtime, and what a job that runs again and again does."""

from __future__ import annotations

import asyncio
from typing import Any

import sqlalchemy as sa

from guidance_agent import Runtime
from guidance_agent.core.batch_processing import BatchOptions, BatchProcessor
from guidance_agent.core.batches.states import CrashPoint, no_crash
from guidance_agent.core.schema import reflections
from guidance_agent.learning.batch_reflection import ReflectionRounds
from tests.integration.core.batch_desk import FAST

__all__ = ["processor_for", "row_of", "run_through", "stages"]


def processor_for(
    runtime: Runtime, rounds: ReflectionRounds, *, options: BatchOptions = FAST, crash: CrashPoint = no_crash
) -> BatchProcessor:
    return BatchProcessor(runtime.database, runtime.gateway, kinds=rounds.kinds, options=options, crash=crash)


async def run_through(rounds: ReflectionRounds, batches: BatchProcessor, *, seconds: float = 15.0) -> None:
    """Run the job until nothing waits, or nothing can go on by itself."""
    async with asyncio.timeout(seconds):
        while True:
            await batches.resume()
            submitted = await rounds.advance(batches)
            standing = await rounds.standing()
            if not standing.waiting or (not submitted and all(job.done for job in await batches.list())):
                return
            await asyncio.sleep(0.01)


async def stages(runtime: Runtime) -> list[str]:
    query = sa.select(reflections.c.stage).order_by(reflections.c.turn_id)
    return await runtime.database.run(lambda connection: list(connection.execute(query).scalars()))


async def row_of(runtime: Runtime, turn_id: str = "t1") -> Any:
    query = sa.select(reflections).where(reflections.c.turn_id == turn_id)
    return await runtime.database.run(lambda connection: connection.execute(query).one())
