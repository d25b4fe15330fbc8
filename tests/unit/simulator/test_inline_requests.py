"""The reader of message batches: the same requests however their bytes arrive, and never more of them in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance_agent.provider_simulator.batches.inline_requests import InlineRequests
from guidance_agent.provider_simulator.wire_errors import ProviderError

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def read(raw: bytes, cuts: list[int]) -> list[Any]:
    reader = InlineRequests()
    found: list[Any] = []
    start = 0
    for end in sorted(cut % (len(raw) + 1) for cut in cuts):
        found += reader.feed(raw[start:end])
        start = end
    return [*found, *reader.feed(raw[start:], last=True)]


@settings(max_examples=100, deadline=None)
@given(
    requests=st.lists(VALUE, max_size=5),
    before=st.dictionaries(TEXT.filter(lambda name: name != "requests"), VALUE, max_size=2),
    after=st.dictionaries(TEXT.filter(lambda name: name != "requests"), VALUE, max_size=2),
    cuts=st.lists(st.integers(min_value=0, max_value=5_000), max_size=12),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
)
def test_requests_are_the_same_however_their_bytes_arrive(
    requests: list[Any],
    before: dict[str, Any],
    after: dict[str, Any],
    cuts: list[int],
    indent: int | None,
    ascii_only: bool,
) -> None:
    body = {**before, "requests": requests, **{key: value for key, value in after.items() if key not in before}}
    raw = json.dumps(body, indent=indent, ensure_ascii=ascii_only).encode()
    assert read(raw, cuts) == json.loads(raw)["requests"]


@given(cuts=st.lists(st.integers(min_value=0, max_value=5_000), max_size=6), end=st.integers(min_value=0))
def test_a_body_that_ends_early_is_no_json(cuts: list[int], end: int) -> None:
    raw = json.dumps({"a": 1.5, "requests": [{"custom_id": "ä"}, {"custom_id": "b"}]}, ensure_ascii=False).encode()
    with pytest.raises(ProviderError, match="is not valid JSON"):
        read(raw[: end % len(raw)], cuts)


def test_what_has_been_read_is_dropped() -> None:
    reader = InlineRequests()
    entry = json.dumps({"custom_id": "a", "params": {"text": "long " * 1_000}}).encode()
    assert list(reader.feed(b'{"requests": [')) == []
    for _ in range(50):
        assert len(list(reader.feed(entry + b","))) == 1
        assert len(reader.__dict__["_text"]) < 10
