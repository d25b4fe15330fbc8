"""One client in a process of its own, measured when it is told to.

Arguments: the client's name, the wire format, the simulator's address. Each line of standard input is a JSON array, the
name of a measurement and its arguments; each is answered by a line of JSON with its `values`, `words` or `error`. A
process of its own keeps a client's imports, threads and garbage out of the figures of the others.

With `--first` the process asks once, says when the first text is there and how large it is by then, and ends.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.peer_clients import CLIENTS, Answer, Ask

STREAMS = 200
ASKED_AT_ONCE = 5
LONG_MODEL = "long-answer"
LONG_ANSWER = 10_485_760
_LAG_STEP = 0.005
_SETTLE_SECONDS = 0.05


class Worker:
    """The measurements; each method is one, and returns what is answered."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._left: Answer | None = None

    async def warm(self, times: int) -> dict[str, Any]:
        for _ in range(times):
            await self._drain("script-500x0")
        return {}

    async def cpu(self, model: str, chunks: int) -> dict[str, Any]:
        """CPU microseconds of the whole process per chunk."""
        began = time.process_time()
        length = await self._drain(model)
        used = time.process_time() - began
        if not length:
            raise RuntimeError(f"no text arrived from model {model!r}")
        return {"values": [used / chunks * 1e6]}

    async def first_text(self) -> dict[str, Any]:
        """Milliseconds to the first text, of some questions one after the other."""
        taken = []
        for _ in range(ASKED_AT_ONCE):
            began = time.perf_counter()
            answer = await self._ask("script-5x0")
            await anext(answer.pieces)
            taken.append((time.perf_counter() - began) * 1e3)
            await _length(answer.pieces)
        return {"values": taken}

    async def many(self, model: str) -> dict[str, Any]:
        """Seconds for many streams at once, and the event loop's lag meanwhile in milliseconds, p99."""
        lags: list[float] = []
        watch = asyncio.create_task(_watch_lag(lags))
        began = time.perf_counter()
        await asyncio.gather(*(self._drain(model) for _ in range(STREAMS)))
        taken = time.perf_counter() - began
        watch.cancel()
        await asyncio.wait({watch})
        return {"values": [taken, statistics.quantiles(lags, n=100)[98]]}

    async def growth(self) -> dict[str, Any]:
        """Megabytes by which the process grows while a long answer passes through."""
        import psutil

        process = psutil.Process()
        before = peak = process.memory_info().rss
        seen = unseen = 0
        answer = await self._ask(LONG_MODEL)
        async for piece in answer.pieces:
            seen += len(piece)
            unseen += len(piece)
            if unseen > 262_144:
                unseen = 0
                peak = max(peak, process.memory_info().rss)
        if seen != LONG_ANSWER:
            raise RuntimeError(f"{seen} of {LONG_ANSWER} characters arrived")
        return {"values": [(peak - before) / 1e6]}

    async def ending(self, model: str) -> dict[str, Any]:
        """How an answer ends for its reader: `complete`, or the name of the error."""
        try:
            await self._drain(model)
        except Exception as error:  # whatever a client raises is the result
            return {"words": type(error).__name__}
        return {"words": "complete"}

    async def leave(self, model: str) -> dict[str, Any]:
        """Read the first text, `break`, close; the answer stays referenced. Returns the time of the close."""
        self._left = await self._ask(model)
        async for _ in self._left.pieces:
            break
        moment = time.time()
        await self._left.close()
        return {"values": [moment]}

    async def forget(self) -> dict[str, Any]:
        self._left = None
        gc.collect()
        return {}

    async def _drain(self, model: str) -> int:
        return await _length((await self._ask(model)).pieces)


async def _length(pieces: AsyncIterator[str]) -> int:
    length = 0
    async for piece in pieces:
        length += len(piece)
    return length


async def _watch_lag(lags: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(_LAG_STEP)
        lags.append((time.perf_counter() - began - _LAG_STEP) * 1e3)


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def serve(client: str, wire: str, base_url: str, channel: int) -> None:
    async with CLIENTS[client].open(wire, base_url) as ask:
        worker = Worker(ask)
        async for line in await _lines():
            name, *arguments = json.loads(line)
            gc.collect()
            try:
                told = await getattr(worker, name)(*arguments)
            except Exception:
                told = {"error": traceback.format_exc()}
            # Some clients go on working after an answer; nobody else is to be measured meanwhile.
            await asyncio.sleep(_SETTLE_SECONDS)
            os.write(channel, json.dumps(told).encode() + b"\n")


async def first(client: str, wire: str, base_url: str, channel: int) -> None:
    async with CLIENTS[client].open(wire, base_url) as ask:
        answer = await ask("script-5x0")
        await anext(answer.pieces)
        os.write(channel, b".")
        import psutil

        os.write(channel, f"{psutil.Process().memory_info().rss}\n".encode())
        await _length(answer.pieces)


def main() -> None:
    # What a client prints must not get between the answers.
    channel = os.dup(1)
    os.dup2(2, 1)
    once = sys.argv[1] == "--first"
    client, wire, base_url = sys.argv[2:] if once else sys.argv[1:]
    asyncio.run((first if once else serve)(client, wire, base_url, channel))


if __name__ == "__main__":
    main()
