"""A process that streams turn after turn to its standard output, and judges, until it is killed or asked to end.

Its argument is a `Job` as JSON. Each line of its output is JSON: `ready` once, then the id of a turn with `started`,
with each piece of `text` as soon as it has been handed out, with the state in which it has come to an `end`, or with
how far its `judging` has come, here or of another process's turn; and with `durable` what becomes of DBOS. Once
its standard input ends it begins no further turn and leaves when its turns have ended. SIGTERM and SIGINT have it end
its turns at once, as a service does that is asked to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from benchmarks.kill_judging import tell_of_judging
from guidance_agent import AdvisorAgent, Runtime, Settings, TextDelta, TurnStarted, runtime
from guidance_agent.core import journal, slots

__all__ = ["Job", "hasten", "providers_of"]

_REST_SECONDS = 0.4
"""Between a customer's answer and the next customer's question."""


class Job(BaseModel):
    """What a child does.

    Attributes:
        name: Beginning of the ids of its customers.
        models: One model per stream; each asks again as soon as its answer has ended.
        background: Whether the process judges, and closes turns that others left behind.
        hurry: By how much the times of leases and sweeps are divided.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    provider_url: str
    data_dir: Path
    database_url: str | None = None
    models: Sequence[str]
    background: bool = False
    hurry: float = 1.0


def hasten(factor: float) -> None:
    """Divide this process's times of leases and sweeps, for a run that cannot wait for them."""
    journal.LEASE_SECONDS /= factor
    journal.RENEW_SECONDS /= factor
    runtime.SWEEP_SECONDS /= factor
    slots.SLOT_LEASE_SECONDS /= factor
    slots.RENEW_SECONDS /= factor


def providers_of(job: Job) -> dict[str, dict[str, str]]:
    """Return settings by which both wires lead to the simulator."""
    return {
        "anthropic": {"base_url": job.provider_url, "api_key": "sk-kills"},
        "openai": {"base_url": f"{job.provider_url}/v1", "api_key": "sk-kills"},
    }


def settings_of(job: Job) -> Settings:
    return Settings.load(
        data_dir=job.data_dir,
        database_url=job.database_url,
        background=job.background,
        model=job.models[0],
        reasoning_model="anthropic/claude-haiku-5-5",
        providers=providers_of(job),
    )


def tell(**values: object) -> None:
    # One write: what the reader has received of it is what the customer was shown.
    os.write(1, json.dumps(values).encode() + b"\n")


async def stream_on(advisor: AdvisorAgent, name: str, finish: asyncio.Event) -> None:
    number = 0
    while not finish.is_set():
        number += 1
        customer = {"customer_id": f"{name}-{number}", "presenting_question": "Can I take it all?"}
        async with advisor.consult(customer, use_reasoning=False) as turn:
            async for event in turn:
                if isinstance(event, TurnStarted):
                    tell(turn=event.turn_id, started=True)
                elif isinstance(event, TextDelta):
                    tell(turn=event.turn_id, text=event.text)
        tell(turn=turn.turn_id, end=turn.state)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REST_SECONDS):
                await finish.wait()


async def input_ends(finish: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        await reader.read()
        finish.set()
    finally:
        pipe.close()


async def main(job: Job) -> None:
    hasten(job.hurry)
    tell_of_judging(tell)
    own = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: own and own.cancel())
    finish = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        services = await stack.enter_async_context(Runtime(settings_of(job), environ={}))
        advisors = [
            await stack.enter_async_context(AdvisorAgent(runtime=services, model=model)) for model in job.models
        ]
        tell(ready=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(input_ends(finish))
            for index, advisor in enumerate(advisors):
                group.create_task(stream_on(advisor, f"{job.name}-{index}", finish))


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main(Job.model_validate_json(sys.argv[1])))
