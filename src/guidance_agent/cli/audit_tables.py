"""The report on audits as tables for a person and as JSON for a program."""

from __future__ import annotations

import dataclasses
import io
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from guidance_agent.cli.audit_words import (
    BY,
    CHECK_NAMES,
    agreement_words,
    kappa_words,
    money_words,
    percent,
    scope_words,
)
from guidance_agent.cli.terminal_text import on_one_line, plain, wrapped
from guidance_agent.compliance.audit_disagreements import TurnDisagreement
from guidance_agent.compliance.audit_figures import SEVERITIES, Agreement, Figures
from guidance_agent.compliance.audit_report import AuditReport
from guidance_agent.compliance.audit_subjects import AuditRun

__all__ = ["MOST_SHOWN", "report_as_json", "report_as_text", "run_as_json"]

MOST_SHOWN = 50
"""How many disagreements are shown as text; JSON has all of them."""

_WIDTH_OF_A_FILE = 140


def run_as_json(run: AuditRun) -> dict[str, Any]:
    """Return a run as plain values."""
    return {
        "id": run.id,
        "model": run.model,
        "policy_version": run.policy_version,
        "plan": dict(run.plan),
        "simulated": run.simulated,
        "created_at": run.created_at.isoformat(),
        "turns": run.turns,
        "waiting": run.waiting,
        "outcomes": dict(run.outcomes),
    }


def report_as_json(report: AuditReport) -> dict[str, Any]:
    """Return the report as plain values; what is not known is null."""
    return {
        "run": report.run_id,
        "since": None if report.since is None else report.since.isoformat(),
        "until": None if report.until is None else report.until.isoformat(),
        "redacted": report.redacted,
        "simulated": report.simulated,
        "runs": [run_as_json(run) for run in report.runs],
        "waiting": report.waiting,
        "total": _figures(report.total),
        "checks": {
            check: {**dataclasses.asdict(figures), "severities": {s: figures.severities[s] for s in SEVERITIES}}
            for check, figures in report.checks.items()
        },
        "severities": dict(report.severities),
        "by": {
            name: {group: _figures(figures) for group, figures in groups.items()} for name, groups in report.by.items()
        },
        "reviews": dict(report.reviews),
        "agreements": [_agreement(each) for each in report.agreements],
        "agreement_by_check": {check: _agreement(each) for check, each in report.by_check_agreement.items()},
        "disagreements": [_disagreement(each) for each in report.disagreements],
        "unanswered": [each._asdict() for each in report.unanswered],
        "cost_usd": report.cost_usd,
        "unpriced": report.unpriced,
        "needs_person": report.needs_person,
    }


def _figures(figures: Figures) -> dict[str, Any]:
    return {**dataclasses.asdict(figures), "share_passed": figures.share_passed}


def _agreement(agreement: Agreement) -> dict[str, Any]:
    return {
        **dataclasses.asdict(agreement),
        "answers": agreement.answers,
        "observed": agreement.observed,
        "expected": agreement.expected,
        "kappa": agreement.kappa,
    }


def _disagreement(turn: TurnDisagreement) -> dict[str, Any]:
    return {**dataclasses.asdict(turn), "ended_at": turn.ended_at.isoformat()}


def report_as_text(report: AuditReport) -> str:
    """Return the report for a terminal, or for a file that a person reads."""
    to_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if to_terminal else _WIDTH_OF_A_FILE
    printed = io.StringIO()
    console = Console(file=printed, width=width, force_terminal=to_terminal, highlight=False, markup=False, emoji=False)
    for line in _heading(report):
        console.print(line)
    if report.total.audited:
        _print_tables(console, report)
    for turn in report.disagreements[:MOST_SHOWN]:
        for line in _turn(turn):
            console.print(line, soft_wrap=True)
    if len(report.disagreements) > MOST_SHOWN:
        console.print(f"{len(report.disagreements) - MOST_SHOWN:,} more disagreements are in --json.")
    for each in report.unanswered:
        console.print(f"Not audited: {plain(each.turn_id)}: {on_one_line(each.error, 300)}", soft_wrap=True)
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines()) + "\n"


