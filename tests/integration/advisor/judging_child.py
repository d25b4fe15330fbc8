"""A process that judges what waits and stops right before it stores the verdict, to be killed there.

Arguments: the data folder. The database comes from the environment.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from guidance_agent import Runtime, Settings
from guidance_agent.core.verdicts import VerdictRecords
from tests.integration.advisor.scripted_judge import ScriptedJudge, judging


async def hang(self: VerdictRecords, new: object, *_: object, **__: object) -> None:
    sys.stdout.write("judged, not stored\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def main(data_dir: str) -> None:
    VerdictRecords.store = hang  # type: ignore[method-assign]
    settings = Settings.load(data_dir=Path(data_dir), simulator="instant", background=False)
    async with Runtime(settings) as runtime, judging(runtime, ScriptedJudge()) as dispatcher:
        await dispatcher.run()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
