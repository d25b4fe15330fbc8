"""Starts Phoenix so that nothing outside this machine, and no page of another site, can reach it.

Phoenix keeps its OTLP/gRPC port on all interfaces whatever it is told, answers requests for any host name, and has no
switch for either. So before it starts:

- gRPC servers bind to 127.0.0.1 where they would bind to every interface, and to no other address than loopback;
- sockets of Python bind to loopback only;
- HTTP requests and web sockets must name a loopback host, and come from no page but Phoenix's own. A page of another
  site whose name was made to point to 127.0.0.1 (DNS rebinding) names that site, and is refused.

What is wrapped belongs to other packages. Where it is not what this file expects, nothing starts. The launcher looks at
the result from outside as well.

The server lives as long as its launcher: standard input is a pipe, and when it closes, the server ends. One byte on it
says that the server may stay.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

__all__ = ["LoopbackOnly", "confine_grpc", "confine_http", "confine_sockets", "grpc_address", "is_loopback"]

_LOOPBACK = "127.0.0.1"
_EVERY_INTERFACE = frozenset({"[::]", "::", "0.0.0.0", "*", ""})  # noqa: S104 - what is never bound to
_END_WITHIN = 10.0
_CLOSE_WITHIN = 3

_Scope: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Application: TypeAlias = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class NotConfinedError(RuntimeError):
    """Raised when something would listen beyond loopback, or what is to be confined is not as expected."""


def is_loopback(host: str) -> bool:
    """Return whether a host, as an address or a name without a port, is this machine and nothing else."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def grpc_address(address: str) -> str:
    """Return what a gRPC server may bind to instead of `address`, such as `127.0.0.1:4317`.

    Raises:
        NotConfinedError: when the address is neither loopback nor every interface.
    """
    host, _, port = address.rpartition(":")
    if host in _EVERY_INTERFACE:
        return f"{_LOOPBACK}:{port}"
    if is_loopback(host):
        return address
    raise NotConfinedError(f"A gRPC server would listen on {address!r}, which is not this machine only.")


def confine_grpc() -> None:
    """Have every gRPC server of this process bind to loopback."""
    for module, name in (("grpc.aio._server", "Server"), ("grpc._server", "_Server")):
        kind = getattr(importlib.import_module(module), name, None)
        for method in ("add_insecure_port", "add_secure_port"):
            original = getattr(kind, method, None)
            if not callable(original):
                raise NotConfinedError(f"{module}.{name} has no {method}: this version of grpcio cannot be confined.")
            setattr(kind, method, _binding_to_loopback(original))


def _binding_to_loopback(original: Callable[..., int]) -> Callable[..., int]:
    def add_port(self: object, address: str, *more: Any, **named: Any) -> int:
        return original(self, grpc_address(address), *more, **named)

    return add_port


def confine_sockets() -> None:
    """Have the sockets of Python bind to loopback only."""
    original = socket.socket.bind

    def bind(self: socket.socket, address: Any, /) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(str(address[0])):
            raise NotConfinedError(f"A socket would be bound to {address!r}, which is not this machine only.")
        original(self, address)

    setattr(socket.socket, "bind", bind)  # noqa: B010 - a method of the standard library


class LoopbackOnly:
    """ASGI middleware: answers 403 to a request for another host, or from a page of another origin."""

    def __init__(self, application: _Application) -> None:
        self._application = application

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan" or (refusal := _refusal(scope)) is None:
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        else:
            body = f"{refusal}\n".encode()
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def _refusal(scope: _Scope) -> str | None:
    hosts = _values(scope, b"host")
    if len(hosts) != 1 or not is_loopback(_name_in(f"//{hosts[0]}")):
        return "This server answers requests for 127.0.0.1 and localhost only."
    origins = _values(scope, b"origin")
    if any(urlsplit(origin).netloc.lower() != hosts[0].lower() for origin in origins):
        return "This server answers its own pages only."
    return None


def _values(scope: _Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _name_in(address: str) -> str:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return ""
    return "" if parts.username is not None or parts.path else parts.hostname or ""


def confine_http() -> None:
    """Have every uvicorn server of this process answer on loopback, for loopback hosts and own pages only."""
    config = importlib.import_module("uvicorn").Config
    original = config.__init__

    def configure(self: Any, app: _Application, *more: Any, **named: Any) -> None:
        # Every export of spans would be a line of the log, and an open page would keep the server from ending.
        quiet = {"access_log": False, "timeout_graceful_shutdown": _CLOSE_WITHIN}
        original(self, LoopbackOnly(app), *more, **(named | quiet))
        if not is_loopback(str(self.host)):
            raise NotConfinedError(f"The web server would listen on {self.host!r}, which is not this machine only.")

    config.__init__ = configure


def end_with_the_launcher() -> None:
    """Watch standard input in a thread, and end this process when it closes without a word."""

    def watch() -> None:
        if os.read(0, 1):
            return
        deadline = threading.Timer(_END_WITHIN, os._exit, (1,))
        deadline.daemon = True
        deadline.start()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="launcher", daemon=True).start()


def main() -> None:
    end_with_the_launcher()
    confine_sockets()
    confine_grpc()
    confine_http()
    sys.argv = ["phoenix", "serve"]
    importlib.import_module("phoenix.server.main").main()


if __name__ == "__main__":
    main()
