"""What leaves: cut at a known length, redacted before it is cut, and readable by every back end."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.tracing import Span
from guidance_agent.tracing.memory import tracing_in_memory
from guidance_agent.tracing.otlp import encode
from guidance_agent.tracing.preparing import LONGEST_VALUE, MARGIN, FinishedSpan, NoRedaction, Preparation

MARK = re.compile(r" … \[cut: ([\d,]+) characters in all\]\Z")


class Seen:
    """A redactor that notes what it was asked, and takes out every `SECRET` and every name."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.calls = 0

    def redact(self, key: str, value: str, names: tuple[str, ...]) -> str:
        self.keys.add(key)
        self.calls += 1
        for word in ("SECRET", *names):
            value = value.replace(word, "[out]")
        return value


def made(fill: object, redactor: Seen | None = None) -> FinishedSpan:
    tracing, _ = tracing_in_memory()
    span = tracing.span("turn", "AGENT")
    fill(span)  # type: ignore[operator]
    span.end()
    tracing.close(5)
    return Preparation(redactor or NoRedaction()).prepare(span)


def test_every_place_of_a_span_is_redacted() -> None:
    redactor = Seen()

    def fill(span: Span) -> None:
        span.share({"session.id": "SECRET"}, names=("Janet",))
        span.set({"input.value": "Janet has a SECRET", "tags": ["SECRET", "b"], "odd": {"a": "SECRET"}})  # type: ignore[dict-item]
        span.event("attempt", {"reason": "Janet's SECRET"})
        span.fail(ValueError("Janet SECRET"))

    span = made(fill, redactor)
    body = encode([span], {}, version="1").SerializeToString()
    assert b"SECRET" not in body
    assert b"Janet" not in body
    assert {
        "name",
        "status",
        "session.id",
        "input.value",
        "tags",
        "odd",
        "reason",
        "exception.message",
    } <= redactor.keys


@pytest.mark.parametrize("length", [LONGEST_VALUE, LONGEST_VALUE + 1, LONGEST_VALUE + MARGIN + 1, 1_000_000])
def test_long_values_are_cut_with_a_mark(length: int) -> None:
    value = made(lambda span: span.set({"input.value": "x" * length})).attributes["input.value"]
    assert isinstance(value, str)
    mark = MARK.search(value)
    if length <= LONGEST_VALUE:
        assert value == "x" * length
    else:
        assert mark is not None
        assert mark[1] == f"{length:,}"
        assert len(value) <= LONGEST_VALUE + 60
        assert set(value[: mark.start()]) == {"x"}


def test_nothing_that_is_cut_in_half_escapes_redaction() -> None:
    preparation = Preparation(Seen())
    tracing, _ = tracing_in_memory()
    for at in range(LONGEST_VALUE - 8, LONGEST_VALUE + MARGIN + 4):
        span = tracing.span("turn", "AGENT", attributes={"input.value": "." * at + "SECRET" + "." * 100_000})
        value = preparation.prepare(span).attributes["input.value"]
        assert isinstance(value, str)
        assert not set("SECRT") & set(value), at
    tracing.close(5)


def test_a_megabyte_costs_its_span_no_megabyte() -> None:
    tracing, _ = tracing_in_memory()
    span = tracing.span("guidance", "LLM")
    span.set({f"llm.input_messages.{number}.message.content": "x" * 1_000_000 for number in range(5)})
    assert span.size < 200_000
    tracing.close(5)


@given(st.text(st.characters(codec=None, categories=None), max_size=200))
def test_any_text_becomes_one_that_can_be_sent_and_stored(text: str) -> None:
    span = made(lambda span: span.set({"input.value": text}))
    value = span.attributes["input.value"]
    assert isinstance(value, str)
    assert "\x00" not in value
    assert value.encode().decode() == value
    assert encode([span], {}, version="1").SerializeToString()


