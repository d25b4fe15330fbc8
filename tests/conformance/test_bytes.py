"""Bytes, events and their order"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guidance_agent.errors import MalformedResponseError, MidStreamError
from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings
from tests.conformance.byte_server import CHUNKED, LAST_CHUNK, chunk, head
from tests.conformance.expecting import Expect
from tests.conformance.invariance import tally
from tests.conformance.observing import observe
from tests.conformance.serving import Door, Served
from tests.conformance.specimens import SPECIMENS, specimen
from tests.conformance.splitting import SPLITS, split
from tests.conformance.subjects import SUBJECTS, Subject, Wire
from tests.conformance.wires import USAGE, Said, body_of, text_of

PIECES = ("£5 ", "naïve – ", "🏦", "e\u0301")
WORDS = "".join(PIECES)
ONLY_ANTHROPIC = [subject for subject in SUBJECTS if subject.wire == "anthropic"]
ONLY_NATIVE = [subject for subject in SUBJECTS if subject.transport == "native"]
on_native = pytest.mark.parametrize("subject", ONLY_NATIVE, ids=str, indirect=True)
on_anthropic = pytest.mark.parametrize("subject", ONLY_ANTHROPIC, ids=str, indirect=True)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("cut", [1, 7, 64])
async def test_cuts_and_line_ends_do_not_matter(cut: int, newline: bytes, served: Served, expect: Expect) -> None:
    body = body_of(served.wire.events(Said(text=PIECES))).replace(b"\n", newline)
    pieces = [body[start : start + cut] for start in range(0, len(body), cut)]
    seen = await served.streamed(*pieces, apart=True)
    expect(seen, text=WORDS, finish="stop", usage=USAGE, error=None)


@pytest.mark.parametrize("name", SPECIMENS)
@pytest.mark.parametrize("way", SPLITS)
async def test_an_answer_is_the_same_however_it_is_split(way: str, name: str, served: Served) -> None:
    body = specimen(name, served.wire)
    whole = await served.streamed(body)
    assert whole == await served.streamed(*split(body, way, random.Random(name)), apart=True)


@on_native
async def test_hundreds_of_random_splits_are_read_the_same(subject: Subject) -> None:
    found = await tally(subject.wire, 500)
    assert [way for way, counted in found.items() if counted.different] == []
    assert sum(counted.splits for counted in found.values()) == 500


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
@given(data=st.data())
async def test_any_text_in_any_pieces_is_what_arrives(served: Served, data: st.DataObject) -> None:
    characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0<>")
    text = data.draw(st.lists(st.text(characters, min_size=1, max_size=20), min_size=1, max_size=6))
    body = body_of(served.wire.events(Said(text=tuple(text))))
    cuts = data.draw(st.lists(st.integers(1, len(body) - 1), max_size=25, unique=True))
    edges = [0, *sorted(cuts), len(body)]
    seen = await served.streamed(*(body[start:end] for start, end in pairwise(edges)), apart=True)
    assert (seen.text, seen.finish, seen.error) == ("".join(text), "stop", None)


@pytest.mark.parametrize("mode", ["random", "byte"])
async def test_the_simulator_may_cut_its_bytes_anywhere(mode: str, door: Door) -> None:
    seen = []
    for chunk_mode in ("event", mode):
        chosen = SimulatorSettings.instant(seed=3).but(chunk_mode=chunk_mode, extra_ping_rate=0.3, line_ending="\r\n")
        async with ProviderSimulator(chosen) as simulator:
            gateway = await door.open(simulator.base_url)
            seen.append(await observe(gateway.stream(door.ask(max_tokens=25))))
            await gateway.aclose()
    assert len(seen[0].text) > 50
    assert seen[0] == seen[1]


DRESSES: dict[str, Callable[[bytes], bytes]] = {
    "byte order mark": lambda body: b"\xef\xbb\xbf" + body,
    "no space after the colon": lambda body: body.replace(b"data: ", b"data:").replace(b"event: ", b"event:"),
    "spaces at line ends": lambda body: body.replace(b"}\n", b"}   \n"),
    "ids and retry times": lambda body: body.replace(b"data: ", b"id: 7\nretry: 10\ndata: "),
    "blank lines": lambda body: b"\n\n\n" + body.replace(b"\n\n", b"\n\n\n\n\n"),
    "comments inside events": lambda body: body.replace(b"data: ", b": busy\ndata: "),
    "no event names": lambda body: b"".join(
        line for line in body.splitlines(keepends=True) if not line.startswith(b"event:")
    ),
    "data over several lines": lambda body: body.replace(b'","', b'",\ndata: "'),
    "escaped text": lambda body: body.decode().encode("ascii", "backslashreplace").replace(b"\\xa3", b"\\u00a3"),
}


@pytest.mark.parametrize("dress", DRESSES, ids=DRESSES)
async def test_how_events_are_dressed_does_not_matter(dress: str, served: Served, expect: Expect) -> None:
    body = DRESSES[dress](body_of(served.wire.events(Said(text=("one ", "two ", "three")))))
    seen = await served.streamed(body)
    expect(seen, text="one two three", finish="stop", usage=USAGE, error=None)


async def test_pings_comments_and_unknown_events_may_come_anywhere(served: Served, expect: Expect) -> None:
    noise = served.wire.ping + b": keep-alive\n\n" + served.wire.unknown + b"event: ping\n\n"
    body = b"".join(noise + event.data for event in served.wire.events(Said(text=PIECES)))
    expect(await served.streamed(body), text=WORDS, finish="stop", usage=USAGE, error=None)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("cut", [None, 5])
async def test_a_compressed_stream_is_read(encoding: str, cut: int | None, served: Served, expect: Expect) -> None:
    body = body_of(served.wire.events(Said(text=PIECES)))
    data = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    size = cut or len(data)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    begin = head(200, "text/event-stream", transfer_encoding="chunked", content_encoding=encoding)
    steps = [step for piece in pieces for step in (chunk(piece), "turn")]
    seen = await observe(await served.play(begin, *steps, LAST_CHUNK, "keep"))
    expect(seen, text=WORDS, finish="stop", usage=USAGE, error=None)


async def test_a_compressed_stream_that_is_cut_off_is_an_error_that_keeps_the_text(
    served: Served, expect: Expect
) -> None:
    events = served.wire.events(Said(text=PIECES))
    packer = zlib.compressobj(wbits=31)
    data = packer.compress(body_of(events[:-3])) + packer.flush(zlib.Z_SYNC_FLUSH)
    begin = head(200, "text/event-stream", content_encoding="gzip", transfer_encoding="chunked")
    seen = await observe(await served.play(begin, chunk(data), 0.02, "reset"))
    expect(seen, text=text_of(events[:-3]), error=MidStreamError)


HTTP_FRAMES: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "chunk extensions": (CHUNKED, lambda body: f"{len(body):X};name=value\r\n".encode() + body + b"\r\n0\r\n\r\n"),
    "leading zeros": (CHUNKED, lambda body: f"000{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"),
    "trailers": (CHUNKED, lambda body: chunk(body) + b"0\r\nx-note: end\r\n\r\n"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", lambda body: body),
    "no reason phrase": (
        b"HTTP/1.1 200\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n",
        lambda body: body,
    ),
    "early hints": (b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n" + CHUNKED, lambda body: chunk(body) + LAST_CHUNK),
}


@pytest.mark.parametrize("frame", HTTP_FRAMES, ids=HTTP_FRAMES)
async def test_every_lawful_http_framing_is_read(frame: str, served: Served, expect: Expect) -> None:
    begin, framed = HTTP_FRAMES[frame]
    body = body_of(served.wire.events(Said(text=PIECES)))
    expect(await observe(await served.play(begin + framed(body))), text=WORDS, finish="stop", usage=USAGE, error=None)


async def test_the_terminal_event_ends_the_answer_although_the_connection_goes_on(
    served: Served, expect: Expect
) -> None:
    body = body_of(served.wire.events(Said(text=PIECES)))
    seen = await observe(await served.play(CHUNKED, chunk(body), 19))
    expect(seen, text=WORDS, finish="stop", usage=USAGE, outcome="completed", error=None)
    await served.client_leaves(2)


async def test_nothing_after_the_terminal_event_counts(served: Served, expect: Expect) -> None:
    events = served.wire.events(Said(text=PIECES))
    again = body_of(events) + b"data: <html>\n\n" + served.wire.error_event("overloaded_error", "Overloaded")
    seen = await served.streamed(body_of(events), again)
    expect(seen, text=WORDS, finish="stop", usage=USAGE, error=None)


@on_anthropic
async def test_a_repeated_beginning_is_passed_over(served: Served, expect: Expect) -> None:
    events = served.wire.events(Said(text=PIECES))
    seen = await served.streamed(body_of([events[0], *events]))
    expect(seen, text=WORDS, finish="stop", usage=USAGE, error=None)


@on_anthropic
async def test_a_repeated_beginning_in_the_middle_is_passed_over(served: Served, expect: Expect) -> None:
    events = served.wire.events(Said(text=PIECES))
    seen = await served.streamed(body_of([*events[:5], events[0], *events[5:]]))
    expect(seen, text=WORDS, finish="stop", usage=USAGE, error=None)


@on_anthropic
async def test_another_message_before_any_text_takes_the_place_of_the_first(served: Served, expect: Expect) -> None:
    events = served.wire.events(Said(text=PIECES))
    other = events[0].data.replace(b"msg_01ABC", b"msg_01XYZ")
    seen = await served.streamed(events[0].data, other, body_of(events[1:]))
    expect(seen, text=WORDS, finish="stop", usage=USAGE, error=None)


@on_anthropic
async def test_another_message_after_text_is_malformed_and_the_text_is_kept(served: Served, expect: Expect) -> None:
    events = served.wire.events(Said(text=PIECES))
    other = body_of(events).replace(b"msg_01ABC", b"msg_01XYZ")
    seen = await served.streamed(body_of(events[:5]) + other)
    expect(seen, text=text_of(events[:5]), error=MalformedResponseError)


async def test_a_stream_that_the_simulator_splices_is_never_taken_for_whole(
    door: Door, simulator: ProviderSimulator, expect: Expect
) -> None:
    simulator.faults.add(Fault(kind="splice", after_chunks=3))
    seen = await observe((await door.open(simulator.base_url)).stream(door.ask()))
    wire: Wire = door.wire.name
    if wire == "anthropic":
        expect(seen, error=MalformedResponseError)
    else:
        # Chunks of the format name their answer, but a splice of an opening changes nothing that is shown.
        expect(seen, error=None, finish="stop")
