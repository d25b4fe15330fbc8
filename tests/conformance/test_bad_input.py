"""Bad input"""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from guidance_agent.errors import (
    MalformedResponseError,
    MidStreamError,
    StreamTruncated,
)
from tests.conformance.byte_server import CHUNKED, LAST_CHUNK, PLAIN, chunk, head
from tests.conformance.expecting import Expect
from tests.conformance.observing import observe
from tests.conformance.serving import Served
from tests.conformance.subjects import SUBJECTS, Wire
from tests.conformance.wires import USAGE, Event, Said, WireFormat, body_of, text_of

SAID = Said(text=("one ", "two ", "three"))
SETTLED = 0.02
"""Seconds for what was sent to arrive before what breaks it."""
UNREADABLE = (MalformedResponseError, MidStreamError, StreamTruncated)


def parted(wire: WireFormat) -> tuple[list[Event], list[Event]]:
    """The events up to the second words, and those after them."""
    events = wire.events(SAID)
    place = [index for index, event in enumerate(events) if event.text][1] + 1
    return events[:place], events[place:]


async def with_event(served: Served, data: str | bytes) -> Any:
    """What is seen of an answer with this event in its middle."""
    before, after = parted(served.wire)
    sent = data if isinstance(data, bytes) else f"data: {data}\n\n".encode()
    return await served.streamed(body_of(before) + sent + body_of(after))


async def test_an_event_of_ten_megabytes_is_read(served: Served, expect: Expect) -> None:
    words = "a pound is £1. " * 625_000
    seen = await served.streamed(body_of(served.wire.events(Said(text=(words,)))))
    assert seen.text == words
    expect(seen, finish="stop", usage=USAGE, error=None)


async def test_an_event_that_never_ends_is_malformed_and_the_text_is_kept(served: Served, expect: Expect) -> None:
    before, _ = parted(served.wire)
    endless: list[bytes] = [chunk(b"x" * (1 << 20))] * 40
    seen = await observe(await served.play(CHUNKED, chunk(body_of(before) + b"data: "), *endless, 19))
    expect(seen, text="one two ", error=MalformedResponseError)
    await served.client_leaves(0.5)


NO_JSON = {
    "web page": "<html>502 Bad Gateway</html>",
    "half an object": '{"type": "content_block_delta", "choices": [',
    "two objects": "{}{}",
    "list": "[]",
    "null": "null",
    "number": "7",
    "text": '"Hello"',
    "deep": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "raw control character": '{"a": "\x01"}',
    "long number": '{"a": ' + "1" * 5_000 + "}",
    "single quotes": "{'a': 1}",
    "done too early": "[DONE]",
}


@pytest.mark.parametrize("data", NO_JSON.values(), ids=NO_JSON)
async def test_data_that_is_no_json_object_is_malformed_and_the_text_is_kept(
    data: str, served: Served, expect: Expect
) -> None:
    seen = await with_event(served, data)
    early_end = data == "[DONE]" and served.wire.name == "openai"
    expect(seen, text="one two ", error=StreamTruncated if early_end else MalformedResponseError)


WRONG_TYPES: dict[Wire, dict[str, str]] = {
    "anthropic": {
        "words that are a number": '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":5}}',
        "words that are null": '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":null}}',
        "delta that is a list": '{"type":"content_block_delta","index":0,"delta":[]}',
        "no delta": '{"type":"content_block_delta","index":0}',
        "message that is a number": '{"type":"message_start","message":7}',
        "tool without a name": (
            '{"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"a"}}'
        ),
        "error that is null": '{"type":"error","error":null}',
        "error that is text": '{"type":"error","error":"busy"}',
    },
    "openai": {
        "words that are a number": '{"choices":[{"index":0,"delta":{"content":5}}]}',
        "delta that is a number": '{"choices":[{"index":0,"delta":5}]}',
        "choices that are a number": '{"choices":5}',
        "choice that is null": '{"choices":[null]}',
        "tool calls that are a number": '{"choices":[{"index":0,"delta":{"tool_calls":5}}]}',
        "error that is text": '{"error":"busy"}',
        "error that is a list": '{"error":["busy"]}',
    },
}