def test_lone_surrogates_and_bytes_become_replacement_characters() -> None:
    span = made(lambda span: span.set({"a": "x\ud800y\x00", "b": b"\xff\xfeok", "pair": "\ud83d\ude00"}))
    assert span.attributes["a"] == "x�y�"
    assert span.attributes["b"] == "��ok"
    assert span.attributes["pair"] == "😀"


def test_values_of_any_kind_are_made_sendable() -> None:
    values: dict[str, object] = {
        "number": 2**70,
        "float": float("nan"),
        "mixed": [1, "two", None],
        "numbers": (1, 2),
        "none": None,
        "mapping": {"a": 1},
        "flag": True,
    }
    span = made(lambda span: span.set(values))
    assert span.attributes["number"] == str(2**70)
    assert span.attributes["mixed"] == ["1", "two"]
    assert span.attributes["numbers"] == [1, 2]
    assert span.attributes["flag"] is True
    assert "none" not in span.attributes
    assert json.dumps(str(span.attributes["mapping"]))
    assert encode([span], {}, version="1").SerializeToString()


def test_long_texts_that_come_again_are_redacted_once() -> None:
    redactor = Seen()
    preparation = Preparation(redactor)
    tracing, _ = tracing_in_memory()
    for _ in range(10):
        span = tracing.span("guidance", "LLM", attributes={"input.value": "the same stable part " * 100})
        span.end()
        preparation.prepare(span)
    tracing.close(5)
    # Once for the text, for the span's name and for its empty status.
    assert redactor.calls == 3


def test_other_names_make_another_text() -> None:
    preparation, tracing = Preparation(Seen()), tracing_in_memory()[0]
    text = "Janet and John " * 100
    found = []
    for name in ("Janet", "John"):
        span = tracing.span("guidance", "LLM")
        span.share({}, names=(name,))
        span.set({"input.value": text})
        span.end()
        found.append(preparation.prepare(span).attributes["input.value"])
    tracing.close(5)
    assert found == [text.replace("Janet", "[out]"), text.replace("John", "[out]")]


def test_what_is_the_same_for_everybody_is_redacted_once_for_all() -> None:
    redactor, tracing = Seen(), tracing_in_memory()[0]
    preparation = Preparation(redactor)
    stable = "Nobody's stable part of every prompt. " * 100
    found = []
    for name in ("Janet", "John", "Amir", "Nobody", "Zoë"):
        span = tracing.span("guidance", "LLM")
        span.share({}, names=(name,))
        span.set({"llm.input_messages.0.message.content": stable})
        span.end()
        found.append(preparation.prepare(span).attributes["llm.input_messages.0.message.content"])
    tracing.close(5)
    assert found == [stable, stable, stable, stable.replace("Nobody", "[out]"), stable]
    # The first customer's, everybody's, and that of the one whose name is in it; names and statuses besides.
    assert redactor.calls == 3 + 5 * 2


def test_an_id_that_holds_personal_data_becomes_a_pseudonym_of_its_own() -> None:
    tracing, _ = tracing_in_memory()
    preparation = Preparation(Seen(), key=b"key")
    found = []
    for consultation in ("chat-77", "SECRET-1", "SECRET-2", "SECRET-1"):
        span = tracing.span("turn", "AGENT", attributes={"session.id": consultation})
        span.end()
        found.append(preparation.prepare(span).attributes["session.id"])
    tracing.close(5)
    assert found[0] == "chat-77"
    assert found[1] == found[3] != found[2]
    assert "SECRET" not in str(found)


def test_words_of_the_program_are_left_alone() -> None:
    redactor = Seen()
    attributes = {
        "guidance.outcome": "SECRET",
        "llm.model_name": "SECRET",
        "retrieval.documents.0.document.id": "SECRET",
    }
    span = made(lambda span: span.set(attributes), redactor)
    assert {span.attributes[key] for key in attributes} == {"SECRET"}
    assert not redactor.keys & attributes.keys()
