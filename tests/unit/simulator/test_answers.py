"""What the simulated model says: on the question, from the facts, without a steer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from guidance_agent.provider_simulator.answers.reading import read_prompt
from guidance_agent.provider_simulator.answers.topics import topic_of, topics
from guidance_agent.provider_simulator.composer import Composer
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.read_anthropic import read_messages_request
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.tokens import count_tokens

SETTINGS = SimulatorSettings.instant(seed=7)
FACTS = """<today>2026-11-21; tax year 2026/27</today>
<facts>
{}
</facts>
""".format(
    "\n".join(
        (
            "- [TX-09] Normally up to 25% of a defined contribution pot can be paid tax-free; the rest is taxed as "
            "income when taken. (source: GOV.UK; from 2015-04-06)",
            "- [TX-05] The money purchase annual allowance (MPAA) is £10,000 for 2026/27 and is triggered by taxable "
            "flexible access. (from 2023-04-06; until 2027-04-05)",
            "- [TX-13] Most unused pension funds count in the estate for inheritance tax. (source: Finance Act 2026; "
            "upcoming, not in force until 2027-04-06)",
            "- [CD-01] An authorised firm must act to deliver good outcomes for retail customers. (from 2023-07-31)",
        )
    )
)
STEERS = re.compile(
    r"\b(?:you should|you ought|you need to|you must|i(?:'d| would) (?:suggest|recommend|advise|go)|i recommend|"
    r"best (?:option|choice|for you)|right for you|suits you|suitable for you|makes sense|better (?:option|choice|off)|"
    r"no.brainer|worth (?:doing|taking)|sensible|my advice)\b",
    re.IGNORECASE,
)
QUESTIONS = {
    "lump_sum": "I've about £38,000 in a pension. Can I just take the whole lot out?",
    "annuity_drawdown": "What's the difference between buying an annuity and going into drawdown?",
    "scam": "A firm called me out of the blue and says it can unlock my pension now, with a fixed 12% return.",
    "db_transfer": "My final salary scheme offers a CETV of £412,000. What happens if I transfer?",
    "consolidation": "I have five pensions from different jobs. Can I combine them into one?",
    "state_pension": "I have only 14 qualifying years of National Insurance. What about my State Pension?",
    "opting_out": "Can I opt out of my work pension to have more take-home pay?",
    "starting_late": "I'm 45, self-employed and have no pension. Is it too late to start?",
    "small_pots": "I've small pots of £7,000 and £4,000. Can I cash in the small ones?",
    "inheritance": "I want to leave my pension to my children. How does it pass on when I die?",
    "access_age": "I'm 53. Can I have my pension when I'm 55?",
    "tax_free_cash": "How does the 25% tax-free cash work?",
    "gar": "My old policy has a guaranteed annuity rate. What if I move it?",
    "mpaa": "If I take drawdown income, does the MPAA stop me paying in £30k a year?",
    "bereavement": "My husband died five weeks ago and I have forms from his pension scheme.",
    "sustainability": "I draw £6,000 a year from my pot. Is that sustainable or will I run out?",
    "greeting": "Hello there",
    "crisis": "I can't go on, I want to end it all",
    "other": "What is a stakeholder?",
}


def prompt_for(question: str, **change: Any) -> Prompt:
    body: dict[str, Any] = {
        "model": "claude-sonnet-5-5",
        "max_tokens": 1_000,
        "system": [{"type": "text", "text": "# Profile\n- First name: Janet\n- Age: 56"}],
        "messages": [{"role": "user", "content": f"{FACTS}\n<question>\n{question}\n</question>\nAnswer as guidance."}],
    }
    return read_messages_request(body | change, SETTINGS)


def say(question: str, **change: Any) -> str:
    return Composer(SETTINGS).answer(prompt_for(question, **change), chunk_tokens=4).text


@pytest.mark.parametrize(("name", "question"), QUESTIONS.items())
def test_a_question_finds_its_topic(name: str, question: str) -> None:
    assert topic_of(question).name == name


def test_every_topic_has_a_question_here() -> None:
    assert {topic.name for topic in topics()} == set(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_no_answer_steers(question: str) -> None:
    assert STEERS.search(say(question)) is None


@pytest.mark.parametrize("question", [q for name, q in QUESTIONS.items() if name not in ("greeting", "crisis")])
def test_an_answer_to_a_decision_has_all_its_parts(question: str) -> None:
    text = say(question)
    assert 250 <= count_tokens(text) <= 430
    assert text.count("Risk: ") == sum(line.startswith("- **") for line in text.splitlines()) >= 2
    assert "**What may be affected**" in text
    assert "?" in text
    assert "MoneyHelper" in text or "Pension Wise" in text
    assert "FCA-authorised" in text


@pytest.mark.parametrize("topic", [topic for topic in topics() if topic.options], ids=lambda topic: topic.name)
def test_options_stand_side_by_side_at_the_same_depth(topic: Any) -> None:
    sizes = [count_tokens(f"{option.how} {option.risk}") for option in topic.options]
    assert max(sizes) <= 2.2 * min(sizes)


def test_a_defined_benefit_answer_has_all_four_warnings() -> None:
    text = say(QUESTIONS["db_transfer"])
    for part in ("given up for good", "£30,000", "pension transfer specialist", "right for most people"):
        assert part in text


def test_facts_of_the_prompt_are_used_as_they_stand_and_without_their_sources() -> None:
    text = say("What does taking money flexibly do to the money purchase annual allowance and paying in?")
    assert "£10,000 for 2026/27" in text
    assert "source" not in text
    assert "TX-05" not in text


def test_a_fact_that_is_not_in_force_says_from_when() -> None:
    assert "not in force until 6 April 2027" in say(QUESTIONS["inheritance"])


def test_facts_about_firms_are_not_told_to_customers() -> None:
    assert "authorised firm must" not in say("How do firms deliver good outcomes for retail customers like me?")


def test_without_facts_no_amount_in_pounds_is_invented() -> None:
    for name, question in QUESTIONS.items():
        text = say(question, messages=[{"role": "user", "content": question}])
        amounts = {amount.rstrip(".,") for amount in re.findall(r"£[\d,]+", text)}
        assert amounts <= ({"£30,000"} if name in ("db_transfer", "gar") else set()), name


def test_the_customer_is_addressed_by_first_name() -> None:
    assert ", Janet." in say(QUESTIONS["lump_sum"])


def test_a_follow_up_takes_its_topic_from_before() -> None:
    messages = [
        {"role": "user", "content": QUESTIONS["gar"]},
        {"role": "assistant", "content": "An answer."},
        {"role": "user", "content": "And how would that look over five years?"},
    ]
    assert "guaranteed annuity rate" in say("", messages=messages)


def test_the_answer_follows_from_prompt_and_seed_alone() -> None:
    assert say(QUESTIONS["lump_sum"]) == say(QUESTIONS["lump_sum"])
    seeded = {
        Composer(SimulatorSettings.instant(seed=seed)).answer(prompt_for(QUESTIONS["gar"]), chunk_tokens=4).text
        for seed in range(8)
    }
    assert len(seeded) > 1


def test_private_notes_are_short_and_meant_for_nobody_else() -> None:
    ask = "Do not answer the customer. Write private notes for whoever will answer, at most 30 words."
    content = f"{FACTS}<question>{QUESTIONS['lump_sum']}</question>\n{ask}"
    text = say("", max_tokens=60, messages=[{"role": "user", "content": content}])
    assert 15 <= count_tokens(text) <= 40
    assert "Janet" not in text


def test_a_rating_is_a_whole_number_from_one_to_ten() -> None:
    plain = "You rate how much an observation matters, on a scale from 1 to 10.\n<observation>{}</observation>"
    light = say("", messages=[{"role": "user", "content": plain.format("Said thanks.")}])
    heavy = say("", messages=[{"role": "user", "content": plain.format("Widow, debt, defined benefit transfer, scam")}])
    assert 1 <= int(light) < int(heavy) <= 10
    asked = plain.format("Has a guaranteed rate") + '\nAnswer with JSON only: {"importance": n}'
    assert set(json.loads(say("", messages=[{"role": "user", "content": asked}]))) == {"importance"}


def test_a_schema_is_answered_in_json_alone() -> None:
    schema = {"type": "object", "properties": {"importance": {"type": "integer"}}, "required": ["importance"]}
    output = {"format": {"type": "json_schema", "schema": schema}}
    assert isinstance(json.loads(say("Rate this.", output_config=output))["importance"], int)


@pytest.mark.parametrize(
    "message",
    [
        "Question: Can I take it all?",
        "<query>Can I take it all?</query>",
        "<facts>- [A-1] x</facts>\nCan I take it all?",
    ],
)
def test_the_question_is_found_in_different_dress(message: str) -> None:
    prompt = prompt_for("", messages=[{"role": "user", "content": message}])
    assert read_prompt(prompt).question == "Can I take it all?"
