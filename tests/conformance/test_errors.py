"""Refused requests and unreachable providers"""

from __future__ import annotations

import json
import logging
import socket
import traceback
from typing import Any

import pytest

from guidance_agent.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    MalformedResponseError,
    ModelError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
    ProviderUnreachableError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRejectedError,
)
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message
from guidance_agent.provider_simulator import Fault, ProviderSimulator
from tests.conformance.byte_server import head
from tests.conformance.expecting import Expect
from tests.conformance.observing import Observed, observe, observe_whole
from tests.conformance.serving import Door, Served

BOTH_WAYS = pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
SECRET = "QQ 12 34 56 C"

STATUSES: list[tuple[int, type[ModelError], bool]] = [
    (400, RequestRejectedError, False),
    (401, AuthenticationError, False),
    (402, PermissionDeniedError, False),
    (403, PermissionDeniedError, False),
    (404, ModelNotFoundError, False),
    (408, ProviderUnavailableError, True),
    (409, ProviderUnavailableError, True),
    (413, RequestRejectedError, False),
    (418, RequestRejectedError, False),
    (422, RequestRejectedError, False),
    (429, RateLimitedError, True),
    (500, ProviderUnavailableError, True),
    (502, ProviderUnavailableError, True),
    (503, ProviderUnavailableError, True),
    (504, ProviderUnavailableError, True),
    (529, ProviderUnavailableError, True),
]


async def asked(gateway: ModelGateway, door: Door, *, whole: bool) -> Observed:
    if whole:
        return await observe_whole(gateway.complete(door.ask()))
    return await observe(gateway.stream(door.ask()))


async def refused(served: Served, status: int, body: bytes, *, whole: bool = False, **headers: object) -> Observed:
    kind = headers.pop("content_type", "application/json")
    length = headers.pop("content_length", len(body))
    served.server.serve_only(head(status, str(kind), content_length=length, **headers) + body)
    return await asked(await served.gateway(), served.door, whole=whole)


@BOTH_WAYS
@pytest.mark.parametrize(("status", "kind", "retryable"), STATUSES, ids=[str(status) for status, *_ in STATUSES])
async def test_a_status_decides_class_retry_and_wait_and_is_asked_for_once(
    status: int,
    kind: type[ModelError],
    retryable: bool,
    whole: bool,
    gateway: ModelGateway,
    door: Door,
    simulator: ProviderSimulator,
    expect: Expect,
) -> None:
    simulator.faults.add(Fault(kind="status", status=status, retry_after=7, times=None))
    seen = await asked(gateway, door, whole=whole)
    wait = 7.0 if retryable else None
    outcome = f"error:{kind.__name__}"
    expect(seen, text="", error=kind, status=status, retryable=retryable, retry_after=wait, outcome=outcome)
    assert isinstance(seen.failure, ModelError)
    assert seen.failure.request_id == simulator.requests[-1].request_id
    assert (seen.failure.provider, seen.failure.model) == (door.wire.name, door.subject.model)
    assert len(simulator.requests) == 1
    assert [(call.outcome, call.usage, call.cost) for call in door.calls] == [(outcome, None, None)]


@pytest.mark.parametrize(("status", "kind"), [(401, AuthenticationError), (503, ProviderUnavailableError)])
async def test_the_status_counts_and_not_the_words_of_the_body(
    status: int, kind: type[ModelError], served: Served, expect: Expect
) -> None:
    words = "rate_limit_exceeded: insufficient_quota, context_length_exceeded, 429"
    body = json.dumps(served.wire.error("server_error", words)).encode()
    expect(await refused(served, status, body), error=kind, status=status)


BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "application/json"),
    "web page": (b"<html><body>502 Bad Gateway</body></html>", "text/html"),
    "not utf-8": (b"\xff\xfe\x00bad", "application/json"),
    "list": (b'[{"error": {"message": "busy"}}]', "application/json"),
    "text": (b'"busy"', "application/json"),
    "number": (b"7", "application/json"),
    "null": (b"null", "application/json"),
    "deep": (b"[" * 60_000, "application/json"),
    "event stream": (b'data: {"error": {"message": "busy"}}\n\n', "text/event-stream"),
    "long": (b'{"error": {"message": "' + b"busy " * 60_000 + b'"}}', "application/json"),
}


@BOTH_WAYS
@pytest.mark.parametrize(("body", "content_type"), BODIES.values(), ids=BODIES)
async def test_whatever_the_body_of_a_refusal_is_the_status_is_told(
    body: bytes, content_type: str, whole: bool, served: Served, expect: Expect
) -> None:
    seen = await refused(served, 503, body, whole=whole, content_type=content_type)
    expect(seen, error=ProviderUnavailableError, status=503, retryable=True)
    assert len(str(seen.failure)) < 1_000


