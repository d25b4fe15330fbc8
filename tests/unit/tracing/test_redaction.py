"""Personal data becomes marks; figures, statutes, bodies and identifiers of ours stay as they are."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance_agent.errors import ConfigurationError
from guidance_agent.settings import Amounts
from guidance_agent.tracing.redaction import Redactor
from tests.personal_data.corpus import planted

ROOT = Path(__file__).parents[3]
KNOWLEDGE = ROOT / "src" / "guidance_agent" / "knowledge"
ORDINARY = ROOT / "tests" / "compliance_sentences" / "ordinary_development.jsonl"
SAY_WHEN_THEY_WERE_BORN = {"ord-36", "ordb-0104", "ordb-0221", "ordc-0139", "ordd-0134", "ord5-010", "ord5-047"}
TELL_OF_SOMEBODY = {"ordd-0112", "ordd-0318", "ordd-0420", "ord5-099"}

REDACTOR = Redactor()


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("My name is Isolde Fanshawe.", "My name is [NAME]."),
        ("NI QQ 12 34 56 C, please", "NI [NI NUMBER], please"),
        ("+44 (0) 7700 900123 or jane@example.org", "[PHONE] or [EMAIL]"),
        ("60-83-71 31926819", "[SORT CODE] [ACCOUNT NUMBER]"),
        ("born on 14 March 1959 in BS35 2AB", "born on [DATE OF BIRTH] in [POSTCODE]"),
        (
            '{"account_number": 31926819, "total_tokens": 31926819}',
            '{"account_number": [ACCOUNT NUMBER], "total_tokens": 31926819}',
        ),
        (r"{\"phone\": \"07700\u0020900123\", \"age\": 61}", r"{\"phone\": \"[PHONE]\", \"age\": 61}"),
        ("I live at 14 Mill Lane, Thornbury, BS35 2AB, with my cat", "I live at [ADDRESS], [POSTCODE], with my cat"),
        ("policy number HL-4471923-B (drawdown)", "policy number [PLAN NUMBER] (drawdown)"),
    ],
)
def test_only_the_data_is_replaced_and_the_mark_says_what_it_was(text: str, marked: str) -> None:
    assert REDACTOR.redact(text) == marked


@pytest.mark.parametrize(
    "text",
    [
        "£38,000 of £210,000, 25% tax-free, £11,973 a year, 4.25% a year, about £12345678 in all",
        "In 2026/27 and 2027-28 the allowance is £60,000; at 55, 57 or 66.",
        "It rises to 57 on 6 April 2028, and was banned in January 2019; born before 6 April 1973 it is 55.",
        "People born between 6 April 1960 and 5 March 1961 reach it in between.",
        '{"prompt_tokens": 12345678, "seed": 87654321, "cost": 0.0123456789, "offsets": [0, 17, 20261121]}',
        "traceparent 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "018f3c2e-7b1a-7c3d-9e4f-0a1b2c3d4e5f turn_0198f3c2e7b1",
        "claude-sonnet-4-5-20250929, gpt-4o-2024-08-06, gemini-2.5-pro, litellm 1.106.2, Python 3.11.9",
        "2026-11-21T13:45:05.123456Z took 1.0712 s; epoch 1763731505, 1763731505123, 1763731505123456789",
        "http://127.0.0.1:6006/v1/traces and https://www.moneyhelper.org.uk/en/pensions-and-retirement/pension-wise",
        "Call MoneyHelper on 0800 011 3797 or Report Fraud on 0300 123 2040, or write to report@phishing.gov.uk.",
        "HMRC, the FCA, Pension Wise, Citizens Advice, the State Pension and Universal Credit may help.",
        "My wife would get half. My husband says no. Dear customer, thank you for asking. I'm Scottish.",
        "COBS 19.4.5R, PRIN 2A.5.10, section 226A, SI 1993/1234, Form P53Z, tax code 1257L M1",
        "The plan pays 5% of 2026 earnings; your scheme has 12345 members; the policy was written in 1998.",
        "",
    ],
)
def test_what_is_not_personal_stays(text: str) -> None:
    assert REDACTOR.redact(text, known=["Margaret Holloway"]) == text


def knowledge_files() -> Iterator[Path]:
    return (path for path in sorted(KNOWLEDGE.rglob("*")) if path.suffix in {".yaml", ".md"})


def test_no_text_of_the_knowledge_is_changed() -> None:
    files = list(knowledge_files())
    assert len(files) > 10
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert REDACTOR.redact(text) == text, path.name


def test_of_ordinary_guidance_only_dates_of_birth_and_people_in_examples_are_changed() -> None:
    changed = set()
    entries = [json.loads(line) for line in ORDINARY.read_text(encoding="utf-8").splitlines()]
    for entry in entries:
        for text in (entry["question"], entry["reply"]):
            marked = REDACTOR.redact(text)
            if marked != text:
                changed.add(entry["id"])
                kind = "[NAME]" if entry["id"] in TELL_OF_SOMEBODY else "[DATE OF BIRTH]"
                assert marked.count("[") - text.count("[") == marked.count(kind)
    assert len(entries) > 400
    assert changed == SAY_WHEN_THEY_WERE_BORN | TELL_OF_SOMEBODY


def test_a_known_name_that_is_an_everyday_word_counts_where_it_is_written_as_a_name() -> None:
    known = ["Will", "Penny", "May"]
    assert REDACTOR.redact("It will cost a penny; on 5 May 2026 it may end.", known=known) == (
        "It will cost a penny; on 5 May 2026 it may end."
    )
    assert REDACTOR.redact("Ask Will, or Penny's adviser.", known=known) == "Ask [NAME], or [NAME]'s adviser."


def test_a_known_name_takes_no_body_with_it() -> None:
    assert REDACTOR.redact("Pension Wise told Mr Wise.", known=["Ernie Wise"]) == "Pension Wise told Mr [NAME]."


def test_a_name_that_a_text_announces_is_found_again_in_it_and_in_other_texts() -> None:
    text = "My wife Ottoline is 58. Would Ottoline's pot grow?"
    assert REDACTOR.redact(text) == "My wife [NAME] is 58. Would [NAME]'s pot grow?"
    assert REDACTOR.redact("Ottoline could wait.", learned=REDACTOR.names_in(text)) == "[NAME] could wait."


@pytest.mark.parametrize("planted_text", planted(), ids=lambda one: one.id)
def test_redacting_twice_changes_nothing_more(planted_text: object) -> None:
    text = getattr(planted_text, "text", "")
    known = getattr(planted_text, "known", ())
    once = REDACTOR.redact(text, known=known)
    assert REDACTOR.redact(once, known=known) == once


def test_what_stands_among_ordinary_sentences_is_found_as_well_as_alone() -> None:
    entries = [json.loads(line) for line in ORDINARY.read_text(encoding="utf-8").splitlines()]
    for number, one in enumerate(planted()):
        before, after = entries[number % len(entries)]["reply"], entries[-1 - number % len(entries)]["reply"]
        text = REDACTOR.redact(f"{before}\n\n{one.text}\n\n{after}", known=one.known)
        assert not one.leaks_in(text), one.id


@pytest.mark.parametrize(
    ("how", "marked"),
    [
        ("keep", 'I have £38,420 and 210k, {"value_gbp": 38420}'),
        ("round", 'I have £40,000 and £200,000, {"value_gbp": 40000}'),
        ("hide", 'I have [AMOUNT] and [AMOUNT], {"value_gbp": [AMOUNT]}'),
    ],
)
def test_amounts_are_kept_rounded_or_hidden(how: Amounts, marked: str) -> None:
    assert Redactor(amounts=how).redact('I have £38,420 and 210k, {"value_gbp": 38420}') == marked


def test_settings_that_name_nothing_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="keep, round or hide"):
        Redactor(amounts="some")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'phones' is no rule"):
        Redactor(without=["phones"])


@settings(max_examples=60, deadline=None)
@given(
    before=st.integers(0, 14_000),
    data=st.sampled_from(["QQ 12 34 56 C", "07700 900123", "jane@example.org", "4929 1234 5678 9012", "BS35 2AB"]),
    joined=st.sampled_from([" ", "\n", "\\n", ", ", ": "]),
)
def test_no_place_in_a_long_text_is_between_two_windows(before: int, data: str, joined: str) -> None:
    text = "pot " * (before // 4) + joined + data + joined + "pension " * 1_000
    assert data not in REDACTOR.redact(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.sampled_from(["", "\\", "%", "&", "£", "0", "my name is "]))
def test_any_text_can_be_redacted(text: str, sign: str) -> None:
    assert isinstance(REDACTOR.redact(sign + text + sign * 3, known=[text]), str)


HOSTILE = {
    "one letter": "a",
    "one digit": "1",
    "spaced digits": "1 ",
    "backslashes": "\\",
    "addresses": "a@a.aa ",
    "ampersands": "&amp;",
    "tags": "<a",
    "percent": "%25",
    "relatives": "my wife ",
    "titles": "Mr A ",
    "labels": '"name": "',
    "sort codes": "12-34-",
    "capitals": "Aa ",
    "quotes": "'\"",
    "combining": "e\u0301",
}


@pytest.mark.slow
@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_time_grows_with_the_length_and_no_faster(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * length)[:length]
        began = time.thread_time()
        REDACTOR.redact(text, known=["Margaret Holloway"])
        return time.thread_time() - began

    seconds(10_000)
    small, large = min(seconds(50_000) for _ in range(3)), seconds(400_000)
    assert large < 8 * small * 4, f"{large:.2f} s for eight times what took {small:.3f} s"
