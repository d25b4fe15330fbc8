"""Server-sent events are the same however the bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.llm.transports.sse import EventTooLong, SseReader


def read(*pieces: bytes) -> list[str]:
    reader = SseReader()
    found: list[str] = []
    for piece in pieces:
        found += reader.feed(piece)
    return found + reader.finish()


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"data: one\n\ndata: two\n\n", ["one", "two"]),
        (b"event: x\ndata: one\n\n", ["one"]),
        (b"data: one\nevent: x\n\n", ["one"]),
        (b"event: x\nid: 3\ndata: one\n\n", ["one"]),
        (b"data:one\n\n", ["one"]),
        (b"data:  two spaces \n\n", [" two spaces "]),
        (b"data: one\r\n\r\ndata: two\r\n\r\n", ["one", "two"]),
        (b"data: one\r\rdata: two\r\r", ["one", "two"]),
        (b"event: x\r\ndata: one\r\n\r\n", ["one"]),
        (b": comment\n\ndata: one\n\n: again\n\n", ["one"]),
        (b"event: x\n: comment\ndata: one\n\n", ["one"]),
        (b"data: first\ndata: second\n\n", ["first\nsecond"]),
        (b"event: x\ndata: first\ndata: second\n\n", ["first\nsecond"]),
        (b"\xef\xbb\xbfdata: one\n\n", ["one"]),
        (b"\n\n\n\ndata: one\n\n\n\n\ndata: two\n\n", ["one", "two"]),
        (b"event: ping\n\nretry: 10\n\ndata: one\n\n", ["one"]),
        (b"data: one\n\ndata: no blank line", ["one", "no blank line"]),
        (b"database: no\ndata\n\n", [""]),
        ("data: £5 – “naïve” 🏦\n\n".encode(), ["£5 – “naïve” 🏦"]),
        (b"", []),
    ],
)
def test_events_follow_the_specification(body: bytes, events: list[str]) -> None:
    assert read(body) == events
    assert read(*(bytes([byte]) for byte in body)) == events


LINES = st.lists(
    st.sampled_from(
        ["data: {}", "data: £ 🏦", "data:", "event: x", ": ping", "id: 1", "", "", "data: a:b", "retry: 5", "nonsense"]
    ),
    max_size=30,
)


@given(LINES, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.lists(st.integers(0, 400), max_size=40))
def test_cuts_never_change_the_events(lines: list[str], newline: str, bom: bool, cuts: list[int]) -> None:
    body = (b"\xef\xbb\xbf" if bom else b"") + newline.join(lines).encode()
    edges = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(edges)]
    assert read(*pieces) == read(body)


@given(LINES)
def test_line_endings_never_change_the_events(lines: list[str]) -> None:
    assert read("\r\n".join(lines).encode()) == read("\n".join(lines).encode())


def test_an_event_of_ten_megabytes_is_read() -> None:
    payload = b"x" * 10_000_000
    body = b"data: " + payload + b"\n\n"
    pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]
    assert read(*pieces) == [payload.decode()]


def test_an_endless_event_is_refused() -> None:
    reader = SseReader(limit=1_000)
    with pytest.raises(EventTooLong, match="1000 bytes"):
        for _ in range(100):
            reader.feed(b"data: and so on " * 3)


def test_an_event_in_very_many_pieces_is_read() -> None:
    # Joining the pieces again and again would copy twenty gigabytes.
    body = b"data: " + b"x" * 2_000_000 + b"\n\n"
    assert [len(data) for data in read(*(body[start : start + 100] for start in range(0, len(body), 100)))] == [
        2_000_000
    ]