async def test_a_refusal_whose_body_breaks_off_is_still_that_refusal(served: Served, expect: Expect) -> None:
    seen = await refused(served, 503, b'{"error": {"mess', content_length=5_000)
    expect(seen, error=ProviderUnavailableError, status=503, retryable=True)


async def test_too_long_a_prompt_is_told_apart(served: Served, expect: Expect) -> None:
    anthropic = served.wire.name == "anthropic"
    message = "prompt is too long: 210000 tokens > 200000 maximum" if anthropic else "Too much."
    body = served.wire.error("invalid_request_error" if anthropic else "context_length_exceeded", message)
    seen = await refused(served, 400, json.dumps(body).encode())
    expect(seen, error=ContextWindowExceededError, status=400, retryable=False)


async def test_a_quota_that_is_used_up_is_not_worth_waiting_for(served: Served, expect: Expect) -> None:
    body = served.wire.error("insufficient_quota", "You exceeded your current quota.")
    seen = await refused(served, 429, json.dumps(body).encode(), retry_after=9)
    expect(seen, error=QuotaExhaustedError, status=429, code="insufficient_quota", retryable=False)


async def test_a_provider_may_forbid_to_ask_again(served: Served, expect: Expect) -> None:
    body = json.dumps(served.wire.error("api_error", "Broken.")).encode()
    seen = await refused(served, 500, body, x_should_retry="false")
    expect(seen, error=ProviderUnavailableError, status=500, retryable=False)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-3", None), ("soon", None), ("nan", None), ("Sat, 21 Nov 2026 10:00:30 GMT", 30.0)],
)
async def test_the_wait_that_a_provider_asks_for_is_read(
    value: str, seconds: float | None, served: Served, expect: Expect
) -> None:
    body = json.dumps(served.wire.error("rate_limit_error", "Slow down.")).encode()
    seen = await refused(served, 429, body, retry_after=value, date="Sat, 21 Nov 2026 10:00:00 GMT")
    expect(seen, error=RateLimitedError, status=429, retryable=True, retry_after=seconds)


@BOTH_WAYS
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int, whole: bool, served: Served, expect: Expect) -> None:
    seen = await refused(served, status, b"", whole=whole, location=f"{served.server.base_url}/elsewhere")
    expect(seen, error=ProviderUnreachableError, status=status, retryable=False)
    assert len(served.server.requests) == 1


@BOTH_WAYS
async def test_an_address_where_nobody_listens_is_named(whole: bool, door: Door, expect: Expect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        seen = await asked(await door.open(address), door, whole=whole)
    expect(seen, error=ProviderUnreachableError, retryable=True, status=None)
    assert address in str(seen.failure)


@BOTH_WAYS
@pytest.mark.parametrize("ending", [(), ("reset",)], ids=["close", "reset"])
async def test_a_request_that_is_dropped_is_not_sent_again(
    ending: tuple[str, ...], whole: bool, served: Served, expect: Expect
) -> None:
    served.server.serve_only(*ending)
    seen = await asked(await served.gateway(), served.door, whole=whole)
    expect(seen, error=ProviderUnreachableError, retryable=True)
    assert len(served.server.requests) == 1


NO_HTTP = {
    "tls": b"\x15\x03\x01\x00\x02\x02",
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "endless header": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    "half a status": b"HTTP/1.1 2",
    "no status": b"HTTP/1.1 \r\n\r\n",
    "lengths that differ": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 9\r\n\r\nhello",
    "negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
}


@BOTH_WAYS
@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP)
async def test_what_is_not_http_is_a_typed_error(sent: bytes, whole: bool, served: Served) -> None:
    served.server.serve_only(sent)
    seen = await asked(await served.gateway(), served.door, whole=whole)
    assert seen.error in (MalformedResponseError, ProviderUnreachableError)
    assert seen.text == ""


async def test_neither_key_nor_question_is_in_an_error_or_a_log_line(
    gateway: ModelGateway, door: Door, simulator: ProviderSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = {"anthropic": "sk-ant-test-123456", "openai": "sk-test-123456"}[door.wire.name]
    request = door.ask(messages=(Message("user", f"I am Gwendolyn, NI {SECRET}."),))
    failures: list[BaseException] = []
    faults: list[dict[str, Any]] = [
        {"kind": "status", "status": 401, "message": f"Incorrect API key provided: {key}"},
        *({"kind": kind, "after_chunks": 2} for kind in ("error_event", "drop", "garbage", "truncate")),
    ]
    for fault in faults:
        simulator.faults.add(Fault(**fault))
        seen = await observe(gateway.stream(request))
        assert seen.failure is not None
        failures.append(seen.failure)
    assert (await observe(gateway.stream(request))).error is None
    said = caplog.text + "".join("".join(traceback.format_exception(each)) for each in failures)
    assert "guidance_agent.calls" in said
    for secret in (key, "Gwendolyn", SECRET):
        assert secret not in said
