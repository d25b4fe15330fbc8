"""The page of an audit tells everything in words too, asks nothing of any other place, and runs nothing it is given."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from guidance_agent.cli.audit_charts import Bar, Part, bars, columns, share_bar
from guidance_agent.cli.audit_page import MOST_SHOWN, report_as_page
from guidance_agent.cli.audit_tables import report_as_json, report_as_text
from guidance_agent.compliance.audit_records import AuditedTurn, Unanswered
from guidance_agent.compliance.audit_report import AuditReport
from guidance_agent.compliance.audit_tally import AuditTally
from guidance_agent.compliance.verdict import CHECKS
from tests.unit.compliance.audited import audited, run, verdict

HOSTILE = "<script>alert(1)</script>\"'&</style><img src=x onerror=alert(2)>"


def report(turns: Sequence[AuditedTurn], **changes: Any) -> AuditReport:
    tally = AuditTally(lambda text, names: text)
    tally.add_all(turns)
    values: dict[str, Any] = {
        "run_id": None, "since": None, "until": None, "redacted": True, "simulated": False, "runs": [run(passed=1)],
        "waiting": 0, "total": tally.total, "checks": tally.checks, "severities": tally.severities, "by": tally.by,
        "reviews": tally.reviews, "agreements": [tally.first_and_audit, tally.gate_and_first, tally.gate_and_audit],
        "by_check_agreement": tally.by_check, "disagreements": tally.disagreements, "unanswered": [],
        "cost_usd": tally.cost_usd, "unpriced": tally.unpriced,
    }  # fmt: skip
    return AuditReport(**values | changes)


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

    def tags(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in names]


@pytest.fixture
def hostile() -> AuditReport:
    bad = verdict("advice_boundary", unreadable=HOSTILE, judge=HOSTILE)
    result = bad.failures[0].model_copy(update={"explanation": HOSTILE, "quote": HOSTILE, "requirement": HOSTILE})
    turn = audited(HOSTILE, audit=bad.model_copy(update={"checks": (result,)}), model=HOSTILE, rules_version=HOSTILE)
    return report([turn], unanswered=[Unanswered(HOSTILE, HOSTILE)], runs=[run(HOSTILE, failed=1)])


def test_nothing_of_what_people_and_models_wrote_becomes_a_part_of_the_page(hostile: AuditReport) -> None:
    page = Page(report_as_page(hostile))
    assert page.tags("script", "img", "iframe", "link", "object", "form") == []
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count(HOSTILE) >= 8


def test_the_page_asks_nothing_of_any_other_place(hostile: AuditReport) -> None:
    text = report_as_page(hostile)
    page = Page(text)
    assert not any({"src", "href", "action", "xlink:href"} & attributes.keys() for _, attributes in page.elements)
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [each["content"] for each in page.tags("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_every_chart_is_told_in_words_and_its_figures_stand_in_a_table() -> None:
    turns = [
        audited(f"t{number}", days=7 * number, audit=verdict("scam") if number % 3 else None) for number in range(6)
    ]
    text = report_as_page(report(turns))
    page = Page(text)
    charts = page.tags("svg")
    assert len(charts) > 3
    assert all(chart.get("role") == "img" and chart.get("aria-label") for chart in charts)
    labels = [chart["aria-label"] or "" for chart in charts]
    assert any("2026-W38: 1 failed" in label for label in labels)
    assert any("Scams: 4 failed, high" in label for label in labels)
    rows = re.findall(r'<th scope="row">Scams</th><td>(\d+)</td><td>(\d+)</td>', text)
    assert rows[0] == ("2", "4")


def test_the_three_forms_tell_the_same_figures() -> None:
    turns = [audited("turn-a", audit=verdict("scam"), review="open"), audited("turn-b"), audited("turn-c")]
    made = report(turns, waiting=2)
    values = report_as_json(made)
    assert json.loads(json.dumps(values)) == values
    assert (values["total"]["audited"], values["total"]["failed"], values["needs_person"]) == (3, 1, True)
    assert set(values["checks"]) == set(CHECKS)
    assert values["disagreements"][0]["checks"][0]["statements"][0]["requirement"] == "COBS 9.4.1R"
    text, page = report_as_text(made), Page(report_as_page(made)).text
    for form in (text, page):
        assert "turn-a" in form
        assert "turn-b" not in form
        assert "COBS 9.4.1R" in form
        assert "66.7%" in form
    assert "3 audited: 2 passed, 1 failed" in text
    assert "2 answers have no verdict yet" in page


def test_a_simulated_audit_and_one_with_personal_data_say_so() -> None:
    made = report([audited("t1")], simulated=True, redacted=False)
    for form in (report_as_text(made), Page(report_as_page(made)).text):
        assert "simulated" in form.lower()
        assert "personal data" in form
    for form in (report_as_text(report([audited("t1")])), Page(report_as_page(report([audited("t1")]))).text):
        assert "simulated" not in form.lower()


def test_a_report_of_nothing_is_a_page_that_says_so() -> None:
    assert "Nothing was audited" in Page(report_as_page(report([], runs=[]))).text
    assert "0 audited" in report_as_text(report([], runs=[]))


def test_a_page_holds_so_many_disagreements_and_says_how_many_are_left() -> None:
    turns = [audited(f"t{number}", audit=verdict("scam")) for number in range(MOST_SHOWN + 7)]
    page = Page(report_as_page(report(turns)))
    assert len(page.tags("article")) == MOST_SHOWN
    assert "7 more" in page.text


def heights(svg: str, kind: str) -> list[float]:
    return [float(found) for found in re.findall(rf'<rect class="{kind}"[^>]* height="([\d.]+)"', svg)]


def test_columns_are_as_high_as_what_they_count() -> None:
    drawn = columns([Bar("a", [Part("passed", "passed", 10)]), Bar("b", [Part("passed", "passed", 5)])], title="T")
    first, second = heights(drawn, "passed")
    assert first == pytest.approx(2 * second, abs=0.2)


def test_labels_of_many_columns_do_not_lie_over_each_other() -> None:
    drawn = columns([Bar(f"2026-W{week:02}", [Part("passed", "passed", 1)]) for week in range(1, 53)], title="T")
    places = [float(x) for x in re.findall(r'class="scale" x="([\d.]+)"[^>]*>2026', drawn)]
    assert 3 <= len(places) <= 12
    assert min(after - before for before, after in pairwise(places)) > 55


@pytest.mark.parametrize("most", [0, 1, 3, 7, 10, 99, 100, 12_345])
def test_no_bar_leaves_its_chart(most: int) -> None:
    found = [Bar("x" * 60, [Part("failed", "failed", most), Part("passed", "passed", most // 2)])]
    for drawn in (columns(found, title="T"), bars(found, title="T")):
        width, height = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)"', drawn)[0])
        for x, y, w, h in re.findall(r'<rect [^>]*x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawn):
            assert float(x) + float(w) <= width
            assert 0 <= float(y) <= float(y) + float(h) <= height
    assert ("<rect" in bars(found, title="T")) is (most > 0)


def test_a_share_that_is_not_known_has_no_bar() -> None:
    assert share_bar(None, title="T") == ""
    assert 'width="25.0"' in share_bar(0.25, title="T")
