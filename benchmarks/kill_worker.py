"""The worker that gives, after all kills, the verdicts that are still due."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.kill_child import Job, providers_of

__all__ = ["Drained", "drain"]

_ROOT = Path(__file__).parents[1]
_WITHIN = 900.0


class Drained(NamedTuple):
    """What `guidance-agent worker --once` did; `complaint` says why it did not do all of it."""

    closed: int = 0
    judged: int = 0
    complaint: str | None = None


async def drain(job: Job) -> Drained:
    """Run the worker until nothing waits, with the models and the records of a job."""
    environment = {
        "GUIDANCE_MODEL": job.models[0],
        "GUIDANCE_PROVIDERS": json.dumps(providers_of(job)),
        "GUIDANCE_DATA_DIR": str(job.data_dir),
        "GUIDANCE_DATABASE_URL": job.database_url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "guidance_agent.cli.main", "worker", "--once", "--json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("GUIDANCE_")}
        | {name: value for name, value in environment.items() if value is not None},
    )
    try:
        async with asyncio.timeout(_WITHIN):
            out, said = await process.communicate()
    except TimeoutError:
        return Drained(complaint=f"the worker has not come to an end within {_WITHIN:g} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0:
        return Drained(complaint=f"the worker ended with status {process.returncode}: {said.decode()[-2000:]}")
    values = json.loads(out)
    return Drained(values["closed"], values["judged"])
