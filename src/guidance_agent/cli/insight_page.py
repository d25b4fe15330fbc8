"""An insight report as one HTML file that asks nothing of any other place."""

from __future__ import annotations

from guidance_agent.cli.audit_charts import Bar, Part, bars
from guidance_agent.cli.insight_sections import heading, sections, summary
from guidance_agent.cli.pages import marked, render_page
from guidance_agent.core.insight_counts import DayCounts
from guidance_agent.core.insight_records import StoredReport
from guidance_agent.learning.insight_answers import insight_labels

__all__ = ["report_as_page"]


def report_as_page(report: StoredReport) -> str:
    """Return the report as the text of an HTML file, with charts of topics and of checks that failed."""
    counts = DayCounts.model_validate(report.counts)
    title, origin = heading(report)
    labels = insight_labels()
    topics = [
        Bar(labels.title(name), [Part("passed", "consultations", count)]) for name, count in counts.topics.items()
    ]
    values = {
        "title": title,
        "origin": origin,
        "summary": summary(report),
        "sections": sections(report),
        "simulated": report.simulated,
        "chart": marked(bars(topics, title="Consultations by topic")) if topics else "",
        "tiles": [
            ("Consultations", counts.consultations),
            ("Turns", counts.turns),
            ("Passed", counts.judgements.get("passed", 0)),
            ("Not passed", counts.judgements.get("failed", 0)),
            ("Acts of the gate", sum(sum(checks.values()) for checks in counts.gate_actions.values())),
        ],
    }
    return render_page("insight_page.html.j2", **values)
