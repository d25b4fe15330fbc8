"""Spans as they leave: every place of them is redacted, people that a turn knows of are found, and it fails closed."""

from __future__ import annotations

import pytest

from guidance_agent.tracing import redaction
from guidance_agent.tracing.memory import tracing_in_memory
from guidance_agent.tracing.people import Told, people_of
from guidance_agent.tracing.preparing import FinishedSpan, Preparation
from guidance_agent.tracing.redaction import FAILED, Redactor
from guidance_agent.tracing.redaction_spans import SpanRedaction

JANET = {"first_name": "Janet", "partner": "married to Ottoline", "dependants": "Tom and Emily", "location": "England"}


def prepared(attributes: dict[str, object], *, event: str = "attempt", names: tuple[str, ...] = ()) -> FinishedSpan:
    tracing, _ = tracing_in_memory()
    span = tracing.span("guidance", "LLM")
    span.share({}, names=names)
    span.set(attributes)  # type: ignore[arg-type]
    span.event(event)
    tracing.close()
    return Preparation(SpanRedaction()).prepare(span)


def test_attributes_of_every_type_are_redacted_and_figures_are_not() -> None:
    redacted = prepared(
        {
            "input.value": "call 07700 900123",
            "tags": ("a", "jane@example.org"),
            "raw": b"call 07700 900123",
            "nested": {"jane@example.org": {"note": "BS35 2AB"}},
            "customer.account_number": 31926819,
            "customer.account_numbers": [31926819, 12],
            "customer.name": "Isolde Fanshawe",
            "user.id": "c0123456789abcdef",
            "llm.token_count.prompt": 12345678,
            "llm.model_name": "claude-sonnet-4-5",
            "tool.name": "Lookup",
            "app.ratio": 0.25,
            "app.flag": True,
        }
    ).attributes
    assert redacted == {
        "openinference.span.kind": "LLM",
        "input.value": "call [PHONE]",
        "tags": ["a", "[EMAIL]"],
        "raw": "call [PHONE]",
        "nested": '{"[EMAIL]": {"note": "[POSTCODE]"}}',
        "customer.account_number": "[ACCOUNT NUMBER]",
        "customer.account_numbers": ["[ACCOUNT NUMBER]", "12"],
        "customer.name": "[NAME]",
        "user.id": "c0123456789abcdef",
        "llm.token_count.prompt": 12345678,
        "llm.model_name": "claude-sonnet-4-5",
        "tool.name": "Lookup",
        "app.ratio": 0.25,
        "app.flag": True,
    }


def test_names_of_attributes_and_events_are_redacted_too() -> None:
    keys = {"app.jane@example.org": 1, "metadata.07700 900123": 2, "app.margaret": 3, "guidance.turn_id": "t"}
    span = prepared(keys, event="rang 07700 900123", names=("Margaret Holloway",))
    assert span.attributes.keys() == {
        *("openinference.span.kind", "guidance.turn_id", "[EMAIL]", "metadata.[PHONE]", "app.[NAME]")
    }
    assert span.events[0].name == "rang [PHONE]"


def test_the_answer_does_not_say_what_the_question_was_relieved_of() -> None:
    spans = SpanRedaction()
    assert "Ottoline" not in spans.redact("input.value", "My wife Ottoline is 58.", ("Ernest",))
    assert spans.redact("output.value", "Ottoline could wait.", ("Ernest",)) == "[NAME] could wait."
    assert spans.redact("output.value", "Ottoline could wait.", ("Somebody",)) == "Ottoline could wait."
    assert spans.redact("name", "guidance", ()) == "guidance"


def test_people_of_whom_only_the_profile_tells_are_redacted() -> None:
    names = people_of("c-8812", JANET)
    assert names[:2] == ("Janet", "c-8812") and all(isinstance(one, Told) for one in names[2:])
    text = "ottoline and Tom said, in England, that c-8812 could wait; JANET is married."
    redacted = SpanRedaction().redact("input.value", text, names)
    assert redacted == "[NAME] and [NAME] said, in England, that [NAME] could wait; [NAME] is married."


def test_of_a_sentence_about_other_people_only_the_names_are_looked_for() -> None:
    text = "My partner was once married to ottoline."
    assert Redactor().redact(text, known=people_of("c-8812", JANET)) == "My partner was once married to [NAME]."
    assert Redactor().redact_key("ottoline.partner", known=people_of("c-8812", JANET)) == "[NAME].partner"


def test_a_profile_that_tells_of_nobody_names_nobody() -> None:
    assert people_of("c-1", {"first_name": None, "partner": 7}) == ()


def test_what_cannot_be_redacted_is_never_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise RuntimeError("call 07700 900123")

    monkeypatch.setattr(redaction, "readings", broken)
    assert SpanRedaction().redact("input.value", "call 07700 900123", ()) == FAILED
