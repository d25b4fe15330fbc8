"""An insight report in sections, as the terminal, a Markdown file and a page show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from guidance_agent.cli.audit_words import CHECK_NAMES
from guidance_agent.core.insight_counts import RULE_DAYS, DayCounts, VerdictRate
from guidance_agent.core.insight_records import StoredReport
from guidance_agent.core.types import JsonObject
from guidance_agent.learning.insight_answers import insight_labels

__all__ = ["Section", "heading", "report_as_json", "sections", "summary"]

_STATES: Final = {
    "completed": "Given in full",
    "closed_early": "Left before the end",
    "failed": "Ended by an error",
    "process_died": "Ended with its process",
}
_JUDGEMENTS: Final = {
    "passed": "Passed",
    "failed": "Not passed",
    "pending": "Waits for its verdict",
    "unjudged_needs_review": "Could not be judged",
    "nothing_delivered": "Delivered nothing",
}
_ACTIONS: Final = {
    "withheld": "Withheld and replaced",
    "stopped": "Withheld, and the answer ended",
    "flagged": "Shown and put on record",
    "never_shown": "Still held at the end",
    "released_after_ask": "Shown after asking",
    "closing": "Closing material added",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table with what stands before it. The columns named in `figures` hold numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: frozenset[int] = frozenset()
    note: str = ""


def heading(report: StoredReport) -> tuple[str, str]:
    """Return the title of a report, and a line on where it comes from."""
    counts = _counts(report)
    mark = " (simulated)" if report.simulated else ""
    told = [
        f"Revision {report.revision}",
        _many(counts.consultations, "consultation"),
        _many(counts.turns, "turn"),
        f"{counts.read:,} of {_many(counts.consultations, 'consultation')} read",
    ]
    if report.model:
        told.append(f"words by {report.model}")
    if report.refused:
        told.append(f"{_many(report.refused, 'statement')} left out")
    return f"{report.day:%A} {report.day.day} {report.day:%B %Y}{mark}", "; ".join(told) + "."


def summary(report: StoredReport) -> str:
    """Return what a reader should know first, or why there are no words."""
    if report.words is None:
        return f"There are counts and no words. {report.reason or ''}".strip()
    return str(report.words["summary"]) or "The summary held a figure, and was left out."


def sections(report: StoredReport) -> list[Section]:
    """Return the sections of a report that have something to say."""
    counts, words = _counts(report), report.words or {}
    return [section for section in _all(counts, words) if section.rows]


def report_as_json(report: StoredReport) -> JsonObject:
    """Return the report for programs: counts by the names of the records, words with all of their evidence."""
    return {
        "day": report.day.isoformat(),
        "revision": report.revision,
        "outcome": report.outcome,
        "reason": report.reason,
        "simulated": report.simulated,
        "model": report.model,
        "cost_usd": report.cost_usd,
        "made_at": None if report.ended_at is None else report.ended_at.isoformat(),
        "counts": report.counts,
        "words": report.words,
        "statements_left_out": report.refused,
    }


def _all(counts: DayCounts, words: Mapping[str, Any]) -> Iterator[Section]:
    yield _labelled("What it was about", "Topic", counts.topics, words.get("topics", ()), "topic")
    yield Section(
        title="What was misunderstood",
        header=("Misunderstanding", "Topic", "Consultations", "Which"),
        rows=tuple(
            (each["words"], _title(each["topic"]), f"{len(each['evidence']):,}", _named(each["evidence"]))
            for each in words.get("misunderstandings", ())
        ),
        figures=frozenset({2}),
        note="A statement names the consultations that it rests on; there may be others.",
    )
    yield _counted("Verdicts", "Answers", counts.judgements, _JUDGEMENTS)
    yield _counted("Checks that failed", "Answers", counts.failed_checks, CHECK_NAMES)
    yield _labelled("Why answers failed", "Cause", counts.causes, words.get("causes", ()), "cause")
    yield _counted("How answers ended", "Answers", counts.states, _STATES)
    yield _counted("Errors", "Answers", counts.errors, {})
    yield Section(
        title="What the gate did",
        header=("Action", "Check", "Times"),
        rows=tuple(
            (_ACTIONS.get(action, action), _plain(check), f"{count:,}")
            for action, checks in counts.gate_actions.items()
            for check, count in checks.items()
        ),
        figures=frozenset({2}),
    )
    yield _counted(
        "For people", "Number", _without_nothing({"corrections": counts.corrections, "reviews": counts.reviews}), {}
    )
    yield Section(
        title="Verdicts by version of the rules",
        header=("Version", "Judged", "Not passed", "Share"),
        rows=tuple((str(each.version) if each.version else "none", *_rate(each.rate)) for each in counts.versions),
        figures=frozenset({1, 2, 3}),
        note=f"Answers of the last {RULE_DAYS} days, by the version that they were written with.",
    )
    yield Section(
        title="Verdicts with and without each rule",
        header=("Rule", "Judged with", "Not passed", "Share", "Judged without", "Not passed", "Share"),
        rows=tuple((each.text, *_rate(each.with_rule), *_rate(each.without_rule)) for each in counts.rules),
        figures=frozenset(range(1, 7)),
        note="Other things changed between the versions, too: a difference is a reason to look, and no proof.",
    )


def _labelled(
    title: str, what: str, counted: Mapping[str, int], said: Sequence[Mapping[str, Any]], key: str
) -> Section:
    """Return counts by label, each with the statements about it."""
    rows: list[tuple[str, ...]] = []
    for name, count in counted.items():
        about = [each for each in said if each[key] == name]
        words = " ".join(each["words"] for each in about)
        evidence = list(dict.fromkeys(one for each in about for one in each["evidence"]))
        rows.append((_title(name), f"{count:,}", words, _named(evidence)))
    header = (what, "Consultations", "In words", "Which of them")
    return Section(title=title, header=header, rows=tuple(rows), figures=frozenset({1}))


def _counted(title: str, unit: str, counts: Mapping[str, int], names: Mapping[Any, str]) -> Section:
    rows = tuple((names.get(name, _plain(name)), f"{count:,}") for name, count in counts.items())
    return Section(title=title, header=("", unit), rows=rows, figures=frozenset({1}))


def _rate(rate: VerdictRate) -> tuple[str, str, str]:
    share = rate.failed_share
    return f"{rate.judged:,}", f"{rate.failed:,}", "–" if share is None else f"{share:.1%}"


def _named(ids: Sequence[str], most: int = 3) -> str:
    left = len(ids) - most
    return ", ".join(ids[:most]) + (f" and {left:,} more" if left > 0 else "")


def _counts(report: StoredReport) -> DayCounts:
    return DayCounts.model_validate(report.counts)


def _title(name: str) -> str:
    return insight_labels().title(name)


def _plain(name: str) -> str:
    return name if any(letter.isupper() for letter in name) else name.replace("_", " ").capitalize()


def _without_nothing(counts: Mapping[str, int]) -> Mapping[str, int]:
    return {name: count for name, count in counts.items() if count}


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
