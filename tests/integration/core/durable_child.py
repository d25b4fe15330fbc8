"""A process that begins durable work, says so, and never ends it. Arguments: the database's URL, the key."""

from __future__ import annotations

import asyncio
import sys

import sqlalchemy as sa

from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database
from guidance_agent.core.durable import InlineRunner, open_runner
from guidance_agent.core.slots import WorkerSlot


async def main(url: str, key: str) -> None:
    async def perform(begun: str) -> None:
        sys.stdout.write(f"{begun}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    async with Database(sa.make_url(url)) as database:
        slot = WorkerSlot(database, SystemClock(), host="host", role="test", holder="child")
        runner = await open_runner(database.url, slot, perform, ended=lambda: None)
        if isinstance(runner, InlineRunner):
            raise RuntimeError("DBOS could not be launched")
        await runner.start(key)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