def _heading(report: AuditReport) -> Iterator[str]:
    yield f"Audit of {scope_words(report)}."
    if report.simulated:
        yield "SIMULATED: no language model is behind these answers, or behind the verdicts on them."
    if not report.redacted:
        yield "This report holds personal data."
    total = report.total
    yield (
        f"{total.audited:,} audited: {total.passed:,} passed, {total.failed:,} failed, {total.unreadable:,} "
        f"unreadable; {len(report.unanswered):,} could not be audited; {report.waiting:,} wait."
    )
    yield f"Cost: {money_words(report)}."
    if report.reviews:
        told = ", ".join(f"{count} {standing}" for standing, count in sorted(report.reviews.items()))
        yield f"Reviews that audits asked for: {told}."


def _print_tables(console: Console, report: AuditReport) -> None:
    console.print(_checks_table(report))
    for name, groups in report.by.items():
        console.print(_groups_table(BY[name], groups))
    console.print(_agreements_table(report))
    for each in report.agreements:
        console.print(f"{each.first.capitalize()} and {each.second}: {agreement_words(each)}", soft_wrap=True)
    console.print()


def _table(*names: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    return table


def _checks_table(report: AuditReport) -> Table:
    table = _table("Check", "passed", "failed", "not applicable", "no answer", *SEVERITIES)
    for check, figures in report.checks.items():
        counts = (figures.passed, figures.failed, figures.not_applicable, figures.not_answered)
        severities = (figures.severities[each] for each in SEVERITIES)
        table.add_row(CHECK_NAMES[check], *(f"{count:,}" for count in (*counts, *severities)))
    return table


def _groups_table(heading: str, groups: Mapping[str, Figures]) -> Table:
    table = _table(heading, "audited", "passed", "failed", "unreadable", "share passed")
    for name, figures in groups.items():
        counts = (figures.audited, figures.passed, figures.failed, figures.unreadable)
        table.add_row(plain(name), *(f"{count:,}" for count in counts), percent(figures.share_passed))
    return table


def _agreements_table(report: AuditReport) -> Table:
    table = _table("First verdict and audit", "both pass", "only first", "only audit", "neither", "agree", "kappa")
    for check, each in report.by_check_agreement.items():
        counts = (each.both_passed, each.only_first_passed, each.only_second_passed, each.neither_passed)
        told = (*(f"{count:,}" for count in counts), percent(each.observed), kappa_words(each))
        table.add_row(CHECK_NAMES[check], *told)
    return table


def _turn(turn: TurnDisagreement) -> Iterator[str]:
    review = f", review {turn.review}" if turn.review else ""
    flagged = turn.gate.get("flagged", 0)
    gate = f"flagged {flagged}" if flagged else "let pass"
    yield (
        f"{plain(turn.turn_id)}  {turn.ended_at:%Y-%m-%d %H:%M} UTC  gate {gate}, first verdict "
        f"{turn.first or 'none'}, audit {turn.audit}{review}"
    )
    if turn.unreadable:
        yield wrapped(turn.unreadable)
    for each in turn.checks:
        broken, kept = " and ".join(each.broken), " and ".join(each.kept)
        yield f"  {CHECK_NAMES[each.check]}: found broken by {broken}, not by {kept}"
        for statement in each.statements:
            where = "" if statement.start is None else f", characters {statement.start} to {statement.end}"
            grave = "" if statement.severity is None else f", {statement.severity}"
            yield f"    {statement.by}: {plain(statement.requirement)}{grave}{where}, by {statement.source}"
            if statement.quote is not None:
                yield wrapped(f"“{statement.quote}”", "      ")
            yield wrapped(statement.explanation, "      ")
    yield ""
