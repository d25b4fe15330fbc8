"""However a wrapped stream is left, the provider's socket is closed within half a second."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from guidance_agent.errors import FileWriteError, MidStreamError
from guidance_agent.llm import ModelGateway, ModelStream, collect, partial_text, rechunk, to_file, with_callbacks
from guidance_agent.llm.messages import ModelCall, ModelRequest
from guidance_agent.provider_simulator import Fault, ProviderSimulator, ProviderSimulatorProcess, Script
from guidance_agent.settings import Settings

Ask = Callable[..., ModelRequest]


def endless(simulator: ProviderSimulator) -> None:
    simulator.faults.add(Fault(kind="script", script=Script(chunks=2_000, first_ms=0, interval_ms=20)))


def _size(path: Path) -> int:
    return path.stat().st_size


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to that within {seconds} s"
        await asyncio.sleep(0.005)


async def nothing_is_being_closed() -> None:
    """Wait until the event loop has ended what it does for forgotten generators."""
    await until(lambda: not any("stream-pump" in str(task) or "athrow" in str(task) for task in asyncio.all_tasks()))


async def generated(stream: ModelStream) -> AsyncIterator[str]:
    """Somebody's own generator, as the advisor's text is one."""
    async with stream:
        async for delta in stream:
            if delta.text:
                yield delta.text


WRAPPERS: Mapping[str, Callable[[ModelStream], Any]] = {
    "watched": with_callbacks,
    "words": lambda stream: rechunk(stream, words=1),
    "words without a task": lambda stream: rechunk(stream, words=1, max_delay=None),
    "time": lambda stream: rechunk(stream, max_delay=0.05),
    "watched words": lambda stream: with_callbacks(rechunk(stream, words=1)),
    "words of a watched one": lambda stream: rechunk(with_callbacks(stream), words=1),
    "words of a generator": lambda stream: rechunk(generated(stream), words=1),
    "words of words": lambda stream: rechunk(rechunk(stream, words=1), characters=40),
    "a watched generator": lambda stream: with_callbacks(generated(stream)),
}


async def break_and_forget(wrapped: list[Any]) -> None:
    async for _ in wrapped.pop():
        break
    gc.collect()


async def close(wrapped: list[Any]) -> None:
    stream = wrapped.pop()
    await anext(stream)
    await stream.aclose()
    await stream.aclose()


async def leave_the_block(wrapped: list[Any]) -> None:
    async with wrapped.pop() as stream:
        await anext(stream)


async def raise_in_the_block(wrapped: list[Any]) -> None:
    with pytest.raises(LookupError):
        async with wrapped.pop() as stream:
            await anext(stream)
            raise LookupError


async def cancel_while_waiting(wrapped: list[Any]) -> None:
    stream = wrapped.pop()
    await anext(stream)

    async def consume() -> None:
        async with aclosing(stream):
            async for _ in stream:
                pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_and_forget(wrapped: list[Any]) -> None:
    async def consume(stream: Any) -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume(wrapped.pop()))
    for _ in range(50):
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gc.collect()


async def collect_as_garbage(wrapped: list[Any]) -> None:
    stream = wrapped.pop()
    await anext(stream)
    cycle: list[object] = [stream]
    cycle.append(cycle)
    del stream, cycle
    gc.collect()


WAYS = [
    break_and_forget,
    close,
    leave_the_block,
    raise_in_the_block,
    cancel_while_waiting,
    cancel_and_forget,
    collect_as_garbage,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_leaving_a_wrapped_stream_closes_the_providers_socket_within_half_a_second(
    wrapper: str,
    way: Callable[[list[Any]], Any],
    gateway: ModelGateway,
    simulator: ProviderSimulator,
    calls: list[ModelCall],
    ask: Ask,
) -> None:
    endless(simulator)
    wrapped = [WRAPPERS[wrapper](gateway.stream(ask("anthropic/claude-haiku-5-5")))]
    await way(wrapped)
    await until(lambda: simulator.requests[-1].client_closed_at is not None and len(calls) > 0, seconds=0.5)
    [call] = calls
    assert call.outcome in ("closed_early", "cancelled")
    await nothing_is_being_closed()


READERS: Mapping[str, Callable[[ModelStream, Path], Awaitable[object]]] = {
    "collect": lambda stream, _: collect(stream),
    "to_file": lambda stream, folder: to_file(stream, folder / "a.txt"),
    "rechunk": lambda stream, _: collect(rechunk(stream, words=1)),
}


@pytest.mark.parametrize("reader", READERS)
async def test_a_stream_that_is_closed_under_its_reader_is_not_taken_for_an_answer(
    reader: str, gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask, tmp_path: Path
) -> None:
    endless(simulator)
    stream = gateway.stream(ask(model))
    task = asyncio.ensure_future(READERS[reader](stream, tmp_path))
    await until(lambda: stream.text_length > 0)
    await stream.aclose()
    with pytest.raises(MidStreamError, match="closed before"):
        await task


@pytest.fixture(scope="module")
def far() -> Iterator[ProviderSimulatorProcess]:
    with ProviderSimulatorProcess(["--any-model", "--instant", "--no-bodies"]) as running:
        yield running


@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_no_socket_to_the_provider_is_left_open(wrapper: str, far: ProviderSimulatorProcess, ask: Ask) -> None:
    """Seen from this side: by the connections that the operating system lists for this process."""
    port = int(far.base_url.rpartition(":")[2])

    def sockets() -> int:
        return sum(open.raddr[1:] == (port,) for open in psutil.Process().net_connections("tcp") if open.raddr)

    environ = {"ANTHROPIC_API_KEY": "sk-ant-1234", "ANTHROPIC_BASE_URL": far.base_url}
    async with ModelGateway(Settings.load(), environ=environ) as gateway:
        stream = WRAPPERS[wrapper](gateway.stream(ask("anthropic/script-6000x10", max_tokens=60_000)))
        await anext(stream)
        assert sockets() == 1
        async for _ in stream:
            break
        del stream
        gc.collect()
        await until(lambda: sockets() == 0, seconds=0.5)
        await nothing_is_being_closed()


@pytest.mark.parametrize("wrapper", ["watched", "words", "words without a task"])
async def test_closing_from_another_task_ends_the_read(
    wrapper: str, gateway: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall], model: str, ask: Ask
) -> None:
    endless(simulator)
    stream = WRAPPERS[wrapper](gateway.stream(ask(model)))
    await anext(stream)

    async def consume() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.05)
    await stream.aclose()
    await until(lambda: simulator.requests[-1].client_closed_at is not None, seconds=0.5)
    async with asyncio.timeout(1):
        await asyncio.gather(task, return_exceptions=True)
    assert [call.outcome for call in calls] == ["closed_early"]


@pytest.mark.parametrize("tool", ["collect", "to_file"])
async def test_cancelling_a_tool_that_reads_to_the_end_closes_the_socket(
    tool: str,
    gateway: ModelGateway,
    simulator: ProviderSimulator,
    calls: list[ModelCall],
    model: str,
    ask: Ask,
    tmp_path: Path,
) -> None:
    endless(simulator)
    stream = gateway.stream(ask(model))
    target = tmp_path / "a.txt"
    task = asyncio.ensure_future(collect(stream) if tool == "collect" else to_file(stream, target))
    await until(lambda: stream.text_length > 100 and (tool == "collect" or any(map(_size, tmp_path.iterdir()))))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: simulator.requests[-1].client_closed_at is not None and len(calls) > 0, seconds=0.5)
    if tool == "to_file":
        assert 0 < len(await partial_text(target)) <= stream.text_length


@pytest.mark.parametrize("name", ["on_chunk", "on_progress"])
async def test_a_callback_that_fails_closes_the_socket(
    name: str, gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    def fails(_: object) -> None:
        raise LookupError("no window to draw in")

    endless(simulator)
    callbacks: dict[str, Any] = {name: fails}
    with pytest.raises(LookupError):
        await collect(with_callbacks(gateway.stream(ask(model)), **callbacks))
    await until(lambda: simulator.requests[-1].client_closed_at is not None, seconds=0.5)


async def test_a_file_that_cannot_be_written_asks_no_provider(
    gateway: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall], model: str, ask: Ask, tmp_path: Path
) -> None:
    with pytest.raises(FileWriteError, match="is a folder"):
        await to_file(gateway.stream(ask(model)), tmp_path)
    assert len(simulator.requests) == 0
    assert calls == []
