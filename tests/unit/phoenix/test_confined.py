"""What confines the server: addresses, sockets, hosts and origins, and the refusal to start where it cannot."""

from __future__ import annotations

import concurrent.futures
import os
import socket
from collections.abc import MutableMapping
from importlib import import_module
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import uvicorn

from guidance_agent.phoenix.server_side import confined
from guidance_agent.phoenix.server_side.confined import LoopbackOnly, NotConfinedError, grpc_address, is_loopback
from guidance_agent.phoenix.server_side.listeners import listeners_of

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must be found out


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1", "localhost", "LOCALHOST"]
)
def test_this_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", EVERYWHERE, "::", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1%eth0", "evil.example", "localhost.evil.example"],
)
def test_anything_else_is_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("address", ["[::]:4317", "0.0.0.0:4317", "*:4317"])
def test_a_grpc_server_for_every_interface_gets_loopback(address: str) -> None:
    assert grpc_address(address) == "127.0.0.1:4317"


@pytest.mark.parametrize("address", ["127.0.0.1:4317", "[::1]:4317", "localhost:0"])
def test_a_grpc_server_on_loopback_stays_there(address: str) -> None:
    assert grpc_address(address) == address


@pytest.mark.parametrize(
    "address", ["192.0.2.1:4317", "evil.example:4317", "[2001:db8::1]:4317", "unix:/tmp/x", "dns:x:1"]
)
def test_a_grpc_server_anywhere_else_is_refused(address: str) -> None:
    with pytest.raises(NotConfinedError, match="would listen"):
        grpc_address(address)


def test_sockets_of_python_are_refused_beyond_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "bind", socket.socket.bind)
    confined.confine_sockets()
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
    for host in (EVERYWHERE, "", "192.0.2.1"):
        with socket.socket() as beyond, pytest.raises(NotConfinedError, match="not this machine only"):
            beyond.bind((host, 0))


@pytest.fixture
def confined_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (import_module("grpc.aio._server").Server, import_module("grpc._server")._Server):
        for method in ("add_insecure_port", "add_secure_port"):
            monkeypatch.setattr(kind, method, getattr(kind, method))
    confined.confine_grpc()


@pytest.mark.usefixtures("confined_grpc")
def test_a_server_of_the_grpc_library_listens_on_loopback_or_not_at_all() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("[::]:0")
        server.start()
        try:
            hosts = [host for host, found in listeners_of(os.getpid()) if found == port]
            assert hosts and all(map(is_loopback, hosts))
            with pytest.raises(NotConfinedError):
                server.add_insecure_port("192.0.2.1:0")
        finally:
            server.stop(None).wait()


@pytest.mark.usefixtures("confined_grpc")
async def test_an_asynchronous_server_of_the_grpc_library_listens_on_loopback_or_not_at_all() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("[::]:0")
    await server.start()
    try:
        hosts = [host for host, found in listeners_of(os.getpid()) if found == port]
        assert hosts and all(map(is_loopback, hosts))
        with pytest.raises(NotConfinedError):
            server.add_insecure_port("192.0.2.1:0")
    finally:
        await server.stop(None)


def test_a_web_server_is_confined_or_not_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.Config, "__init__", uvicorn.Config.__init__)
    confined.confine_http()
    config = uvicorn.Config(app=application, host="127.0.0.1", port=0, access_log=True)
    assert isinstance(config.app, LoopbackOnly)
    assert not config.access_log
    with pytest.raises(NotConfinedError, match="would listen"):
        uvicorn.Config(application, host=EVERYWHERE)


def test_a_grpc_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Renamed:
        pass

    monkeypatch.setattr("importlib.import_module", lambda _name: Renamed())
    with pytest.raises(NotConfinedError, match="cannot be confined"):
        confined.confine_grpc()


class Answered(Exception):
    """The application behind the check was reached."""


async def application(scope: MutableMapping[str, Any], receive: object, send: object) -> None:
    raise Answered


async def nothing() -> MutableMapping[str, Any]:
    raise AssertionError("nothing is to be read")


async def sent_for(kind: str, *headers: tuple[str, str]) -> list[MutableMapping[str, Any]]:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers]}
    await LoopbackOnly(application)(scope, nothing, send)
    return sent


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("host", ["127.0.0.1:6006", "localhost:6006", "localhost", "[::1]:6006", "LocalHost:9"])
async def test_own_requests_pass(kind: str, host: str) -> None:
    for headers in ([("host", host)], [("Host", host), ("origin", f"http://{host}")]):
        with pytest.raises(Answered):
            await sent_for(kind, *headers)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("host", "")],
        [("host", "evil.example")],
        [("host", "evil.example:6006")],
        [("host", "127.0.0.1.evil.example")],
        [("host", "127.0.0.1@evil.example")],
        [("host", "evil.example@127.0.0.1")],
        [("host", "127.0.0.1/evil.example")],
        [("host", "127.0.0.1:port")],
        [("host", "[::1")],
        [("host", EVERYWHERE)],
        [("host", "127.0.0.1"), ("host", "evil.example")],
        [("host", "localhost:6006"), ("origin", "http://evil.example")],
        [("host", "localhost:6006"), ("origin", "http://localhost:8000")],
        [("host", "localhost:6006"), ("origin", "null")],
        [("host", "localhost:6006"), ("origin", "http://localhost:6006"), ("origin", "http://evil.example")],
    ],
)
async def test_other_requests_are_refused_before_the_application_sees_them(headers: list[tuple[str, str]]) -> None:
    start, body = await sent_for("http", *headers)
    assert start["status"] == 403
    assert b"answers" in body["body"]
    (closed,) = await sent_for("websocket", *headers)
    assert closed["type"] == "websocket.close"


async def test_the_start_of_the_application_passes() -> None:
    with pytest.raises(Answered):
        await sent_for("lifespan")


def test_a_socket_for_every_interface_is_told() -> None:
    with socket.socket() as everywhere, socket.socket() as here, socket.socket() as silent:
        for each, host in ((everywhere, EVERYWHERE), (here, "127.0.0.1"), (silent, "127.0.0.1")):
            each.bind((host, 0))
        everywhere.listen(0)
        here.listen(0)
        found = listeners_of(os.getpid())
        assert (EVERYWHERE, everywhere.getsockname()[1]) in found
        assert ("127.0.0.1", here.getsockname()[1]) in found
        assert silent.getsockname()[1] not in [port for _, port in found]


def test_a_socket_that_takes_datagrams_from_anybody_is_told() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as anybody:
        anybody.bind(("127.0.0.1", 0))
        assert anybody.getsockname() in listeners_of(os.getpid())
