"""A consultation is told to a real Phoenix server and read back from it: nothing missing, and nothing personal."""

from __future__ import annotations

import pytest

from guidance_agent.phoenix import LocalPhoenix
from tests.integration.phoenix.reading import Reader, Span
from tests.integration.phoenix.story import NAME, PLANTED, PROJECT, Story, Told

OF_A_TURN = ("turn", "retrieval", "reasoning", "guidance", "validation", "judge")


@pytest.fixture(scope="module")
def reader(phoenix: LocalPhoenix) -> Reader:
    return Reader(phoenix, PROJECT)


def named(spans: list[Span], name: str) -> Span:
    (span,) = [span for span in spans if span["name"] == name]
    return span


def without_name(text: str) -> str:
    return text.replace(NAME, "[NAME]")


def guidance(reader: Reader, told: Told) -> Span:
    span = named(reader.trace(told.trace_id, *OF_A_TURN), "guidance")
    assert span["context"]["span_id"] == told.answer_span_id
    return span


def test_a_trace_is_the_tree_of_its_turn(story: Story, reader: Reader) -> None:
    spans = reader.trace(story.breach.trace_id, *OF_A_TURN, "gate.withheld")
    names = {span["context"]["span_id"]: span["name"] for span in spans}
    assert {(span["name"], names.get(str(span["parent_id"]))) for span in spans} == {
        ("turn", None),
        ("retrieval", "turn"),
        ("reasoning", "turn"),
        ("guidance", "turn"),
        ("gate.withheld", "turn"),
        ("validation", "turn"),
        ("judge", "validation"),
    }
    assert {span["name"]: span["span_kind"] for span in spans} == {
        "turn": "AGENT",
        "retrieval": "RETRIEVER",
        "reasoning": "LLM",
        "guidance": "LLM",
        "gate.withheld": "GUARDRAIL",
        "validation": "EVALUATOR",
        "judge": "LLM",
    }
    assert named(spans, "turn")["context"]["span_id"] == story.breach.root_id
    assert {span["status_code"] for span in spans} == {"OK"}
    assert {span["attributes"]["guidance.turn_id"] for span in spans} == {story.breach.turn_id}
    assert len({span["attributes"]["user.id"] for span in spans}) == 1


def test_the_withheld_breach_is_seen_and_the_answer_without_it(story: Story, reader: Reader) -> None:
    spans = reader.trace(story.breach.trace_id, "gate.withheld", "turn")
    action, root = named(spans, "gate.withheld")["attributes"], named(spans, "turn")["attributes"]
    assert "take the whole pot" in action["input.value"]
    assert action["guidance.gate.check"] == "advice_boundary"
    assert action["output.value"] in root["output.value"]
    assert root["output.value"] == story.breach.text
    assert "take the whole pot" not in root["output.value"]


def test_retrieval_has_its_documents(story: Story, reader: Reader) -> None:
    attributes = named(reader.trace(story.second.trace_id, "retrieval"), "retrieval")["attributes"]
    assert attributes["retrieval.documents.0.document.id"]
    assert attributes["retrieval.documents.0.document.content"]
    assert isinstance(attributes["retrieval.documents.0.document.score"], int | float)


def test_a_session_is_the_consultation(story: Story, reader: Reader) -> None:
    traces = [reader.graph_trace(told.trace_id) for told in story.turns if reader.trace(told.trace_id, *OF_A_TURN)]
    assert {(trace["rootSpan"]["name"], trace["session"]["sessionId"]) for trace in traces} == {
        ("turn", story.consultation_id)
    }
    session = reader.session(story.consultation_id)
    assert session["numTraces"] == 3
    assert session["firstInput"]["value"].endswith("Can I take all of my pension to mend my roof?")
    assert session["lastOutput"]["value"] == without_name(story.left.text) != ""
    assert session["costSummary"]["total"]["cost"] == pytest.approx(
        sum(trace["costSummary"]["total"]["cost"] for trace in traces)
    )


