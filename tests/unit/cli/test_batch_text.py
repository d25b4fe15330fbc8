"""What a report of the jobs tells a person, and what its outcome is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from guidance_agent.cli.batch_progress import shown_progress
from guidance_agent.cli.batch_text import cancelled_as_text, report_as_text
from guidance_agent.cli.margin import Margin
from guidance_agent.core.batch_jobs import JobProgress, JobReport, Money, WorkReport

PAID = Money(cost_usd=1.5, interactive_usd=3.0, input_tokens=1_000, cache_read_tokens=900)


def report(*works: WorkReport) -> JobReport:
    return JobReport(
        run_id="run_1",
        job="nightly",
        started_at=datetime(2026, 11, 21, 2, tzinfo=UTC),
        seconds=4.2,
        rounds=3,
        works=works,
    )


def test_a_report_tells_items_money_and_how_everything_stands() -> None:
    work = WorkReport(
        name="reflection", opened=500, submitted=1_500, answered=1_200, applied=1_200, failed=3,
        waiting={"refine": 497}, ended={"draft": 12}, money=PAID,
    )  # fmt: skip
    told = report_as_text(report(work))
    assert report(work).outcome == "done"
    for expected in (
        "1,500", "reflection goes on: 497 refine.", "reflection has ended, in all runs: 12 draft.",
        "Paid $1.5000; the same at once would have cost $3.0000: $1.5000 (50.0%) saved.",
        "90% of 1,000 input tokens were read from a cache.", "took 4.2 s, in 3 rounds",
    ):  # fmt: skip
        assert expected in told
    assert "Simulated" not in told


def test_a_report_of_nothing_says_that_nothing_was_submitted() -> None:
    assert "nothing was submitted, and nothing waits" in report_as_text(report(WorkReport(name="audit")))


def test_what_was_cancelled_is_counted_in_words_that_fit() -> None:
    assert [cancelled_as_text(keys).split(";")[0] for keys in ([], ["a"], ["a", "b"])] == [
        "No job is open.\n", "1 job is cancelled", "2 jobs are cancelled",
    ]  # fmt: skip


def test_what_needs_a_person_comes_before_what_passes_and_all_of_it_is_told() -> None:
    delayed = WorkReport(name="audit", delayed=["batch b_1: ProviderUnreachableError"])
    stuck = WorkReport(name="reflection", needs_person=["batch b_2: AuthenticationError"])
    failed = WorkReport(name="insights", error="ValueError: what nobody expected")
    assert [report(*works).outcome for works in ([delayed], [delayed, stuck], [delayed, failed], [])] == [
        "try_later", "needs_person", "needs_person", "done",
    ]  # fmt: skip
    told = report_as_text(report(delayed, stuck, failed))
    assert "audit waits, and is tried again by a later run: batch b_1: ProviderUnreachableError" in told
    assert "reflection needs a person: batch b_2: AuthenticationError" in told
    assert "insights failed and the others went on: ValueError: what nobody expected" in told


def test_what_has_no_price_is_unknown_and_never_nothing() -> None:
    unpriced = Money(cost_usd=None, interactive_usd=None, unpriced=7)
    told = report_as_text(report(WorkReport(name="audit", submitted=7, money=unpriced), WorkReport(name="insights")))
    assert "What it cost is not known: 7 items of models without a price" in told
    assert "unknown" in told
    both = unpriced.plus(PAID)
    assert (both.cost_usd, both.unpriced, both.saved_usd) == (1.5, 7, 1.5)
    assert (unpriced.saved_usd, unpriced.saved_share, Money().saved_share, Money().cache_read_share) == (None,) * 4


def test_a_log_has_one_line_for_each_change_while_a_run_waits(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress(Margin(notes=True)) as told:
        assert told is not None
        for answered, doing in ((0, "moving on: audit"), (0, "waiting for 2 batches"), (0, "waiting for 2 batches")):
            told(JobProgress(answered=answered, items=9, doing=doing))
        told(JobProgress(answered=4, items=9, doing="waiting for 1 batches"))
    assert capsys.readouterr().err.splitlines() == [
        "waiting for 2 batches; 0 of 9 items answered",
        "waiting for 1 batches; 4 of 9 items answered",
    ]
    with shown_progress(Margin(notes=False)) as told:
        assert told is None