EVERY_WRONG_TYPE = [
    pytest.param(subject, data, id=f"{subject}-{name}")
    for subject in SUBJECTS
    for name, data in WRONG_TYPES[subject.wire].items()
]


@pytest.mark.parametrize(("subject", "data"), EVERY_WRONG_TYPE, indirect=["subject"])
async def test_values_of_the_wrong_type_are_a_typed_error_that_keeps_the_text(
    data: str, served: Served, expect: Expect
) -> None:
    kind = MidStreamError if '"error"' in data else MalformedResponseError
    expect(await with_event(served, data), text="one two ", error=kind)


NO_HARM = {
    "empty data": b"data:\n\n",
    "blank data": b"data:   \n\n",
    "name without data": b"event: completion\n\n",
    "field without a value": b"data\n\n",
    "unknown field": b"nonsense: 1\n\n",
    "comment": b": \xff\xfe\n\n",
    "keys twice": b'data: {"type": "ping", "type": "ping", "choices": [], "choices": []}\n\n',
    "empty object": b"data: {}\n\n",
}


@pytest.mark.parametrize("data", NO_HARM.values(), ids=NO_HARM)
async def test_events_that_say_nothing_do_no_harm(data: bytes, served: Served, expect: Expect) -> None:
    expect(await with_event(served, data), text="one two three", finish="stop", usage=USAGE, error=None)


async def test_of_two_equal_keys_the_last_counts(served: Served, expect: Expect) -> None:
    name = b'"text":"' if served.wire.name == "anthropic" else b'"content":"'
    body = body_of(served.wire.events(SAID))
    twice = body.replace(name + b"two ", name + b'wrong ",' + name + b"two ")
    assert twice != body
    expect(await served.streamed(twice), text="one two three", finish="stop", error=None)


async def test_bytes_that_are_not_utf_8_are_replaced(served: Served, expect: Expect) -> None:
    body = body_of(served.wire.events(SAID)).replace(b"two ", b"t\xff\xc3o ")
    expect(await served.streamed(body), text="one t\ufffd\ufffdo three", finish="stop", error=None)


async def test_numbers_written_as_text_are_numbers(served: Served, expect: Expect) -> None:
    body = body_of(served.wire.events(SAID)).replace(b'"index":0', b'"index":"0"')
    expect(await served.streamed(body), text="one two three", finish="stop", usage=USAGE, error=None)


async def test_two_finish_events_are_one_finish(served: Served, expect: Expect) -> None:
    events = served.wire.events(SAID)
    place = -2 if served.wire.name == "anthropic" else -3
    body = body_of([*events[:place], events[place], *events[place:]])
    expect(await served.streamed(body), text="one two three", finish="stop", usage=USAGE, error=None)


async def test_of_two_finish_reasons_the_last_counts(served: Served, expect: Expect) -> None:
    cut_off = Said(text=SAID.text, finish="max_tokens" if served.wire.name == "anthropic" else "length")
    place = -2 if served.wire.name == "anthropic" else -3
    events, others = served.wire.events(SAID), served.wire.events(cut_off)
    body = body_of([*events[: place + 1], *others[place:]])
    expect(await served.streamed(body), text="one two three", finish="length", error=None)


async def test_an_answer_without_a_finish_reason_is_not_whole(served: Served, expect: Expect) -> None:
    body = body_of(served.wire.events(SAID)).replace(b'"finish_reason":"stop"', b'"finish_reason":null')
    body = body.replace(b'{"type":"message_stop"   }', b'{"type":"message_over"}')
    expect(await served.streamed(body), text="one two three", error=StreamTruncated)


LABELS = {"none": None, "json": "application/json", "text": "text/plain", "bytes": "application/octet-stream"}


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
async def test_a_stream_with_the_wrong_label_is_known_by_how_it_begins(
    label: str | None, served: Served, expect: Expect
) -> None:
    begin = head(200, label, transfer_encoding="chunked")
    body = b"\xef\xbb\xbf\n" + body_of(served.wire.events(SAID))
    letters = [step for byte in body[:12] for step in (chunk(bytes([byte])), "turn")]
    seen = await observe(await served.play(begin, *letters, chunk(body[12:]), LAST_CHUNK))
    expect(seen, text="one two three", finish="stop", usage=USAGE, error=None)


