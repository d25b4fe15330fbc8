"""Three processes share limits against a server that enforces them: `make bench ARGS="--only limits"`.

The simulator allows 600 requests and 100,000 tokens a minute and refuses what is more; each process would send far more
if it were let. Counted from the outside: refusals (429), and how much of what a minute allows was used once the first
burst is over. In the last scenario nobody has told the processes about the limits: they have to learn them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.rows import Row
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.limit_store import LimitTable
from guidance_agent.errors import LimitWaitError, RateLimitedError
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.limits_state import COOL_DOWN_SECONDS
from guidance_agent.llm.messages import Message, ModelCall, ModelRequest
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from guidance_agent.settings import Settings

__all__ = ["run"]

MODEL = "anthropic/claude-haiku-5-5"
REQUESTS, TOKENS = 600, 100_000
PROCESSES, AT_ONCE = 3, 20
SETTLING = 20.0
"""Seconds before counting begins: the first burst is over, and what has to be learned is learned."""
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one process does: ask with prompts of about `words` words, for so many `seconds`."""

    base_url: str
    folder: str
    words: int
    told: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One call, as its process saw it: when it ended, its input tokens and its wait in the queue."""

    at: float
    tokens: int
    waited: float
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What one process did, in seconds since the beginning: its calls, and when one of them was refused."""

    calls: Sequence[Seen]
    refusals: Sequence[float]


def run(*, quick: bool = False) -> Sequence[Row]:
    """Measure the three scenarios; `quick` counts for 8 seconds instead of 40."""
    counted = 8.0 if quick else 40.0
    rows = [_row("added to a call of a model without limits", asyncio.run(_passing()), "µs", "")]
    for name, words, told in (("short prompts", 20, True), ("long prompts", 400, True), ("limits not told", 20, False)):
        rows += _scenario(name, words, told=told, counted=counted)
    return rows


def _scenario(name: str, words: int, *, told: bool, counted: float) -> list[Row]:
    arguments = ["--instant", "--no-bodies", "--rpm", str(REQUESTS), "--tpm", str(TOKENS)]
    with tempfile.TemporaryDirectory() as folder, ProviderSimulatorProcess(arguments) as simulator:
        seconds = SETTLING + counted
        job = Job(base_url=simulator.base_url, folder=folder, words=words, told=told, seconds=seconds)
        accounts = asyncio.run(_processes(job))
    late = [call for account in accounts for call in account.calls if SETTLING <= call.at < seconds]
    requests = len([call for call in late if call.outcome == "completed"]) / counted * 60 / REQUESTS
    tokens = sum(call.tokens for call in late) / counted * 60 / TOKENS
    refusals = sorted(at for account in accounts for at in account.refusals)
    later = [at for at in refusals if at > refusals[0] + COOL_DOWN_SECONDS]
    first = len(refusals) - len(later)
    waits = sorted(call.waited for call in late) or [0.0]
    used = max(requests, tokens)
    return [
        _row(f"{name}: used of what a minute allows", used * 100, "%", "≥ 95", broken=used < 0.95),
        _row(f"{name}: refusals in a first episode", first, "", "0" if told else "", broken=told and first > 0),
        _row(f"{name}: refusals after it", len(later), "", "0", broken=bool(later)),
        _row(f"{name}: median wait in the queue", waits[len(waits) // 2], "s", ""),
    ]


def _row(name: str, value: float, unit: str, target: str, *, broken: bool = False) -> Row:
    return Row(name=name, unit=unit, value=float(f"{value:.3g}"), floor=None, ratio=None, target=target, broken=broken)


async def _processes(job: Job) -> list[Account]:
    """Start the processes, and let them begin together when the last of them is ready."""
    ready = asyncio.Barrier(PROCESSES)

    async def one() -> Account:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.limits", json.dumps(asdict(job))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**26,
            cwd=_ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("GUIDANCE_")},
        )
        if process.stdout is None:
            raise RuntimeError("the process has no output")
        await process.stdout.readline()
        await ready.wait()
        out, _ = await process.communicate(b"begin\n")
        values = json.loads(out)
        return Account(calls=[Seen(**each) for each in values["calls"]], refusals=values["refusals"])

    return list(await asyncio.gather(*(one() for _ in range(PROCESSES))))


class _Sink:
    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.began = 0.0

    def record(self, call: ModelCall) -> None:
        tokens = 0 if call.usage is None else call.usage.total_input_tokens
        self.seen.append(
            Seen(
                at=time.monotonic() - self.began,
                tokens=tokens,
                waited=call.limit_wait,
                outcome=call.outcome,
            )
        )


def _request(words: int) -> ModelRequest:
    text = " ".join(["pension"] * words)
    return ModelRequest(model=MODEL, messages=(Message("user", text),), max_tokens=16)


def _settings(job: Job) -> Settings:
    limits = {"requests_per_minute": REQUESTS, "tokens_per_minute": TOKENS} if job.told else None
    return Settings.load(
        data_dir=job.folder,
        providers={MODEL.partition("/")[0]: {"base_url": job.base_url, "api_key": "sk-benchmark", "limits": limits}},
        retry={"max_attempts": 20, "deadline": 300},
    )


async def _ask_until_the_end(job: Job) -> Account:
    sink, clock, settings = _Sink(), SystemClock(), _settings(job)
    async with (
        Database(database_url(settings)) as database,
        ModelGateway(settings, environ={}, sinks=[sink], limits=LimitTable(database, clock)) as gateway,
    ):
        await gateway.prices_ready()
        learn, refusals = gateway.limiter.refused, list[float]()

        def refused(call: PreparedCall, error: RateLimitedError) -> None:
            refusals.append(time.monotonic() - sink.began)
            learn(call, error)

        gateway.limiter.refused = refused  # type: ignore[method-assign]

        async def keep_asking() -> None:
            while (left := sink.began + job.seconds - time.monotonic()) > 0:
                try:
                    async with asyncio.timeout(left):
                        await gateway.complete(_request(job.words))
                except (TimeoutError, LimitWaitError):
                    return

        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.readline)
        sink.began = time.monotonic()
        await asyncio.gather(*(keep_asking() for _ in range(AT_ONCE)))
    return Account(calls=sink.seen, refusals=refusals)


async def _passing() -> float:
    """Return what a call pays that nothing limits, in microseconds."""
    async with ModelGateway(Settings.load(), environ={"ANTHROPIC_API_KEY": "sk-ant-benchmark"}) as gateway:
        call = gateway.prepare(_request(20))
        rounds = 100_000
        began = time.perf_counter()
        for _ in range(rounds):
            gateway.limiter.queue_of(call)
        return (time.perf_counter() - began) / rounds * 1e6


def main() -> None:
    """Be one of the processes."""
    account = asyncio.run(_ask_until_the_end(Job(**json.loads(sys.argv[1]))))
    sys.stdout.write(json.dumps(asdict(account)))


if __name__ == "__main__":
    main()
