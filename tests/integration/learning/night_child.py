"""A process that runs jobs until nothing waits. Arguments: data folder, provider's address, wire, first job."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from guidance_agent import Runtime
from guidance_agent.batch_runtime import open_batch_jobs
from guidance_agent.core.batch_jobs import JobProgress
from tests.integration.advisor.wiring import wired_settings
from tests.integration.learning.nights import NIGHT, night_and_afternoons


def tell(progress: JobProgress) -> None:
    print(progress.answered, progress.doing, flush=True)  # noqa: T201 - the test reads it


async def main(folder: str, base_url: str, wire: str, first: str) -> None:
    provider = cast("Any", SimpleNamespace(base_url=base_url))
    async with Runtime(wired_settings(provider, wire, Path(folder)), environ={}) as runtime:
        if first == "wait":
            async with open_batch_jobs(runtime, options=NIGHT, progress=tell) as jobs:
                await jobs.nightly(wait=True)
        else:
            await night_and_afternoons(runtime, first=first)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
