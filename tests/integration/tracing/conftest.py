"""An advisor whose spans are collected in memory, before a simulator that a test can dictate to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from guidance_agent import AdvisorAgent, Runtime
from guidance_agent.provider_simulator import ProviderSimulator, Script, SimulatorSettings
from guidance_agent.tracing import Tracing
from guidance_agent.tracing.memory import MemorySink, tracing_in_memory
from guidance_agent.tracing.preparing import FinishedSpan
from tests.integration.advisor.wiring import author_fails, author_says, wired_settings

WIRE = "anthropic"
WITHIN = 10.0


class Traced(NamedTuple):
    """An advisor, and what it traces."""

    advisor: AdvisorAgent
    runtime: Runtime
    simulator: ProviderSimulator
    tracing: Tracing
    sink: MemorySink

    def author(self, text: str | None = None, **script: Any) -> None:
        author_says(self.simulator, WIRE, Script(text=text, **script), times=1)

    def author_fails(self, **fault: Any) -> None:
        author_fails(self.simulator, WIRE, **fault)

    async def spans(self) -> dict[str, list[FinishedSpan]]:
        """Return all spans by their names, in the order of their ends."""
        assert await asyncio.to_thread(self.tracing.flush, WITHIN)
        named: dict[str, list[FinishedSpan]] = {}
        for span in self.sink.spans:
            named.setdefault(span.name, []).append(span)
        return named

    async def spans_with(self, name: str) -> dict[str, list[FinishedSpan]]:
        """Return all spans once there is one of this name."""
        async with asyncio.timeout(WITHIN):
            while name not in (spans := await self.spans()):  # noqa: ASYNC110 - a span tells nobody that it has ended
                await asyncio.sleep(0.01)
        return spans

    async def span(self, name: str) -> FinishedSpan:
        (span,) = (await self.spans())[name]
        return span


OpenTraced = Callable[..., AbstractAsyncContextManager[Traced]]


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(SimulatorSettings.instant(seed=7)) as running:
        yield running


@pytest.fixture
def tracing() -> Iterator[tuple[Tracing, MemorySink]]:
    made, sink = tracing_in_memory()
    yield made, sink
    made.close(WITHIN)


@pytest.fixture
def open_traced(simulator: ProviderSimulator, tmp_path: Path, tracing: tuple[Tracing, MemorySink]) -> OpenTraced:
    @asynccontextmanager
    async def opened(**settings: Any) -> AsyncIterator[Traced]:
        wired = wired_settings(simulator, WIRE, tmp_path / "data", **{"retry": {"max_attempts": 1}, **settings})
        async with (
            Runtime(wired, environ={}, tracing=tracing[0]) as runtime,
            AdvisorAgent(runtime=runtime) as advisor,
        ):
            yield Traced(advisor, runtime, simulator, *tracing)

    return opened


@pytest_asyncio.fixture
async def traced(open_traced: OpenTraced) -> AsyncIterator[Traced]:
    async with open_traced() as opened:
        yield opened
