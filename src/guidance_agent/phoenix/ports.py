"""The two ports of the Phoenix server: the usual ones, free ones in their place, or those that were asked for."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from guidance_agent.errors import InputError

__all__ = ["USUAL_GRPC_PORT", "USUAL_PORT", "Ports", "choose_ports"]

USUAL_PORT = 6006
USUAL_GRPC_PORT = 4317


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Ports on 127.0.0.1."""

    http: int
    grpc: int


def choose_ports(http: int | None = None, grpc: int | None = None) -> Ports:
    """Return two ports that are free now.

    Args:
        http: The one that was asked for; 0 asks for any, None for 6006 or else any.
        grpc: The same, with 4317.

    Raises:
        InputError: when one that was asked for is taken, or both are the same.
    """
    if http and http == grpc:
        raise InputError(f"--port and --grpc-port are both {http}. Choose two different ones.")
    with contextlib.ExitStack() as held:
        # Both are held until both are known, so that they differ.
        first = held.enter_context(_held(http, "--port", USUAL_PORT, avoid=grpc))
        second = held.enter_context(_held(grpc, "--grpc-port", USUAL_GRPC_PORT, avoid=http))
    return Ports(http=first, grpc=second)


@contextlib.contextmanager
def _held(wanted: int | None, option: str, usual: int, *, avoid: int | None) -> Iterator[int]:
    try:
        sock = _bound(usual if wanted is None and usual != avoid else wanted or 0)
    except OSError as error:
        if wanted is not None:
            raise InputError(
                f"{option} {wanted} cannot be used: {error.strerror}. Choose another one, or 0 for a free one."
            ) from error
        sock = _bound(0)
    with sock:
        yield sock.getsockname()[1]


def _bound(port: int) -> socket.socket:
    """Return a socket that holds a port; an OSError says that another has it, on loopback or on every interface."""
    sock = socket.socket()
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen()
    except OSError:
        sock.close()
        raise
    return sock
