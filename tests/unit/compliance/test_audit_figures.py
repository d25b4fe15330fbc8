"""The figures of an audit are those that a person would count."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.compliance.audit_figures import Agreement, week_of
from guidance_agent.compliance.audit_tally import AuditTally
from tests.unit.compliance.audited import audited, verdict


def as_it_is(text: str, names: tuple[str, ...]) -> str:
    return text


@pytest.fixture
def tally() -> AuditTally:
    return AuditTally(as_it_is)


def agreement(both: int, first: int, second: int, neither: int) -> Agreement:
    return Agreement("a", "b", both, first, second, neither)


def test_kappa_is_the_one_of_a_table_worked_out_by_hand() -> None:
    # 20 and 15 of 50 alike: observed 0.70; they pass 25 and 30 of 50: expected 0.5 · 0.6 + 0.5 · 0.4 = 0.50.
    found = agreement(20, 5, 10, 15)
    assert found.answers == 50
    assert found.observed == pytest.approx(0.70)
    assert found.expected == pytest.approx(0.50)
    assert found.kappa == pytest.approx(0.40)


def test_there_is_no_kappa_where_chance_would_agree_as_well() -> None:
    assert agreement(0, 0, 0, 0).kappa is None
    assert agreement(9, 0, 0, 0).kappa is None
    assert agreement(9, 0, 0, 0).observed == 1.0
    assert agreement(5, 0, 0, 4).kappa == pytest.approx(1.0)
    assert agreement(0, 5, 5, 0).kappa == pytest.approx(-1.0)


counts = st.integers(min_value=0, max_value=1_000)


@given(counts, counts, counts, counts)
def test_kappa_is_at_most_the_observed_agreement_and_the_same_both_ways(a: int, b: int, c: int, d: int) -> None:
    there, back = agreement(a, b, c, d), agreement(a, c, b, d)
    assert there.kappa == back.kappa or there.kappa == pytest.approx(back.kappa)
    if there.kappa is not None and there.observed is not None:
        assert -1.0001 <= there.kappa <= there.observed + 1e-9


def test_what_became_of_answers_is_counted_by_week_model_judge_and_version(tally: AuditTally) -> None:
    tally.add(audited("t1", days=0, rules_version=1))
    tally.add(audited("t2", days=7, rules_version=2, audit=verdict("scam")))
    tally.add(audited("t3", days=8, rules_version=None, model="m", audit=verdict(unreadable="no JSON", judge="j")))
    assert (tally.total.audited, tally.total.passed, tally.total.failed, tally.total.unreadable) == (3, 1, 1, 1)
    assert {week: figures.audited for week, figures in tally.by["week"].items()} == {"2026-W37": 1, "2026-W38": 2}
    assert {name: figures.passed for name, figures in tally.by["rules"].items()} == {"1": 1, "2": 0, "none": 0}
    assert set(tally.by["model"]) == {"anthropic/claude-sonnet-5-5", "m"}
    assert tally.by["judge"]["j"].unreadable == 1
    assert tally.total.share_passed == pytest.approx(1 / 3)


def test_a_check_counts_once_for_each_answer_by_its_gravest_finding(tally: AuditTally) -> None:
    low, critical = verdict("scam", severity="low"), verdict("scam", severity="critical")
    both = low.model_copy(update={"checks": (*low.checks, *critical.failures)})
    tally.add(audited("t1", audit=both))
    tally.add(audited("t2", audit=verdict(not_applicable=["scam"])))
    tally.add(audited("t3", audit=verdict(unreadable="no JSON")))
    scam = tally.checks["scam"]
    assert (scam.passed, scam.failed, scam.not_applicable, scam.not_answered) == (0, 1, 1, 1)
    assert tally.severities == {"critical": 1, "high": 0, "medium": 0, "low": 0}


def test_money_is_added_up_and_what_has_no_price_is_counted(tally: AuditTally) -> None:
    tally.add(audited("t1", audit=verdict(cost_usd=0.25)))
    tally.add(audited("t2", audit=verdict(cost_usd=None)))
    assert (tally.cost_usd, tally.unpriced) == (0.25, 1)


def test_answers_about_which_all_agree_are_not_listed(tally: AuditTally) -> None:
    tally.add(audited("t1"))
    tally.add(
        audited("t2", first=verdict("advice_boundary"), audit=verdict("advice_boundary"), flagged=["advice_boundary"])
    )
    tally.add(audited("t3", first=verdict("signposting"), audit=verdict("signposting")))
    assert tally.disagreements == []
    assert tally.first_and_audit.observed == 1.0


def test_a_disagreement_says_who_found_what_where_and_by_which_requirement(tally: AuditTally) -> None:
    tally.add(audited("t1", audit=verdict("advice_boundary"), review="open"))
    (turn,) = tally.disagreements
    assert (turn.turn_id, turn.first, turn.audit, turn.review) == ("t1", "passed", "failed", "open")
    (check,) = turn.checks
    assert (check.check, check.broken, check.kept) == ("advice_boundary", ["audit"], ["gate", "first verdict"])
    (said,) = check.statements
    assert (said.by, said.requirement, said.severity) == ("audit", "COBS 9.4.1R", "high")
    assert (said.quote, said.start, said.end) == ("Winnie, if I were you, I woul", 0, 29)
    assert tally.reviews == {"open": 1}


def test_the_gate_disagrees_where_it_flagged_and_they_pass_or_let_pass_and_they_fail(tally: AuditTally) -> None:
    tally.add(audited("t1", flagged=["advice_boundary"]))
    tally.add(audited("t2", first=verdict("figures"), audit=verdict("figures")))
    flagged, let_pass = tally.disagreements
    assert flagged.checks[0].broken == ["gate"]
    assert flagged.checks[0].statements[0].quote == "if I were you, I woul"
    assert let_pass.checks[0].kept == ["gate"]
    assert (tally.gate_and_audit.only_first_passed, tally.gate_and_audit.only_second_passed) == (1, 1)


def test_nobody_is_said_to_disagree_with_what_was_not_said(tally: AuditTally) -> None:
    tally.add(audited("t1", unjudged=True, audit=verdict("signposting")))
    assert tally.disagreements == []
    tally.add(audited("t2", audit=verdict(unreadable="no JSON")))
    (turn,) = tally.disagreements
    assert (turn.audit, turn.unreadable, turn.checks) == ("unreadable", "no JSON", [])
    assert tally.first_and_audit.answers == 1
    assert tally.by_check["scam"].answers == 0


def test_quotes_and_explanations_pass_through_redaction() -> None:
    tally = AuditTally(lambda text, names: text.replace(names[0], "[NAME]"))
    tally.add(audited("t1", audit=verdict("advice_boundary")))
    (said,) = tally.disagreements[0].checks[0].statements
    assert said.quote == "[NAME], if I were you, I woul"
    assert said.explanation == "It tells [NAME] what to do."


def test_a_week_is_the_one_of_the_united_kingdom() -> None:
    # Sunday night in UTC is Monday there in summer.
    assert week_of(datetime(2026, 7, 5, 23, 30, tzinfo=UTC)) == "2026-W28"
    assert week_of(datetime(2026, 7, 5, 22, 30, tzinfo=UTC)) == "2026-W27"
    assert week_of(datetime(2027, 1, 1, 12, 0, tzinfo=UTC)) == "2026-W53"
