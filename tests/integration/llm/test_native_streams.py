"""What the two native transports make of bytes on a real socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from guidance_agent.errors import (
    MalformedResponseError,
    MidStreamError,
    ModelError,
    ModelTimeoutError,
    ProviderUnreachableError,
    StreamTruncated,
)
from guidance_agent.llm.gateway import ModelGateway, ModelStream
from guidance_agent.llm.messages import Delta, ModelCall, ModelRequest
from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings

Ask = Callable[..., ModelRequest]
OpenGateway = Callable[..., ModelGateway]

CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


class Server(Protocol):
    base_url: str
    connections: int
    client_closed: asyncio.Event
    requests: list[bytes]

    def serve(self, *script: object) -> None: ...

    def stream(self, body: bytes, content_type: str | None = ..., cut: int | None = ...) -> None: ...

    def answer(self, status: int, body: bytes, content_type: str = ..., **headers: str) -> None: ...


def events(model: str, *pieces: str) -> list[bytes]:
    """The events of an answer of these pieces, in the model's wire format."""
    if model.startswith("anthropic"):
        bodies: list[Any] = [{"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 9}}}]
        bodies += [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces
        ]
        bodies.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}})
        bodies.append({"type": "message_stop"})
        return [f"event: {body['type']}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n".encode() for body in bodies]
    bodies = [{"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    bodies.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    bodies.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})
    lines = [json.dumps(body, ensure_ascii=False) for body in bodies] + ["[DONE]"]
    return [f"data: {line}\n\n".encode() for line in lines]


def body_of(model: str, *pieces: str) -> bytes:
    return b"".join(events(model, *pieces))


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def text_of(stream: ModelStream) -> str:
    return "".join([delta.text async for delta in stream])


async def read_until_error(stream: ModelStream) -> tuple[str, ModelError]:
    text = ""
    try:
        async for delta in stream:
            text += delta.text
    except ModelError as error:
        return text, error
    raise AssertionError(f"no error after {text!r}")


@pytest.mark.parametrize("cut", [1, 7, 64, None])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
async def test_cuts_and_line_endings_do_not_matter(
    cut: int | None, newline: bytes, open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.stream(body_of(model, "£5 ", "naïve – ", "🏦").replace(b"\n", newline), cut=cut)
    assert await text_of(open_gateway(byte_server.base_url).stream(ask(model))) == "£5 naïve – 🏦"


@pytest.mark.parametrize("mode", ["random", "byte"])
async def test_a_provider_may_cut_its_bytes_anywhere(
    mode: str, open_gateway: OpenGateway, model: str, ask: Ask
) -> None:
    texts = []
    for chunk_mode in ("event", mode):
        settings = SimulatorSettings.instant(seed=3).but(chunk_mode=chunk_mode, extra_ping_rate=0.3, line_ending="\r\n")
        async with ProviderSimulator(settings) as simulator:
            gateway = open_gateway(simulator.base_url)
            texts.append(await text_of(gateway.stream(ask(model, max_tokens=80))))
            await gateway.aclose()
    assert texts[0] == texts[1]
    assert len(texts[0]) > 100


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_stream_is_read(
    encoding: str, open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    body = body_of(model, "Hello")
    data = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    byte_server.serve(PLAIN.replace(b"\r\n\r\n", f"\r\ncontent-encoding: {encoding}\r\n\r\n".encode()), data)
    assert await text_of(open_gateway(byte_server.base_url).stream(ask(model))) == "Hello"


async def test_an_answer_of_ten_megabytes_in_one_event_is_read(
    open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.stream(body_of(model, "x" * 10_000_000))
    assert len(await text_of(open_gateway(byte_server.base_url).stream(ask(model)))) == 10_000_000


async def test_connections_are_used_again_even_if_the_body_ends_late(
    open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.serve(CHUNKED, chunk(body_of(model, "Hello")), b"0\r\n", 0.02, b"\r\n", "keep")
    gateway = open_gateway(byte_server.base_url)
    for _ in range(4):
        assert await text_of(gateway.stream(ask(model))) == "Hello"
        await asyncio.sleep(0.06)
    assert byte_server.connections == 1


async def test_the_terminal_event_ends_the_answer_although_the_connection_goes_on(
    open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.serve(CHUNKED, chunk(body_of(model, "Hello")), 30)
    began = time.monotonic()
    assert await text_of(open_gateway(byte_server.base_url).stream(ask(model))) == "Hello"
    assert time.monotonic() - began < 5
    await asyncio.wait_for(byte_server.client_closed.wait(), 2)


@pytest.mark.parametrize("framing", ["chunked", "close"])
async def test_every_cut_of_an_answer_is_an_error_that_keeps_the_text(
    framing: str, open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    parts = events(model, "one ", "two ", "three")
    gateway = open_gateway(byte_server.base_url)
    # The last event of the OpenAI format may be missing, and the usage before it.
    for count in range(1, len(parts) - (2 if model.startswith("openai") else 0)):
        body = b"".join(parts[:count])
        byte_server.scripts.clear()  # type: ignore[attr-defined]
        byte_server.serve(*((CHUNKED, chunk(body), b"0\r\n\r\n") if framing == "chunked" else (PLAIN, body)))
        text, error = await read_until_error(gateway.stream(ask(model)))
        assert isinstance(error, StreamTruncated)
        assert "one two three".startswith(text.strip())
        assert text == "".join(["one ", "two ", "three"][: count - (1 if model.startswith("anthropic") else 0)])


@pytest.mark.parametrize("ending", [(), ("reset",)])
async def test_a_connection_that_breaks_is_an_error_that_keeps_the_text(
    ending: tuple[str, ...], open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.serve(CHUNKED, chunk(b"".join(events(model, "Hello")[:2])), 0.1, *ending)
    stream = open_gateway(byte_server.base_url).stream(ask(model))
    text, error = await read_until_error(stream)
    assert (text, type(error)) == ("Hello", MidStreamError)
    with pytest.raises(MidStreamError):
        await stream.read()


async def test_text_that_came_before_a_break_is_not_lost_on_a_slow_caller(
    open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    parts = events(model, "one ", "two ", "three")
    byte_server.serve(CHUNKED, chunk(b"".join(parts[:2])), 0.02, chunk(b"".join(parts[2:4])))
    stream = open_gateway(byte_server.base_url).stream(ask(model))
    first = await stream.read()
    assert first is not None
    await asyncio.sleep(0.2)
    text, error = await read_until_error(stream)
    assert (
        "".join(delta.text for delta in first) + text
        == "one two three"[: len("one two three") if model.startswith("anthropic") else None]
    )
    assert isinstance(error, MidStreamError)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(kind="truncate", after_chunks=2), StreamTruncated),
        (Fault(kind="drop", after_chunks=2), MidStreamError),
        (Fault(kind="drop", after_chunks=2, abrupt=False), MidStreamError),
        (Fault(kind="error_event", after_chunks=2), MidStreamError),
        (Fault(kind="garbage", after_chunks=2), MalformedResponseError),
        (Fault(kind="redirect"), ProviderUnreachableError),
        (Fault(kind="wrong_content_type"), MalformedResponseError),
        (Fault(kind="accept_then_drop"), ProviderUnreachableError),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
async def test_each_fault_is_its_own_error(
    fault: Fault,
    kind: type[ModelError],
    gateway: ModelGateway,
    simulator: ProviderSimulator,
    calls: list[ModelCall],
    model: str,
    ask: Ask,
) -> None:
    simulator.faults.add(fault)
    _, error = await read_until_error(gateway.stream(ask(model)))
    assert type(error) is kind
    assert [call.outcome for call in calls] == [f"error:{kind.__name__}"]


@pytest.mark.parametrize(("kind", "reason"), [("refusal", "refusal"), ("max_tokens", "length")])
async def test_endings_that_are_no_failures_are_finish_reasons(
    kind: Any, reason: str, gateway: ModelGateway, simulator: ProviderSimulator, model: str, ask: Ask
) -> None:
    simulator.faults.add(Fault(kind=kind, after_chunks=3))
    stream = gateway.stream(ask(model))
    await text_of(stream)
    expected = "content_filter" if model.startswith("openai") and kind == "refusal" else reason
    assert stream.finish_reason in (reason, expected)
    assert stream.call is not None
    assert stream.call.outcome == "completed"


async def test_a_web_page_is_quoted_and_the_base_url_named(
    open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.answer(200, b"<html><body>Welcome to nginx</body></html>", "text/html")
    _, error = await read_until_error(open_gateway(byte_server.base_url).stream(ask(model)))
    assert isinstance(error, MalformedResponseError)
    assert "Welcome to nginx" in str(error)
    assert byte_server.base_url in str(error)


@pytest.mark.parametrize("content_type", [None, "application/json", "text/plain"])
async def test_a_stream_with_the_wrong_label_is_known_by_how_it_begins(
    content_type: str | None, open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.stream(body_of(model, "Hello"), content_type=content_type)
    assert await text_of(open_gateway(byte_server.base_url).stream(ask(model))) == "Hello"


@pytest.mark.parametrize(
    "head",
    [b"\x15\x03\x01\x00\x02\x02", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"],
    ids=["tls", "ssh", "endless header"],
)
async def test_what_is_not_http_is_a_typed_error(
    head: bytes, open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.serve(head)
    _, error = await read_until_error(open_gateway(byte_server.base_url).stream(ask(model)))
    assert isinstance(error, MalformedResponseError | ProviderUnreachableError)


async def test_an_address_where_nobody_listens_is_named(open_gateway: OpenGateway, model: str, ask: Ask) -> None:
    _, error = await read_until_error(open_gateway("http://127.0.0.1:9").stream(ask(model)))
    assert isinstance(error, ProviderUnreachableError)
    assert "http://127.0.0.1:9" in str(error)


def limits(**seconds: float) -> dict[str, Any]:
    return {"timeouts": {"connect": 5.0, "first_event": 5.0, "between_events": 5.0, "without_content": 5.0} | seconds}


@pytest.mark.parametrize("script", [(30,), (PLAIN, 30)], ids=["before the headers", "after the headers"])
async def test_silence_before_the_first_event_is_a_time_out(
    script: tuple[object, ...], open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.serve(*script)
    gateway = open_gateway(byte_server.base_url, **limits(first_event=0.2))
    _, error = await read_until_error(gateway.stream(ask(model)))
    assert isinstance(error, ModelTimeoutError)
    assert error.phase == "first_event"
    await asyncio.wait_for(byte_server.client_closed.wait(), 0.5)


async def test_silence_between_events_is_a_time_out_that_keeps_the_text(
    open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.serve(PLAIN, b"".join(events(model, "Hello")[:2]), 30)
    gateway = open_gateway(byte_server.base_url, **limits(between_events=0.2))
    text, error = await read_until_error(gateway.stream(ask(model)))
    assert text == "Hello"
    assert isinstance(error, ModelTimeoutError)
    assert error.phase == "between_events"
    await asyncio.wait_for(byte_server.client_closed.wait(), 0.5)


@pytest.mark.parametrize("ping", [b'event: ping\ndata: {"type": "ping"}\n\n', b": keep-alive\n\n"])
async def test_pings_are_life_but_not_for_ever(
    ping: bytes, open_gateway: OpenGateway, byte_server: Server, ask: Ask
) -> None:
    model = "anthropic/claude-haiku-5-5"
    pings: list[object] = [ping, 0.1] * 20
    byte_server.serve(PLAIN, b"".join(events(model, "Hello")[:2]), *pings)
    gateway = open_gateway(byte_server.base_url, **limits(between_events=0.3, without_content=0.6))
    began = time.monotonic()
    text, error = await read_until_error(gateway.stream(ask(model)))
    assert text == "Hello"
    assert isinstance(error, ModelTimeoutError)
    assert error.phase == "without_content"
    assert time.monotonic() - began >= 0.6


async def test_pings_keep_a_slow_answer_alive(open_gateway: OpenGateway, byte_server: Server, ask: Ask) -> None:
    model = "anthropic/claude-haiku-5-5"
    parts = events(model, "Hello")
    byte_server.serve(PLAIN, parts[0], *[b": keep-alive\n\n", 0.1] * 6, b"".join(parts[1:]))
    gateway = open_gateway(byte_server.base_url, **limits(between_events=0.3))
    assert await text_of(gateway.stream(ask(model))) == "Hello"


async def test_time_that_the_caller_takes_counts_for_no_time_out(
    open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    parts = events(model, "one ", "two ", "three")
    byte_server.serve(PLAIN, b"".join(parts[:2]), 0.05, b"".join(parts[2:4]), 0.3, b"".join(parts[4:]))
    gateway = open_gateway(byte_server.base_url, **limits(between_events=0.2, without_content=0.2, first_event=0.2))
    stream = gateway.stream(ask(model))
    text = ""
    while (deltas := await stream.read()) is not None:
        text += "".join(delta.text for delta in deltas)
        await asyncio.sleep(0.3)
    assert text == "one two three"


async def test_all_that_arrived_together_is_read_together(
    open_gateway: OpenGateway, byte_server: Server, model: str, ask: Ask
) -> None:
    byte_server.stream(body_of(model, *["word "] * 500))
    stream = open_gateway(byte_server.base_url).stream(ask(model))
    batches: list[list[Delta]] = []
    while (deltas := await stream.read()) is not None:
        batches.append(list(deltas))
    assert len(batches) < 20
    assert stream.timing.chunks == 500
