"""A long answer passes through every tool without staying, but for the text that was asked for."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from guidance_agent.llm import ModelGateway, ModelStream, Progress, collect, rechunk, to_file, with_callbacks
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from guidance_agent.settings import Settings

TEN_MEGABYTES = 10_485_760
WARM = 100_000
ALLOWED = 5_000_000


@pytest.fixture(scope="module")
def far() -> Iterator[ProviderSimulatorProcess]:
    with ProviderSimulatorProcess(["--any-model", "--instant", "--no-bodies"]) as running:
        yield running


class Peak:
    """The most memory this process had while it was looked at."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.before = self.most = self._process.memory_info().rss
        self._seen = 0

    def look(self, size: int) -> None:
        self._seen += size
        if self._seen > 262_144:
            self._seen = 0
            self.most = max(self.most, self._process.memory_info().rss)

    def grown(self) -> int:
        self.most = max(self.most, self._process.memory_info().rss)
        return self.most - self.before


async def written(stream: ModelStream, peak: Peak, folder: Path) -> None:
    watched = with_callbacks(stream, on_chunk=lambda delta: peak.look(len(delta.text)))
    assert (await to_file(watched, folder / "answer.txt")).size in (WARM, TEN_MEGABYTES)


async def watched(stream: ModelStream, peak: Peak, folder: Path) -> None:
    told: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        told[:] = [progress]

    async for delta in with_callbacks(stream, on_progress=on_progress, interval=0):
        peak.look(len(delta.text))
    assert told[0].characters in (WARM, TEN_MEGABYTES)


async def recut(stream: ModelStream, peak: Peak, folder: Path) -> None:
    async for piece in rechunk(stream, sentences=2):
        peak.look(len(piece))


TOOLS: Mapping[str, Callable[[ModelStream, Peak, Path], Awaitable[None]]] = {
    "to_file": written,
    "with_callbacks": watched,
    "rechunk": recut,
}


def request(size: int) -> ModelRequest:
    return ModelRequest(
        model=f"anthropic/script-bytes-{size}", messages=(Message("user", "Go on."),), max_tokens=128_000
    )


@pytest.fixture
async def gateway(far: ProviderSimulatorProcess) -> AsyncIterator[ModelGateway]:
    """A gateway that has read one answer, so that nothing is imported or opened while memory is watched."""
    environ = {"ANTHROPIC_API_KEY": "sk-ant-1234", "ANTHROPIC_BASE_URL": far.base_url}
    async with ModelGateway(Settings.load(), environ=environ) as opened:
        await collect(opened.stream(request(WARM)))
        yield opened


@pytest.mark.parametrize("tool", TOOLS)
async def test_ten_megabytes_pass_through_in_less_than_five(tool: str, gateway: ModelGateway, tmp_path: Path) -> None:
    for size in (WARM, TEN_MEGABYTES):
        peak = Peak()
        await TOOLS[tool](gateway.stream(request(size)), peak, tmp_path)
    assert peak.grown() < ALLOWED


async def test_a_collected_text_is_held_once(gateway: ModelGateway) -> None:
    """By what Python has allocated: the C library may keep more for a while, depending on what it has freed before."""
    # A string that grows in place is copied while a tracer, such as that of coverage, watches.
    tracer = sys.gettrace()
    sys.settrace(None)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        answer = await collect(gateway.stream(request(TEN_MEGABYTES)))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        sys.settrace(tracer)
    assert len(answer.text) == TEN_MEGABYTES
    assert most - before - len(answer.text) < ALLOWED