PAGES = {
    "web page": ("text/html", b"<html><body>Welcome to nginx</body></html>"),
    "login page": ("text/html; charset=utf-8", b"\n\n<!doctype html><p>Sign in"),
    "text": ("text/plain", b"It works!"),
    "other json": ("application/json", b'{"status": "ok"}'),
    "xml": ("application/xml", b"<?xml version='1.0'?><Error/>"),
    "image": ("image/png", b"\x89PNG\r\n\x1a\n" + b"\0" * 50),
    "nothing": ("text/html", b""),
}


@pytest.mark.parametrize(("label", "page"), PAGES.values(), ids=PAGES)
async def test_what_is_no_stream_is_malformed_and_quoted(
    label: str, page: bytes, served: Served, expect: Expect
) -> None:
    seen = await observe(await served.play(head(200, label, content_length=len(page)), page))
    if not page:
        assert seen.error in UNREADABLE
        return
    expect(seen, text="", error=MalformedResponseError, retryable=False)
    assert served.server.base_url in str(seen.failure)


async def test_a_whole_answer_instead_of_a_stream_is_malformed(served: Served, expect: Expect) -> None:
    body = json.dumps(served.wire.whole(SAID)).encode()
    seen = await observe(await served.play(head(200, "application/json", content_length=len(body)), body))
    expect(seen, text="", error=MalformedResponseError)


@pytest.mark.parametrize("status", [200, 204, 205])
async def test_an_empty_answer_is_a_typed_error(status: int, served: Served) -> None:
    seen = await observe(await served.play(head(status, "text/event-stream", content_length=0)))
    assert seen.error in UNREADABLE
    assert seen.text == ""


BAD_CHUNKS = {
    "size that is no number": b"zz\r\nhello\r\n",
    "negative size": b"-5\r\nhello\r\n",
    "size that is too small": b"3\r\nhello\r\n",
    "size beyond all measure": b"f" * 40 + b"\r\nhello\r\n",
    "no line end after it": b"5\r\nhelloworld",
    "no size at all": b"\r\nhello\r\n",
}


@pytest.mark.parametrize("bad", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_chunks_with_bad_sizes_are_a_typed_error_that_keeps_the_text(
    bad: bytes, served: Served, expect: Expect
) -> None:
    before, _ = parted(served.wire)
    seen = await observe(await served.play(CHUNKED, chunk(body_of(before)), SETTLED, bad, 5))
    expect(seen, text=text_of(before), error=MidStreamError, retryable=True)
    await served.client_leaves(0.5)


@pytest.mark.parametrize("begun", [b"5", b"0" * 20_000, b"5;" + b"x" * 20_000, b"500\r\ndata"], ids=len)
async def test_a_chunk_that_does_not_go_on_is_a_typed_error_that_keeps_the_text(
    begun: bytes, served: Served, expect: Expect
) -> None:
    before, _ = parted(served.wire)
    seen = await observe(await served.play(CHUNKED, chunk(body_of(before)), SETTLED, begun, SETTLED))
    expect(seen, text=text_of(before), error=MidStreamError, retryable=True)


@pytest.mark.parametrize("bad", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_chunks_with_bad_sizes_that_arrive_with_the_head_are_a_typed_error(bad: bytes, served: Served) -> None:
    before, _ = parted(served.wire)
    seen = await observe(await served.play(CHUNKED + chunk(body_of(before)) + bad))
    assert seen.error in UNREADABLE
    assert text_of(before).startswith(seen.text)


async def test_a_body_that_is_shorter_than_its_length_is_an_error_that_keeps_the_text(
    served: Served, expect: Expect
) -> None:
    before, _ = parted(served.wire)
    begin = head(200, "text/event-stream", content_length=len(body_of(before)) + 50)
    seen = await observe(await served.play(begin, body_of(before), SETTLED))
    expect(seen, text=text_of(before), error=MidStreamError)


async def test_nothing_after_the_length_of_a_body_counts(served: Served, expect: Expect) -> None:
    before, after = parted(served.wire)
    begin = head(200, "text/event-stream", content_length=len(body_of(before)))
    seen = await observe(await served.play(begin, body_of(before), SETTLED, body_of(after)))
    expect(seen, text=text_of(before), error=StreamTruncated)


PACKED = {
    "not compressed": ("gzip", b"data: {}\n\n"),
    "unknown": ("x-unheard-of", b"data: {}\n\n"),
    "broken": ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff\xff\xff"),
    "broken deflate": ("deflate", b"\x78\x9c\xff\xff\xff\xff"),
}


@pytest.mark.parametrize(("encoding", "body"), PACKED.values(), ids=PACKED)
async def test_a_body_that_cannot_be_unpacked_is_a_typed_error(encoding: str, body: bytes, served: Served) -> None:
    begin = head(200, "text/event-stream", content_encoding=encoding, content_length=len(body))
    seen = await observe(await served.play(begin, body, 0.02))
    assert seen.error in UNREADABLE
    assert seen.text == ""


async def test_a_compressed_stream_that_is_a_bomb_is_a_typed_error(served: Served) -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b"x" * (1 << 20)) for _ in range(40)) + packer.flush()
    assert len(bomb) < 100_000
    begin = head(200, "text/event-stream", content_encoding="gzip", content_length=len(bomb))
    seen = await observe(await served.play(begin, bomb, 0.02))
    assert seen.error in UNREADABLE
    assert seen.text == ""


