"""Which ports are chosen: the usual ones, free ones in their place, or a clear word about one that was asked for."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from guidance_agent.errors import InputError
from guidance_agent.phoenix import ports
from guidance_agent.phoenix.ports import choose_ports


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_the_usual_ports_are_taken_where_they_are_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(ports, "USUAL_PORT", free)
    assert choose_ports().http == free


def test_a_usual_port_that_is_taken_gives_way_to_a_free_one(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(ports, "USUAL_PORT", taken)
    monkeypatch.setattr(ports, "USUAL_GRPC_PORT", taken)
    chosen = choose_ports()
    assert len({chosen.http, chosen.grpc, taken, 0}) == 4


@pytest.mark.parametrize("option", ["http", "grpc"])
def test_a_port_that_was_asked_for_and_is_taken_is_an_error_that_names_it(taken: int, option: str) -> None:
    with pytest.raises(InputError, match=f"port {taken} cannot be used"):
        choose_ports(**{option: taken})


def test_a_port_that_was_asked_for_is_given(free: int) -> None:
    assert choose_ports(free, 0).http == free
    assert choose_ports(0, free).grpc == free


def test_the_two_ports_differ(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    with pytest.raises(InputError, match=f"both {free}"):
        choose_ports(free, free)
    monkeypatch.setattr(ports, "USUAL_PORT", free)
    chosen = choose_ports(None, free)
    assert chosen.grpc == free != chosen.http
    monkeypatch.setattr(ports, "USUAL_GRPC_PORT", free)
    chosen = choose_ports(free)
    assert chosen.http == free != chosen.grpc
