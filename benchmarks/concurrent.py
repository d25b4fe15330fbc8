"""What many whole answers at once cost, beside other clients: `python -m benchmarks.run --only concurrent`.

Every client runs in a process of its own, one after the other, against one provider that only waits
(`benchmarks/whole_answers.py`). The floor is raw aiohttp: the same requests, and nothing but the text taken out.
`python -m benchmarks.concurrent CLIENT ADDRESS COUNT` is such a process; it prints a line of JSON for each round.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from benchmarks.rows import Row
from benchmarks.whole_answers import WholeAnswers

__all__ = ["run"]

REQUESTS = 1_000
AT_ONCE = 50
SECONDS = 0.02
MANY = 100_000
_ROUNDS = 3
_WARM_UP = 100
_KEY = "sk-benchmark-123456"
_QUESTION = "What is drawdown?"
_MODEL = "gpt-6-luna"

Ask = Callable[[int], Awaitable[object]]


async def _aiohttp(base_url: str, count: int) -> None:
    import aiohttp

    url, headers = f"{base_url}/v1/chat/completions", {"authorization": f"Bearer {_KEY}"}
    body = {"model": _MODEL, "messages": [{"role": "user", "content": _QUESTION}], "max_completion_tokens": 1024}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> str:
            async with session.post(url, json=body, headers=headers) as response:
                return str(json.loads(await response.read())["choices"][0]["message"]["content"])

        await _measured(lambda number: _limited(one, number), count)


async def _batch(base_url: str, count: int) -> None:
    from guidance_agent.llm.concurrent import BatchConfig, batch_complete
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.settings import Settings

    environ = {"OPENAI_API_KEY": _KEY, "OPENAI_BASE_URL": f"{base_url}/v1"}
    config = BatchConfig(max_concurrent=AT_ONCE)
    async with ModelGateway(Settings.load(), environ=environ) as gateway:

        async def ask(number: int) -> None:
            response = await batch_complete([_QUESTION] * number, f"openai/{_MODEL}", config=config, gateway=gateway)
            if response.succeeded != number:
                raise RuntimeError(f"{response.failed} requests failed, the first with {response.failures}")

        await _measured(ask, count)


async def _growth(base_url: str, count: int) -> None:
    """Megabytes by which the process grows while many results pass through, in order."""
    import psutil

    from guidance_agent.llm.concurrent import BatchConfig, stream_batch
    from guidance_agent.llm.gateway import ModelGateway
    from guidance_agent.settings import Settings

    environ = {"OPENAI_API_KEY": _KEY, "OPENAI_BASE_URL": f"{base_url}/v1"}
    config, process, name = BatchConfig(max_concurrent=AT_ONCE), psutil.Process(), f"openai/{_MODEL}"
    async with ModelGateway(Settings.load(), environ=environ) as gateway:
        async for _ in stream_batch([_QUESTION] * _WARM_UP, name, config=config, gateway=gateway):
            pass
        before = peak = process.memory_info().rss
        began, seen = time.perf_counter(), 0
        questions = (f"{_QUESTION} {number}" for number in range(count))
        async with stream_batch(questions, name, config=config, gateway=gateway, order="input") as results:
            async for result in results:
                if not result.success or result.custom_id != str(seen):
                    raise RuntimeError(f"result {seen} is {result}")
                seen += 1
                if seen % 1_000 == 0:
                    peak = max(peak, process.memory_info().rss)
        told = {"growth": (peak - before) / 1e6, "wall": time.perf_counter() - began, "seen": seen}
        print(json.dumps(told), flush=True)


async def _openai(base_url: str, count: int) -> None:
    import openai

    async with openai.AsyncOpenAI(api_key=_KEY, base_url=f"{base_url}/v1") as client:

        async def one() -> object:
            return await client.chat.completions.create(model=_MODEL, messages=[{"role": "user", "content": _QUESTION}])

        await _measured(lambda number: _limited(one, number), count)


async def _litellm(base_url: str, count: int) -> None:
    import litellm

    async def one() -> object:
        messages = [{"role": "user", "content": _QUESTION}]
        return await litellm.acompletion(
            model=f"openai/{_MODEL}", messages=messages, api_base=f"{base_url}/v1", api_key=_KEY
        )

    await _measured(lambda number: _limited(one, number), count)


CLIENTS: Mapping[str, Callable[[str, int], Awaitable[None]]] = {
    "aiohttp": _aiohttp,
    "batch_complete": _batch,
    "openai SDK": _openai,
    "litellm": _litellm,
}


async def _limited(one: Callable[[], Awaitable[object]], number: int) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def within() -> None:
        async with room:
            await one()

    await asyncio.gather(*(within() for _ in range(number)))


async def _measured(ask: Ask, count: int) -> None:
    await ask(_WARM_UP)
    for _ in range(_ROUNDS):
        gc.collect()
        began, used = time.perf_counter(), time.process_time()
        await ask(count)
        told = {"wall": time.perf_counter() - began, "cpu": (time.process_time() - used) / count * 1e6}
        print(json.dumps(told), flush=True)


def _told(client: str, base_url: str, count: int) -> list[dict[str, Any]]:
    unwanted = ("_API_KEY", "_BASE_URL", "_API_BASE")
    environ = {k: v for k, v in os.environ.items() if not k.endswith(unwanted) and not k.startswith("GUIDANCE_")}
    command = [sys.executable, "-m", "benchmarks.concurrent", client, base_url, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{client} failed:\n{done.stderr[-2_000:]}")
    return lines


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures."""
    count, many = (200, 5_000) if quick else (REQUESTS, MANY)
    with WholeAnswers(SECONDS) as provider:
        told = {name: _told(name, provider.base_url, count) for name in CLIENTS}
    with WholeAnswers(0.0) as provider:
        [grown] = _told("growth", provider.base_url, many)
    wall = {name: min(each["wall"] for each in rounds) for name, rounds in told.items()}
    cpu = {name: statistics.median(each["cpu"] for each in rounds) for name, rounds in told.items()}
    ideal = count * SECONDS / AT_ONCE
    rows = []
    for name in CLIENTS:
        own = name == "batch_complete"
        rows.append(
            Row(
                name=f"{count:,} answers of {SECONDS * 1_000:g} ms, {AT_ONCE} at once (ideal {ideal:.2f} s), {name}",
                unit="s",
                value=round(wall[name], 2),
                floor=round(wall["aiohttp"], 2),
                ratio=round(wall[name] / wall["aiohttp"], 2),
                target=f"≤ {1.4 * ideal:.2f} s on an idle machine" if own else "",
            )
        )
    rows += [
        Row(
            name=f"CPU per answer, {name}",
            unit="µs",
            value=round(cpu[name]),
            floor=round(cpu["aiohttp"]),
            ratio=round(cpu[name] / cpu["aiohttp"], 2),
            target="",
        )
        for name in CLIENTS
    ]
    share = cpu["batch_complete"] / cpu["litellm"]
    rows += [
        Row(
            name="CPU per answer, batch_complete beside litellm",
            unit="µs",
            value=round(cpu["batch_complete"]),
            floor=round(cpu["litellm"]),
            ratio=round(share, 3),
            target="≤ 1/8 = 0.125 of litellm",
        ),
        Row(
            name=f"growth over {many:,} prompts, results in order",
            unit="MB",
            value=round(grown["growth"], 1),
            floor=None,
            ratio=None,
            target="< 200 MB",
            broken=grown["growth"] >= 200,
        ),
        Row(
            name=f"{many:,} prompts answered at once, time for each",
            unit="µs",
            value=round(grown["wall"] / many * 1e6),
            floor=None,
            ratio=None,
            target="",
        ),
    ]
    return rows


if __name__ == "__main__":
    asyncio.run((CLIENTS | {"growth": _growth})[sys.argv[1]](sys.argv[2], int(sys.argv[3])))  # type: ignore[operator]
