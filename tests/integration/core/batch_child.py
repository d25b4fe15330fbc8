"""A process that works on a job and is killed at a crash point.

Arguments: the database's URL, the provider's address, the wire, the job's key, the crash point (empty for none), how
often it is passed before.
"""

from __future__ import annotations

import asyncio
import sys

import sqlalchemy as sa

from benchmarks.killed_at import KilledAt
from guidance_agent.core.batch_processing import BatchProcessor
from guidance_agent.core.database import Database
from tests.integration.core.batch_desk import APPLIES, IN_PIECES, MODELS, gateway_before, requests


async def main(url: str, base_url: str, wire: str, key: str, point: str, passes: str) -> None:
    crash = KilledAt(point, int(passes))
    async with (
        Database(sa.make_url(url)) as database,
        gateway_before(base_url) as gateway,
        BatchProcessor(database, gateway, kinds=[APPLIES], options=IN_PIECES, crash=crash) as processor,
    ):
        await processor.submit(requests(12), job_key=key, kind=APPLIES.name, model=MODELS[wire])
        await processor.wait(key, timeout=30)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
