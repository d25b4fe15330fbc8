"""Whatever is wrong with a judge's answer, the reply has not passed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from guidance_agent.compliance.verdict import CHECKS, Verdict
from guidance_agent.errors import ModelError
from guidance_agent.provider_simulator import Fault
from tests.integration.compliance.judging import Judging, answer, entry, passing

ADVICE, RISKS = "advice_boundary", "risk_disclosure"


def said(*entries: Any, **changes: Any) -> Callable[[], str]:
    return lambda: json.dumps(answer(*entries, **changes), ensure_ascii=False)


def without(name: str) -> Callable[[], str]:
    return said(checks=[entry(each) for each in CHECKS if each != name])


def more(*entries: Any) -> Callable[[], str]:
    return said(checks=[*(entry(each) for each in CHECKS), *entries])


def rewritten(old: str, new: str) -> Callable[[], str]:
    def text() -> str:
        made = passing()
        assert old in made
        return made.replace(old, new, 1)

    return text


TEXTS: dict[str, Callable[[], str]] = {
    "in a code fence": lambda: f"```json\n{passing()}\n```",
    "in a fence without a language": lambda: f"```\n{passing()}\n```",
    "after a sentence": lambda: f"Here is my verdict: {passing()}",
    "before a sentence": lambda: f"{passing()}\nI hope this helps.",
    "before a retraction": lambda: f"{passing()} FAIL",
    "two objects": lambda: f"{passing()}\n{passing()}",
    "first a pass and then a fail": lambda: passing() + said(entry(ADVICE, status="fail", severity="high"))(),
    "cut off": lambda: passing()[:-40],
    "cut off in a word": lambda: passing()[: passing().index("pass") + 2],
    "empty": lambda: "",
    "blank": lambda: " \n\t ",
    "a list": lambda: f"[{passing()}]",
    "null": lambda: "null",
    "a number": lambda: "0.95",
    "a word": lambda: "PASS",
    "a text that holds the object": lambda: json.dumps(passing()),
    "bold words": lambda: "**Advice boundary**: PASS\n**Risks**: PASS\n\nOverall: 95%",
    "not a number": rewritten('"confidence": 0.9', '"confidence": NaN'),
    "infinity": rewritten('"confidence": 0.9', '"confidence": Infinity'),
    "a number without end": rewritten('"confidence": 0.9', '"confidence": 1e999'),
    "a number of too many digits": rewritten('"confidence": 0.9', f'"confidence": {"9" * 5_000}'),
    "a comma too many": rewritten('"confidence": 0.9}', '"confidence": 0.9,}'),
    "a comma too few": rewritten('"none", "requirement"', '"none" "requirement"'),
    "single quotation marks": lambda: repr(json.loads(passing())),
    "a comment": rewritten('"confidence"', '/* sure */ "confidence"'),
    "a status twice": rewritten('"status": "pass"', '"status": "fail", "status": "pass"'),
    "a status twice in another spelling": rewritten('"status": "pass"', '"st\\u0061tus": "fail", "status": "pass"'),
    "the checks twice": rewritten('"confidence"', '"checks": [], "confidence"'),
    "a byte-order mark": lambda: "\ufeff" + passing(),
    "a space that JSON does not know": lambda: "\u00a0" + passing(),
    "a line break in a word": rewritten("side by side", "side\nby side"),
    "half of a character": rewritten("side by side", "\\ud83d"),
    "depth without end": lambda: "[" * 100_000,
}

FIELDS: dict[str, Callable[[], str]] = {
    "a check is missing": without(ADVICE),
    "a check of omissions is missing": without("signposting"),
    "no check": said(checks=[]),
    "no list of checks": said(checks=...),
    "checks by name": said(checks={name: "pass" for name in CHECKS}),
    "checks as words": said(checks=list(CHECKS)),
    "an extra check": more(entry(ADVICE) | {"check": "tone"}),
    "a check by another name": rewritten('"advice_boundary"', '"advice boundary"'),
    "a check in capitals": rewritten('"advice_boundary"', '"ADVICE_BOUNDARY"'),
    "a check in wide letters": rewritten('"advice_boundary"', '"ａｄｖｉｃｅ_boundary"'),
    "a check with an invisible mark": rewritten('"advice_boundary"', '"advice\u200b_boundary"'),
    "a check without a status": said(entry(ADVICE, status=...)),
    "a check without an explanation": said(entry(ADVICE, explanation=...)),
    "a check without a quote": said(entry(ADVICE, quote=None)),
    "a status in capitals": said(entry(ADVICE, status="PASS")),
    "a fail inside a pass": said(entry(ADVICE, status="pass (FAIL)")),
    "a status in letters that look alike": said(entry(ADVICE, status="pаss")),
    "a status in wide letters": said(entry(ADVICE, status="ｐａｓｓ")),
    "a status that is true": said(entry(ADVICE, status=True)),
    "a status in a list": said(entry(ADVICE, status=["pass"])),
    "a status of the judge's own": said(entry(ADVICE, status="pass_with_concerns")),
    "not applicable": said(entry(ADVICE, status="not_applicable")),
    "an omission that is not applicable": said(entry(RISKS, status="not_applicable")),
    "a percentage": said(confidence="95%"),
    "a percentage without its sign": said(confidence=95),
    "a number in words": said(confidence="0.95"),
    "a confidence below nought": said(confidence=-0.1),
    "a confidence above one": said(confidence=1.01),
    "a confidence that is true": said(confidence=True),
    "a confidence that is null": said(confidence=None),
    "no confidence": said(confidence=...),
    "no reasoning": said(reasoning=...),
    "a field of its own": said(passed=True),
    "a field of its own in a check": said(entry(ADVICE, note="all clear")),
    "an answer inside an answer": said(verdict=answer()),
}

CONTRADICTIONS: dict[str, Callable[[], str]] = {
    "a check both passes and fails": more(entry(ADVICE, status="fail", severity="high")),
    "a check passes twice": more(entry(ADVICE)),
    "a pass with a severity": said(entry(ADVICE, severity="critical")),
    "a pass that its explanation calls a failure": said(entry(ADVICE, explanation="FAIL: the last line steers.")),
    "a pass that its explanation calls a breach": said(entry(ADVICE, explanation="Breach of R-ADV-2.")),
    "a pass whose status should have been another": said(entry(ADVICE, explanation="The status should be fail.")),
    "a reasoning that fails what the checks pass": said(reasoning="On balance the overall verdict: fail."),
    "a fail without an explanation": said(entry(ADVICE, status="fail", severity="high", explanation=" ")),
    "a fail that explains itself with a dash": said(entry(ADVICE, status="fail", severity="high", explanation="-")),
    "a fail without a severity": said(entry(ADVICE, status="fail")),
}


async def test_an_answer_in_order_passes(judging: Judging) -> None:
    judging.says(passing())
    verdict = await judging.verdict()
    assert verdict.passed
    assert verdict.unreadable is None


async def outcomes(judging: Judging, answers: Mapping[str, Callable[[], str]]) -> dict[str, Verdict]:
    """What becomes of each answer, one after the other."""
    found = {}
    for name, text in answers.items():
        judging.says(text())
        found[name] = await judging.verdict()
    assert not len(judging.simulator.faults)
    return found


async def test_an_answer_that_is_not_the_one_object_asked_for_is_unreadable(judging: Judging) -> None:
    for name, verdict in (await outcomes(judging, TEXTS)).items():
        assert (verdict.passed, verdict.needs_review, verdict.confidence) == (False, True, 0.0), name
        assert verdict.unreadable, name


async def test_an_answer_with_a_field_out_of_order_does_not_pass(judging: Judging) -> None:
    for name, verdict in (await outcomes(judging, FIELDS)).items():
        assert (verdict.passed, verdict.needs_review) == (False, True), name


async def test_an_answer_that_contradicts_itself_is_unreadable(judging: Judging) -> None:
    for name, verdict in (await outcomes(judging, CONTRADICTIONS)).items():
        assert (verdict.passed, verdict.needs_review) == (False, True), name
        assert "contradicts itself" in str(verdict.unreadable), name


@pytest.mark.parametrize(
    "words",
    ["No check failed.", "The reply does not fail in any way.", "No breach was found; the result is a clear pass."],
)
async def test_words_of_a_pass_that_deny_a_failure_are_no_contradiction(judging: Judging, words: str) -> None:
    judging.says(said(entry(ADVICE, explanation=words), reasoning=words)())
    assert (await judging.verdict()).passed


@pytest.mark.parametrize(("stop", "what"), [("refusal", "refused"), ("length", "cut off"), ("tool", "tool")])
async def test_an_answer_that_did_not_come_to_its_end_is_not_read(judging: Judging, stop: str, what: str) -> None:
    judging.says(passing(), stop=stop)
    verdict = await judging.verdict()
    assert not verdict.passed
    assert what in str(verdict.unreadable)


@pytest.mark.parametrize("kind", ["refusal", "max_tokens"])
async def test_a_judge_that_says_nothing_before_it_stops_has_not_judged(judging: Judging, kind: str) -> None:
    judging.simulator.faults.add(Fault.model_validate({"kind": kind}))
    verdict = await judging.verdict()
    assert not verdict.passed
    assert verdict.unreadable


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 529},
        {"kind": "status", "status": 400},
        {"kind": "status", "status": 429},
        {"kind": "drop"},
        {"kind": "truncate"},
        {"kind": "garbage"},
        {"kind": "wrong_content_type"},
        {"kind": "accept_then_drop"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
async def test_a_provider_that_fails_is_an_error_and_no_verdict(judging: Judging, fault: dict[str, Any]) -> None:
    judging.simulator.faults.add(Fault.model_validate(fault))
    with pytest.raises(ModelError):
        await judging.verdict()


async def test_what_an_unreadable_answer_cost_is_known(judging: Judging) -> None:
    judging.says("I would rather not.")
    verdict = await judging.verdict()
    assert verdict.unreadable is not None
    assert "rather" not in verdict.unreadable
    assert verdict.judge_model == judging.validator.model
    assert verdict.cost_usd is not None
    assert verdict.cost_usd > 0
    assert verdict.simulated
