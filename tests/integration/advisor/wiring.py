"""How the tests of the advisor reach a simulator that they can watch, over either wire format."""

from __future__ import annotations

import asyncio
from pathlib import Path

from guidance_agent import Settings
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from guidance_agent.provider_simulator.request_log import RequestRecord

AUTHOR = {"anthropic": "anthropic/claude-sonnet-5-5", "openai": "openai/gpt-6-sol"}
FAST = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}


def bare(model: str) -> str:
    return model.partition("/")[2]


def wired_settings(simulator: ProviderSimulator, wire: str, data_dir: Path, **more: object) -> Settings:
    values: dict[str, object] = {
        "data_dir": data_dir,
        "background": False,
        "model": AUTHOR[wire],
        "reasoning_model": FAST[wire],
        "providers": {wire: {"base_url": simulator.base_url, "api_key": "test-key-of-the-simulator"}},
        "retry": {"backoff_factor": 0.0},
        **more,
    }
    return Settings.load(**values)


def author_says(simulator: ProviderSimulator, wire: str, script: Script, *, times: int | None = None) -> None:
    """Dictate the author model's answers; the fast model's notes stay composed."""
    simulator.faults.add(Fault(kind="script", times=times, model=bare(AUTHOR[wire]), script=script))


def author_fails(simulator: ProviderSimulator, wire: str, **fault: object) -> None:
    simulator.faults.add(Fault.model_validate({"model": bare(AUTHOR[wire]), **fault}))


def endless(simulator: ProviderSimulator, wire: str) -> None:
    """Make every answer one that goes on for a minute, a piece every 10 ms."""
    author_says(simulator, wire, Script(chunks=6_000, first_ms=0, interval_ms=10))


def author_requests(simulator: ProviderSimulator, wire: str) -> list[RequestRecord]:
    return [record for record in simulator.requests if record.model == bare(AUTHOR[wire])]


async def closed_by_client(record: RequestRecord, *, within: float) -> None:
    """Wait until the simulator sees that its client closed the socket; fail after `within` seconds."""
    async with asyncio.timeout(within):
        while record.client_closed_at is None:  # noqa: ASYNC110 - the simulator's log is what is polled
            await asyncio.sleep(0.005)