NO_ANSWERS = {
    "empty": b"",
    "web page": b"<html>",
    "list": b"[]",
    "null": b"null",
    "number": b"7",
    "text": b'"Hello"',
    "empty object": b"{}",
    "deep": b"[" * 100_000,
    "not utf-8": b'{"content": "\xff\xfe", "choices": "\xff"}',
    "event stream": b"data: {}\n\n",
}


@pytest.mark.parametrize("body", NO_ANSWERS.values(), ids=NO_ANSWERS)
async def test_a_whole_answer_that_is_none_is_malformed(body: bytes, served: Served, expect: Expect) -> None:
    expect(await served.whole(body), text="", error=MalformedResponseError, retryable=False)


def broken_answers(wire: WireFormat) -> dict[str, dict[str, Any]]:
    whole = wire.whole(SAID)
    if wire.name == "anthropic":
        return {
            "no words": {name: value for name, value in whole.items() if name != "content"},
            "words that are a number": whole | {"content": 5},
            "block that is null": whole | {"content": [None]},
            "block without words": whole | {"content": [{"type": "text"}]},
            "no finish reason": {name: value for name, value in whole.items() if name != "stop_reason"},
        }
    [choice] = whole["choices"]
    return {
        "no words": whole | {"choices": []},
        "words that are a number": whole | {"choices": [choice | {"message": {"content": 5}}]},
        "block that is null": whole | {"choices": [None]},
        "block without words": whole | {"choices": [{"index": 0, "finish_reason": "stop"}]},
        "no finish reason": whole | {"choices": [choice | {"finish_reason": None}]},
    }


@pytest.mark.parametrize(
    "broken", ["no words", "words that are a number", "block that is null", "block without words", "no finish reason"]
)
async def test_a_whole_answer_without_its_parts_is_malformed(broken: str, served: Served, expect: Expect) -> None:
    body = json.dumps(broken_answers(served.wire)[broken]).encode()
    expect(await served.whole(body), text="", error=MalformedResponseError)


async def test_a_whole_answer_may_say_its_usage_oddly(served: Served, expect: Expect) -> None:
    first, last = served.wire.usage_fields
    usage = {**served.wire.usage, first: str(served.wire.usage[first]), last: 77.0, "extra": {"x": None}}
    seen = await served.whole(json.dumps(served.wire.whole(Said(text=("Hi.",), usage=usage))).encode())
    expect(seen, text="Hi.", usage=USAGE, finish="stop", error=None)


async def test_a_plain_body_that_ends_with_the_connection_may_be_whole(served: Served, expect: Expect) -> None:
    seen = await observe(await served.play(PLAIN, body_of(served.wire.events(SAID))))
    expect(seen, text="one two three", finish="stop", usage=USAGE, error=None)
