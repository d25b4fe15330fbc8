"""The report on audits as one HTML file: charts and their figures, whole in itself, to be read, kept or printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guidance_agent.cli.audit_charts import Bar, Part, bars, columns, share_bar
from guidance_agent.cli.audit_words import BY, CHECK_NAMES, percent, scope_words, unpriced_words
from guidance_agent.cli.pages import marked, render_page
from guidance_agent.compliance.audit_figures import SEVERITIES, Figures
from guidance_agent.compliance.audit_report import AuditReport

__all__ = ["MOST_SHOWN", "report_as_page"]

MOST_SHOWN = 500
"""How many disagreements a page holds; the JSON has all of them."""


def report_as_page(report: AuditReport) -> str:
    """Return the report as the text of an HTML file that asks nothing of any other place."""
    values = {
        "report": report,
        "by": [(name, BY[name], groups, _table(groups)) for name, groups in report.by.items() if name != "week"],
        "week_chart": marked(columns(_outcomes(report.by["week"]), title="Audited answers by week")),
        "weeks": _table(report.by["week"]),
        "check_chart": marked(bars(_checks(report), title="Answers that failed, by check")),
        "severity_chart": marked(bars(_severities(report.severities), title="Failed checks, by severity")),
        "check_names": CHECK_NAMES,
        "check_agreements": list(report.by_check_agreement.items()),
        "shown": report.disagreements[:MOST_SHOWN],
        "left": max(0, len(report.disagreements) - MOST_SHOWN),
        "unpriced": unpriced_words(report),
        "severities": SEVERITIES,
        "scope": _capitalised(scope_words(report)),
    }
    return render_page("audit_page.html.j2", **values)


def _outcomes(groups: Mapping[str, Figures]) -> list[Bar]:
    return [
        Bar(
            name,
            [
                Part("passed", "passed", figures.passed),
                Part("failed", "failed", figures.failed),
                Part("unreadable", "unreadable", figures.unreadable),
            ],
        )
        for name, figures in groups.items()
    ]


def _checks(report: AuditReport) -> list[Bar]:
    return [
        Bar(
            CHECK_NAMES[check],
            [Part(each, f"failed, {each}", figures.severities[each]) for each in SEVERITIES],
        )
        for check, figures in report.checks.items()
    ]


def _severities(severities: Mapping[str, int]) -> list[Bar]:
    return [Bar(each, [Part(each, "failed checks", severities[each])]) for each in SEVERITIES]


def _table(groups: Mapping[str, Figures]) -> Sequence[Mapping[str, Any]]:
    return [
        {
            "name": name,
            "figures": figures,
            "share": percent(figures.share_passed),
            "bar": marked(share_bar(figures.share_passed, title=f"{percent(figures.share_passed)} passed")),
        }
        for name, figures in groups.items()
    ]


def _capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]
