"""Customers and advisers: what is taken, what is refused and how, and that a profile never changes."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from guidance_agent.core.types import AdvisorProfile, CustomerProfile, Pension
from guidance_agent.errors import CustomerProfileError

FULL: dict[str, Any] = {
    "customer_id": "crm-4711",
    "first_name": "Aoife",
    "age": 58,
    "employment_status": "self-employed",
    "location": "Wales",
    "financial_literacy": "high",
    "communication_needs": ["large print", "short replies"],
    "vulnerabilities": ["recent bereavement"],
    "pensions": [
        {"kind": "dc", "provider": "Larkfield", "value_gbp": 81_250.5},
        {"kind": "db", "annual_income_gbp": 7_400, "transfer_value_gbp": 160_000, "retirement_age": 65},
    ],
    "other_income": "rent of £300 a month",
    "state_pension_forecast_gbp_weekly": 199.1,
    "ni_qualifying_years": 31,
    "dependants": "one",
    "partner": "none",
    "debts_gbp": 0,
    "goals": "stop at 63",
    "notes": "prefers figures",
    "presenting_question": "What is drawdown?",
}
TEXT_FIELDS = [
    "customer_id", "first_name", "employment_status", "location", "other_income", "dependants", "partner", "goals",
    "notes", "presenting_question",
]  # fmt: skip
MONEY_FIELDS = ["state_pension_forecast_gbp_weekly", "debts_gbp"]
NUMBER_FIELDS = [*MONEY_FIELDS, "age", "ni_qualifying_years"]


def customer(**values: object) -> CustomerProfile:
    return CustomerProfile.parse({"customer_id": "c", **values})


def refusal(values: object) -> str:
    with pytest.raises(CustomerProfileError) as caught:
        CustomerProfile.parse(values)
    return str(caught.value)


def faulty_fields(values: object) -> list[str]:
    clauses = refusal(values).removeprefix("customer is not a valid customer profile: ").split("; ")
    return sorted(clause.split(": ")[0] for clause in clauses)


def test_only_the_id_is_needed() -> None:
    assert customer().prompt_values() == {
        "financial_literacy": "medium",
        "communication_needs": [],
        "vulnerabilities": [],
        "pensions": [],
    }


@pytest.mark.parametrize("name", ["presenting_question", "current_question"])
def test_the_question_may_be_called_by_either_name(name: str) -> None:
    profile = customer(**{name: "What is drawdown?"})
    assert profile.presenting_question == profile.current_question == "What is drawdown?"


def test_both_names_of_the_question_at_once_are_refused() -> None:
    assert faulty_fields({"customer_id": "c", "presenting_question": "a", "current_question": "b"}) == [
        "current_question"
    ]


@pytest.mark.parametrize("values", [{}, {"first_name": "Jo"}, {"customer_id": None}, {"customer_id": " \n "}])
def test_a_customer_without_an_id_is_refused(values: dict[str, object]) -> None:
    assert faulty_fields(values) == ["customer_id"]


@pytest.mark.parametrize("values", [None, [], [FULL], "customer_id: c", 7, b"{}"])
def test_what_is_not_an_object_is_refused(values: object) -> None:
    assert "customer" in faulty_fields(values)


def test_every_wrong_field_is_named_in_one_error() -> None:
    values = {
        "first_name": 5, "age": "old", "financial_literacy": "expert", "communication_needs": "large print",
        "pensions": [{"kind": "isa"}, {"kind": "dc", "value_gbp": "lots", "retirement_age": 20}], "debts_gbp": [],
        "favourite_colour": "blue",
    }  # fmt: skip
    assert faulty_fields(values) == [
        "age", "communication_needs", "customer_id", "debts_gbp", "favourite_colour", "financial_literacy",
        "first_name", "pensions.0.kind", "pensions.1.retirement_age", "pensions.1.value_gbp",
    ]  # fmt: skip


@pytest.mark.parametrize("field", NUMBER_FIELDS)
@pytest.mark.parametrize("value", [True, False, -1, -0.01, float("nan"), float("inf"), 1e12, "a lot", [1]])
def test_a_number_that_cannot_be_meant_is_refused(field: str, value: object) -> None:
    assert faulty_fields({"customer_id": "c", field: value}) == [field]


@pytest.mark.parametrize("field", ["value_gbp", "annual_income_gbp", "transfer_value_gbp"])
@pytest.mark.parametrize("value", [-0.01, float("nan"), float("-inf"), 1e12, True])
def test_an_amount_of_a_pension_that_cannot_be_meant_is_refused(field: str, value: object) -> None:
    assert faulty_fields({"customer_id": "c", "pensions": [{"kind": "dc", field: value}]}) == [f"pensions.0.{field}"]


def test_numbers_may_come_as_text_the_way_forms_send_them() -> None:
    profile = customer(age="56", debts_gbp="1200.50")
    assert (profile.age, profile.debts_gbp) == (56, 1200.5)


def test_minus_nought_is_nought_so_that_equal_customers_print_alike() -> None:
    minus, plus = customer(debts_gbp=-0.0), customer(debts_gbp=0.0)
    assert minus == plus
    assert json.dumps(minus.prompt_values()) == json.dumps(plus.prompt_values())


@pytest.mark.parametrize("field", TEXT_FIELDS)
@pytest.mark.parametrize("bad", ["\x00", "\x07", "\x1b", "\x0b", "\ud800", "\udfff"])
def test_control_characters_and_lone_surrogates_are_refused_in_every_text(field: str, bad: str) -> None:
    assert faulty_fields({"customer_id": "c", field: f"a{bad}b"}) == [field]


@pytest.mark.parametrize("field", ["communication_needs", "vulnerabilities"])
@pytest.mark.parametrize("bad", ["a\x00b", "a\x1bb"])
def test_control_characters_are_refused_in_every_list(field: str, bad: str) -> None:
    assert faulty_fields({"customer_id": "c", field: ["fine", bad]}) == [field]


@pytest.mark.parametrize("field", ["communication_needs", "vulnerabilities"])
@pytest.mark.parametrize("bad", ["", "  \n", "x" * 2_001, "a\ud800"])
def test_a_list_entry_that_says_nothing_or_too_much_is_refused(field: str, bad: str) -> None:
    assert faulty_fields({"customer_id": "c", field: ["fine", bad]}) == [f"{field}.1"]


def test_line_breaks_tabs_and_the_world_s_scripts_are_taken() -> None:
    text = "first\nsecond\tthird\r\n😀 العربية \u202e 日本"
    assert customer(notes=text, presenting_question=text).notes == text


@pytest.mark.parametrize("field", [name for name in TEXT_FIELDS if name != "presenting_question"])
def test_an_over_long_text_is_refused(field: str) -> None:
    assert faulty_fields({"customer_id": "c", field: "x" * 2_001}) == [field]


def test_a_question_may_be_long_but_not_endless() -> None:
    assert len(customer(presenting_question="x" * 1_000_000).presenting_question or "") == 1_000_000
    assert faulty_fields({"customer_id": "c", "presenting_question": "x" * 1_000_001}) == ["presenting_question"]


def test_a_set_is_taken_in_an_order_that_does_not_depend_on_the_process() -> None:
    needs = {"large print", "British Sign Language", "short replies", "no idioms", "morning calls"}
    assert customer(communication_needs=needs).communication_needs == tuple(sorted(needs))
    assert customer(vulnerabilities=frozenset(needs)).vulnerabilities == tuple(sorted(needs))
    pensions = {Pension(kind="dc", value_gbp=float(n)) for n in range(5)}
    assert [item.value_gbp for item in customer(pensions=pensions).pensions] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_the_order_of_a_list_is_kept() -> None:
    assert customer(vulnerabilities=["z", "a", "m"]).vulnerabilities == ("z", "a", "m")


def test_an_error_does_not_show_what_the_customer_said() -> None:
    private = "-".join(["an", "illness", "kept", "private"])
    with pytest.raises(CustomerProfileError) as caught:
        customer(nots=private, notes=[private], age=private, goals=f"{private}\x00")
    assert private not in "".join(traceback.format_exception(caught.value))


def test_a_prompt_sees_neither_id_nor_question() -> None:
    values = CustomerProfile.parse(FULL).prompt_values()
    assert set(values) == set(FULL) - {"customer_id", "presenting_question"}
    assert "crm-4711" not in json.dumps(values)
    assert "drawdown" not in json.dumps(values)


def test_a_prompt_sees_the_same_values_whatever_the_order_they_came_in() -> None:
    backwards = dict(reversed(list(FULL.items())))
    backwards["pensions"] = [dict(reversed(list(item.items()))) for item in FULL["pensions"]]
    assert json.dumps(CustomerProfile.parse(backwards).prompt_values()) == json.dumps(
        CustomerProfile.parse(FULL).prompt_values()
    )


def test_values_for_the_prompt_survive_storage_as_json() -> None:
    values = CustomerProfile.parse(FULL).prompt_values()
    assert json.loads(json.dumps(values)) == values
    assert CustomerProfile.parse({"customer_id": "c", **values}).prompt_values() == values


def test_a_profile_cannot_be_changed_at_any_depth() -> None:
    profile = CustomerProfile.parse(FULL)
    with pytest.raises(ValidationError):
        profile.age = 20  # type: ignore[misc]
    with pytest.raises(ValidationError):
        profile.pensions[0].value_gbp = 1.0  # type: ignore[misc]
    assert isinstance(profile.pensions, tuple)
    assert isinstance(profile.vulnerabilities, tuple)


def test_what_was_passed_may_change_afterwards_without_changing_the_profile() -> None:
    values = json.loads(json.dumps(FULL))
    profile = CustomerProfile.parse(values)
    before = profile.prompt_values()
    values["pensions"][0]["value_gbp"] = 1
    values["vulnerabilities"].append("x")
    assert profile.prompt_values() == before


def test_equal_profiles_have_equal_hashes() -> None:
    assert hash(CustomerProfile.parse(FULL)) == hash(CustomerProfile.parse(dict(reversed(list(FULL.items())))))
    assert len({CustomerProfile.parse(FULL), CustomerProfile.parse({**FULL, "age": 59})}) == 2


@pytest.mark.parametrize("suffix", [".json", ".JSON", ".txt"])
def test_a_json_file_is_read(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"customer{suffix}"
    file.write_text(json.dumps(FULL), encoding="utf-8")
    assert CustomerProfile.from_file(file) == CustomerProfile.from_file(str(file)) == CustomerProfile.parse(FULL)


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".YAML"])
def test_a_yaml_file_is_read(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"customer{suffix}"
    file.write_text("customer_id: c\nage: 56\npensions:\n  - {kind: dc, value_gbp: 38000}\n", encoding="utf-8")
    assert CustomerProfile.from_file(file) == customer(age=56, pensions=[{"kind": "dc", "value_gbp": 38_000}])


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "customer.json"
    file.write_bytes(b'\xef\xbb\xbf{"customer_id": "c"}')
    assert CustomerProfile.from_file(file) == customer()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("binary.json", b"\xff\xfe\x00\x01"),
        ("binary.yaml", b"\x89PNG\r\n\x1a\n\x00"),
        ("half.json", b'{"customer_id": '),
        ("empty.json", b""),
        ("deep.json", b"[" * 200_000),
        ("deep.yaml", b"[" * 5_000),
        ("list.json", b'[{"customer_id": "c"}]'),
        ("list.yaml", b"- customer_id: c\n"),
        ("empty.yaml", b""),
        ("word.yaml", b"customer"),
        ("tab.yaml", b"customer_id:\n\t- x"),
        ("date.yaml", b"customer_id: c\nnotes: 2026-13-45\n"),
        ("integer.yaml", b"customer_id: c\nage: !!int ''\n"),
        ("truth.yaml", b"customer_id: !!bool c\n"),
        ("moment.yaml", b"customer_id: !!timestamp c\n"),
        ("code.yaml", b"customer_id: !!python/object/apply:os.getcwd []\n"),
        ("circle.yaml", b"customer_id: c\npensions: &all [*all]\n"),
        ("nan.json", b'{"customer_id": "c", "debts_gbp": NaN}'),
        ("surrogate.json", rb'{"customer_id": "c\ud800"}'),
    ],
)
def test_a_file_that_holds_no_customer_is_named_in_a_typed_error(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(CustomerProfileError) as caught:
        CustomerProfile.from_file(file)
    assert repr(str(file)) in str(caught.value)


@pytest.mark.parametrize("path", ["missing.json", ".", "nul\x00.json"])
def test_a_path_that_cannot_be_read_is_named_in_a_typed_error(path: str) -> None:
    with pytest.raises(CustomerProfileError, match="cannot be read") as caught:
        CustomerProfile.from_file(path)
    assert repr(path) in str(caught.value)


def test_the_default_adviser_needs_no_decisions_and_cannot_be_changed() -> None:
    default = AdvisorProfile.default()
    assert default == AdvisorProfile()
    assert default.house_rules == ()
    with pytest.raises(ValidationError):
        default.service_name = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    "values",
    [
        {"name": " "},
        {"service_name": "x" * 201},
        {"house_rules": [""]},
        {"house_rules": ["a\x1b[0m"]},
        {"house_rules": "Be kind."},
        {"advisor_id": ""},
        {"persona": "x"},
    ],
)
def test_an_adviser_that_would_break_the_prompt_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AdvisorProfile(**values)
