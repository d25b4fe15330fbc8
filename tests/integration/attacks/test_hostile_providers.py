"""What a provider sends never breaks the journal, and never another customer's turn."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from guidance_agent import AdvisorAgent, Completed, Runtime, Settings
from guidance_agent.core.schema import model_calls, turns
from guidance_agent.errors import ModelError, ModelTimeoutError
from guidance_agent.llm import collect
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.wiring import AUTHOR, FAST, author_fails, author_says
from tests.integration.attacks.evidence import asks, calls_of, check_ended, rows, shown

Answer: TypeAlias = Callable[[asyncio.StreamWriter], Any]
OpenAdvisor: TypeAlias = Callable[[Answer], AbstractAsyncContextManager[tuple[Runtime, AdvisorAgent]]]


def stream_of(wire: str, text: str, usage: dict[str, Any]) -> bytes:
    if wire == "anthropic":
        values: list[Any] = [
            {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
            {"type": "message_stop"},
        ]
    else:
        values = [
            {"choices": [{"index": 0, "delta": {"content": text}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1, **usage}},
        ]
    body = "".join(f"data: {json.dumps(value)}\n\n" for value in values)
    return (body + ("" if wire == "anthropic" else "data: [DONE]\n\n")).encode()


def head(status: bytes, *headers: bytes) -> bytes:
    lines = (b"HTTP/1.1 " + status, b"content-type: text/event-stream", b"connection: close", *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n"


@pytest.fixture
def open_advisor(wire: str, tmp_path: Path) -> OpenAdvisor:
    """Open an advisor whose provider reads a request and then does as it is told."""

    @contextlib.asynccontextmanager
    async def opened(answer: Answer) -> AsyncIterator[tuple[Runtime, AdvisorAgent]]:
        serving: set[asyncio.Task[Any] | None] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving.add(asyncio.current_task())
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                request = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in request.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                done = answer(writer)
                if done is not None:
                    await done
                await writer.drain()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = Settings.load(
            data_dir=tmp_path / "data",
            background=False,
            model=AUTHOR[wire],
            reasoning_model=FAST[wire],
            providers={wire: {"base_url": address, "api_key": "secret-key-of-the-test"}},
            retry={"max_attempts": 1},
            timeouts={"first_event": 2.0, "between_events": 0.6, "without_content": 0.6},
        )
        async with server, Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
            yield runtime, advisor
        await asyncio.wait([task for task in serving if task is not None], timeout=5)

    return opened


async def ask(advisor: AdvisorAgent, customer_id: str) -> str | ModelError:
    try:
        async with asyncio.timeout(10):
            return await collect(advisor.provide_guidance_stream(asks(customer_id), use_reasoning=False))
    except ModelError as error:
        return error


async def check_journal_works(runtime: Runtime, calls: int) -> None:
    """Every call is in the ledger: nothing waits that no commit can take."""
    await calls_of(runtime, calls)
    for row in await rows(runtime, turns):
        assert row["state"] in ("completed", "failed")


@pytest.mark.parametrize(
    "request_id",
    [b"req-\xff\xfe", "req-€".encode(), b"r" * 5_000, b"", b"req\t1"],
    ids=["bytes", "utf8", "long", "empty", "tab"],
)
async def test_no_request_id_can_stop_the_journal(open_advisor: OpenAdvisor, wire: str, request_id: bytes) -> None:
    body = stream_of(wire, "Hello.", {"output_tokens": 2})

    def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head(b"200 OK", b"request-id: " + request_id, b"x-request-id: " + request_id) + body)

    async with open_advisor(answer) as (runtime, advisor):
        answers = [await ask(advisor, f"c-{number}") for number in range(3)]
        assert answers == ["Hello."] * 3
        await check_journal_works(runtime, 3)
        assert all(len(row["request_id"] or "") <= 200 for row in await rows(runtime, model_calls))


@pytest.mark.parametrize(
    "count", [2**62, 10**30, -5, 1e300, "12", None, [], {}, True, "Infinity"], ids=lambda value: str(value)[:12]
)
async def test_no_count_of_tokens_can_stop_the_journal(open_advisor: OpenAdvisor, wire: str, count: object) -> None:
    usage = {
        "input_tokens": count,
        "output_tokens": count,
        "prompt_tokens": count,
        "completion_tokens": count,
        "cache_read_input_tokens": count,
        "iterations": [{"input_tokens": 2**52, "output_tokens": 2**52}] * 3_000,
    }
    body = stream_of(wire, "Hello.", usage)
    async with open_advisor(lambda writer: writer.write(head(b"200 OK") + body)) as (runtime, advisor):
        assert await ask(advisor, "a") == "Hello."
        assert await ask(advisor, "b") == "Hello."
        await check_journal_works(runtime, 2)


@pytest.mark.parametrize("message", ["half \ud800 a pair", "nul \x00", "key secret-key-of-the-test", "x" * 100_000])
@pytest.mark.parametrize("when", ["status", "stream"])
async def test_no_error_message_can_stop_the_journal_or_tell_the_key(
    open_advisor: OpenAdvisor, wire: str, message: str, when: str
) -> None:
    error = json.dumps({"type": "error", "error": {"type": message, "code": message, "message": message}}).encode()

    def answer(writer: asyncio.StreamWriter) -> None:
        if when == "status":
            writer.write(head(b"400 Bad Request", b"content-length: %d" % len(error)) + error)
        else:
            first = stream_of(wire, "Hello.", {}).partition(b"\n\n" if wire == "openai" else b"message_delta")[0]
            writer.write(head(b"200 OK") + first.rpartition(b"data: ")[0] + b"data: " + error + b"\n\n")

    async with open_advisor(answer) as (runtime, advisor):
        for number in range(2):
            failed = await ask(advisor, f"c-{number}")
            assert isinstance(failed, ModelError)
            assert "secret-key" not in str(failed)
            assert len(str(failed)) < 2_000
        await check_journal_works(runtime, 2)
        for table in (turns, model_calls):
            assert "secret-key" not in str(await rows(runtime, table))


async def test_pings_without_end_are_no_answer(open_advisor: OpenAdvisor, wire: str) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head(b"200 OK"))
        for _ in range(200):
            writer.write(b': ping\n\nevent: ping\ndata: {"type": "ping"}\n\n' if wire == "anthropic" else b": ping\n\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with open_advisor(answer) as (_, advisor):
        error = await ask(advisor, "c")
    assert isinstance(error, ModelTimeoutError)


async def test_an_answer_that_is_compressed_garbage_or_no_http_is_a_typed_error(open_advisor: OpenAdvisor) -> None:
    answers = [
        head(b"200 OK", b"content-encoding: gzip") + b"\x1f\x8bnot gzip at all",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        head(b"200 OK", b"transfer-encoding: chunked") + b"zzzz\r\nnonsense\r\n",
        head(b"200 OK") + b"data: " + b"[" * 100_000 + b"\n\n",
        head(b"200 OK") + b'data: "\\ud800"\n\n',
        head(b"200 OK") + b"data: null\n\n",
        head(b"999 Odd") + b"{}",
        b"",
    ]
    current = answers[0]
    async with open_advisor(lambda writer: writer.write(current)) as (runtime, advisor):
        for number, current in enumerate(answers):
            assert isinstance(await ask(advisor, f"c-{number}"), ModelError), current[:60]
        await check_journal_works(runtime, len(answers))


async def test_a_row_that_cannot_be_stored_does_not_end_the_turns_of_others(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    author_says(simulator, wire, Script(text="Hello."))
    assert await ask(wired, "a") == "Hello."
    (call,) = await calls_of(wired_runtime, 1)
    wired_runtime.journal.add_rows(model_calls, [{**call, "id": "call_poison", "started_at": "long ago"}])
    wired_runtime.journal.add_rows(model_calls, [{**call, "id": "call_sound"}])
    assert await ask(wired, "b") == "Hello."
    assert "call_sound" in {row["id"] for row in await calls_of(wired_runtime, 3)}


async def test_failures_of_some_customers_leave_the_others_whole(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    for number in range(0, 24, 3):
        author_fails(
            simulator,
            wire,
            kind=("truncate", "drop", "garbage", "error_event")[number % 4],
            contains=f"number {number}.",
            after_chunks=3,
            script=Script(chunks=20, first_ms=0, interval_ms=2),
        )
    author_says(simulator, wire, Script(chunks=20, first_ms=0, interval_ms=2))

    async def one(number: int) -> bool:
        async with wired.consult(asks(f"c-{number}", f"Question number {number}."), use_reasoning=False) as turn:
            events = [event async for event in turn]
        await check_ended(wired_runtime, turn.turn_id, shown(events))
        return isinstance(events[-1], Completed)

    assert await asyncio.gather(*(one(number) for number in range(24))) == [bool(number % 3) for number in range(24)]