def test_the_answers_span_has_the_figures_of_the_call(story: Story, reader: Reader) -> None:
    attributes = guidance(reader, story.second)["attributes"]
    completed = story.second.completed
    assert completed is not None
    assert 0 < attributes["gen_ai.response.time_to_first_chunk"] == attributes["guidance.time_to_first_token"]
    assert attributes["guidance.stream.chunks"] == completed.timing.chunks > 1
    assert attributes["guidance.stream.tokens_per_second"] > 0
    usage = completed.usage
    assert usage is not None
    assert attributes["llm.token_count.prompt"] == usage.total_input_tokens
    assert attributes["llm.token_count.completion"] == usage.output_tokens
    assert attributes["gen_ai.usage.input_tokens"] == usage.total_input_tokens
    assert attributes["guidance.usage.estimated"] is False
    assert attributes["guidance.outcome"] == "completed"
    assert attributes["guidance.simulated"] is True
    assert attributes["output.value"] == without_name(story.second.text)


def test_cached_tokens_and_the_caches_outcome_are_seen(story: Story, reader: Reader) -> None:
    first, second = (guidance(reader, told) for told in (story.breach, story.second))
    written = first["attributes"]["llm.token_count.prompt_details.cache_write"]
    read = second["attributes"]["llm.token_count.prompt_details.cache_read"]
    assert first["attributes"]["guidance.cache.outcome"] == "first_write"
    assert second["attributes"]["guidance.cache.outcome"] == "hit"
    assert 0 < read <= written
    tokens = reader.graph_span(story.second.answer_span_id)["tokenPromptDetails"]
    assert tokens["cacheRead"] == read


def test_cost_is_seen_as_this_package_counts_it_and_as_phoenix_does(story: Story, reader: Reader) -> None:
    for told in (story.breach, story.second):
        spans = reader.trace(told.trace_id, *OF_A_TURN)
        ours = {span["name"]: span["attributes"].get("guidance.cost.usd") for span in spans}
        assert ours["turn"] == pytest.approx(ours["reasoning"] + ours["guidance"])
        assert told.completed is not None
        assert ours["turn"] == pytest.approx(told.completed.cost_usd)
    theirs = [reader.graph_span(told.answer_span_id)["costSummary"]["total"]["cost"] for told in story.turns]
    assert all(cost > 0 for cost in theirs)
    # What is read from the cache costs a tenth, in either account.
    assert theirs[1] < theirs[0]


def test_a_turn_that_was_left_early_is_well_and_says_so(story: Story, reader: Reader) -> None:
    spans = reader.trace(story.left.trace_id, *OF_A_TURN)
    assert story.left.state == "closed_early"
    for span in (named(spans, "turn"), named(spans, "guidance")):
        assert span["status_code"] == "OK"
        assert span["attributes"]["guidance.outcome"] == "closed_early"
        assert span["attributes"]["guidance.usage.estimated"] is True
    answer = named(spans, "guidance")["attributes"]
    assert answer["llm.token_count.completion"] > 0
    assert named(spans, "turn")["attributes"]["output.value"] == without_name(story.left.text)


def test_the_verdict_stands_beside_the_answer(story: Story, reader: Reader) -> None:
    for told in story.turns:
        (annotation,) = reader.annotations(told.answer_span_id)
        assert annotation["name"] == "compliance"
        assert annotation["annotator_kind"] == "LLM"
        assert annotation["result"]["label"] == ("passed" if told.passed else "failed")
        assert annotation["result"]["score"] == (1.0 if told.passed else 0.0)
        assert annotation["metadata"]["turn_id"] == told.turn_id
        verdict = named(reader.trace(told.trace_id, "validation"), "validation")["attributes"]
        assert verdict["guidance.verdict.passed"] is told.passed


def test_nothing_personal_is_stored(story: Story, reader: Reader) -> None:
    for told in story.turns:
        reader.trace(told.trace_id, *OF_A_TURN)
        reader.annotations(told.answer_span_id)
    stored = reader.everything()
    assert story.breach.turn_id in stored
    assert [text for text in PLANTED if text.casefold() in stored.casefold()] == []
    root = named(reader.trace(story.breach.trace_id, "turn"), "turn")["attributes"]
    assert "[NI NUMBER]" in root["input.value"]
    assert NAME in story.second.text
