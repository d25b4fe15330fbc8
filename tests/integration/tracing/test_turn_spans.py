"""One trace for each turn, however it ends, with everything that happened in it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from guidance_agent import AdvisorAgent, Completed, CustomerProfile, TextDelta
from guidance_agent.errors import (
    AuthenticationError,
    IdleConsumerError,
    ModelError,
    ModelTimeoutError,
    NoQuestionError,
    StreamTruncated,
)
from guidance_agent.provider_simulator import Fault
from guidance_agent.tracing.preparing import FinishedSpan
from guidance_agent.tracing.redaction_spans import SpanRedaction
from tests.integration.tracing.conftest import WITHIN, OpenTraced, Traced

LONG: dict[str, Any] = {"chunks": 3_000, "first_ms": 0, "interval_ms": 5}


async def whole(advisor: AdvisorAgent, customer: CustomerProfile, **options: object) -> str:
    return "".join([text async for text in advisor.provide_guidance_stream(customer, **options)])  # type: ignore[arg-type]


def seconds(value: object) -> float:
    assert isinstance(value, float)
    return value


async def test_a_turn_is_one_trace_with_its_search_notes_and_answer(traced: Traced, janet: CustomerProfile) -> None:
    text = await whole(traced.advisor, janet)
    spans = await traced.spans()
    (root,), (retrieval,), (notes,), (answer,) = (
        spans[name] for name in ("turn", "retrieval", "reasoning", "guidance")
    )
    assert root.parent is None
    for child in (retrieval, notes, answer):
        assert child.parent == root.context
        assert root.started <= child.started <= child.finished <= root.finished
    assert root.attributes["openinference.span.kind"] == "AGENT"
    assert root.attributes["input.value"] == janet.presenting_question
    assert root.attributes["output.value"] == answer.attributes["output.value"] == text
    assert root.attributes["guidance.outcome"] == root.attributes["guidance.turn.state"] == "completed"
    assert root.attributes["guidance.finish_reason"] == "stop"
    assert root.attributes["guidance.simulated"] is True
    assert root.status is True
    costs = [seconds(span.attributes["guidance.cost.usd"]) for span in (notes, answer)]
    assert root.attributes["guidance.cost.usd"] == pytest.approx(sum(costs))


async def test_redaction_is_told_of_the_people_that_the_profile_tells_of(
    traced: Traced, janet: CustomerProfile
) -> None:
    customer = janet.model_copy(update={"partner": "married to Ottoline"})
    await whole(traced.advisor, customer)
    redaction, text = SpanRedaction(), "ottoline could wait"
    for named in (await traced.spans()).values():
        for span in named:
            assert redaction.redact("input.value", text, span.original.names) == "[NAME] could wait"


async def test_session_and_user_are_on_every_span_and_the_customer_is_on_none(
    traced: Traced, janet: CustomerProfile
) -> None:
    await whole(traced.advisor, janet, consultation_id="chat-77")
    for spans in (await traced.spans()).values():
        for span in spans:
            assert span.attributes["session.id"] == "chat-77"
            assert span.attributes["user.id"] == traced.tracing.user_id(janet.customer_id)
            assert janet.customer_id not in str(dict(span.attributes))
            assert span.original.names == ("Janet", "janet-56")


async def test_times_are_those_of_the_event(traced: Traced, janet: CustomerProfile) -> None:
    async with traced.advisor.consult(janet) as turn:
        (completed,) = [event async for event in turn if type(event) is Completed]
    root = await traced.span("turn")
    assert root.attributes["guidance.time_to_first_token"] == completed.timing.first_token
    assert root.attributes["guidance.time_to_first_released"] == completed.timing.first_text
    assert root.attributes["guidance.stream.chunks"] == completed.timing.chunks
    assert root.attributes["guidance.stream.tokens_per_second"] == completed.timing.tokens_per_second
    assert root.attributes["guidance.cost.usd"] == completed.cost_usd
    assert seconds(root.attributes["guidance.time_to_first_token"]) <= seconds(
        root.attributes["guidance.time_to_first_released"]
    )


async def test_the_records_know_the_trace_and_the_answers_span(traced: Traced, janet: CustomerProfile) -> None:
    async with traced.advisor.consult(janet) as turn:
        async for _ in turn:
            pass
    row = await traced.runtime.records.turn(turn.turn_id)
    assert row is not None
    root, answer = await traced.span("turn"), await traced.span("guidance")
    assert row["traceparent"] == root.context.traceparent
    assert row["answer_span_id"] == f"{answer.context.span_id:016x}" == root.attributes["guidance.answer_span_id"]
    assert root.attributes["guidance.turn_id"] == answer.attributes["guidance.turn_id"] == turn.turn_id


async def test_what_was_found_is_shown_with_its_ids_and_scores(traced: Traced, janet: CustomerProfile) -> None:
    async with traced.advisor.consult(janet) as turn:
        async for _ in turn:
            pass
    row = await traced.runtime.records.turn(turn.turn_id)
    assert row is not None
    attributes = (await traced.span("retrieval")).attributes
    facts = row["context"]["facts"]
    assert facts
    assert attributes["guidance.retrieval.facts"] == len(facts)
    for number, fact in enumerate(facts):
        assert attributes[f"retrieval.documents.{number}.document.id"] == fact
        assert isinstance(attributes[f"retrieval.documents.{number}.document.score"], float)
        assert attributes[f"retrieval.documents.{number}.document.content"]


async def test_two_turns_of_a_consultation_are_two_traces_of_one_session(
    traced: Traced, janet: CustomerProfile
) -> None:
    await whole(traced.advisor, janet, consultation_id="chat-77")
    more = janet.model_copy(update={"presenting_question": "And what about tax?"})
    await whole(traced.advisor, more, consultation_id="chat-77")
    first, second = (await traced.spans())["turn"]
    assert first.context.trace_id != second.context.trace_id
    assert first.attributes["session.id"] == second.attributes["session.id"]
    assert first.attributes["user.id"] == second.attributes["user.id"]


async def leaves_early(stream: AsyncIterator[str]) -> str:
    async for text in stream:
        return text
    raise AssertionError("nothing came")


def check_early(spans: dict[str, list[FinishedSpan]], outcome: str, text: str) -> None:
    (root,), (answer,) = spans["turn"], spans["guidance"]
    assert root.status is answer.status is True
    assert root.attributes["guidance.outcome"] == answer.attributes["guidance.outcome"] == outcome
    assert root.attributes["output.value"] == text
    assert answer.attributes["guidance.usage.estimated"] is True
    assert root.attributes["guidance.usage.estimated"] is True
    assert answer.parent == root.context


async def test_breaking_off_is_leaving_early_and_no_error(traced: Traced, janet: CustomerProfile) -> None:
    traced.author(**LONG)
    stream = traced.advisor.provide_guidance_stream(janet, use_reasoning=False)
    text = await leaves_early(stream)
    await stream.aclose()
    check_early(await traced.spans(), "closed_early", text)


async def test_leaving_the_block_is_leaving_early(traced: Traced, janet: CustomerProfile) -> None:
    traced.author(**LONG)
    async with traced.advisor.consult(janet, use_reasoning=False) as turn:
        text = next(iter([event.text async for event in first_text(turn)]))
    check_early(await traced.spans(), "closed_early", text)


async def first_text(turn: AsyncIterator[object]) -> AsyncIterator[TextDelta]:
    async for event in turn:
        if type(event) is TextDelta:
            yield event
            return


async def test_a_cancelled_consumer_is_cancelled_and_no_error(traced: Traced, janet: CustomerProfile) -> None:
    traced.author(**LONG)
    received: list[str] = []
    has_text = asyncio.Event()

    async def reads() -> None:
        async for text in traced.advisor.provide_guidance_stream(janet, use_reasoning=False):
            received.append(text)
            has_text.set()

    task = asyncio.create_task(reads())
    await asyncio.wait_for(has_text.wait(), WITHIN)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    check_early(await traced.spans(), "cancelled", "".join(received))


async def test_an_iterator_that_is_forgotten_has_left_early(traced: Traced, janet: CustomerProfile) -> None:
    traced.author(**LONG)
    stream = traced.advisor.provide_guidance_stream(janet, use_reasoning=False)
    text = await anext(stream)
    del stream
    gc.collect()
    spans = await traced.spans_with("turn")
    check_early(spans, "closed_early", text)


async def test_an_idle_consumer_has_left_early(open_traced: OpenTraced, janet: CustomerProfile) -> None:
    async with open_traced(timeouts={"idle_consumer": 0.2}) as traced:
        traced.author(**LONG)
        stream = traced.advisor.provide_guidance_stream(janet, use_reasoning=False)
        text = await anext(stream)
        spans = await traced.spans_with("turn")
        check_early(spans, "closed_early", text)
        with pytest.raises(IdleConsumerError):
            await anext(stream)


async def test_a_model_that_fails_makes_the_turn_an_error(traced: Traced, janet: CustomerProfile) -> None:
    traced.author_fails(kind="status", status=401, times=None)
    with pytest.raises(AuthenticationError):
        await whole(traced.advisor, janet, use_reasoning=False)
    root, answer = await traced.span("turn"), await traced.span("guidance")
    assert root.status is answer.status is False
    assert root.attributes["guidance.outcome"] == answer.attributes["guidance.outcome"] == "failed"
    assert root.message.startswith("AuthenticationError: ")
    assert [event.name for event in root.events] == ["exception"]


async def test_a_truncated_answer_says_so(traced: Traced, janet: CustomerProfile) -> None:
    traced.author_fails(kind="truncate", after_chunks=20)
    with pytest.raises(StreamTruncated):
        await whole(traced.advisor, janet, use_reasoning=False)
    root, answer = await traced.span("turn"), await traced.span("guidance")
    assert root.status is answer.status is False
    assert root.attributes["guidance.outcome"] == answer.attributes["guidance.outcome"] == "truncated"
    assert root.attributes["output.value"]


async def test_a_turn_that_takes_too_long_is_an_error(open_traced: OpenTraced, janet: CustomerProfile) -> None:
    async with open_traced(timeouts={"turn": 0.3}) as traced:
        traced.author(**LONG)
        with pytest.raises(ModelTimeoutError):
            await whole(traced.advisor, janet, use_reasoning=False)
        root = await traced.span("turn")
        assert root.attributes["guidance.outcome"] == "failed"
        assert root.message.startswith("ModelTimeoutError: ")
        assert (await traced.span("guidance")).attributes["guidance.outcome"] == "cancelled"


async def test_notes_that_fail_leave_the_turn_well(traced: Traced, janet: CustomerProfile) -> None:
    traced.simulator.faults.add(Fault(kind="status", status=500, model="haiku", times=None))
    assert await whole(traced.advisor, janet)
    assert (await traced.span("reasoning")).status is False
    assert (await traced.span("turn")).status is True


async def test_a_question_that_cannot_be_asked_ends_its_trace(traced: Traced) -> None:
    with pytest.raises(NoQuestionError):
        await whole(traced.advisor, CustomerProfile(customer_id="janet-56"))
    root = await traced.span("turn")
    assert root.status is False
    assert root.attributes["guidance.outcome"] == "failed"
    assert root.message.startswith("NoQuestionError: ")


async def test_a_turn_below_the_applications_span_is_its_child(traced: Traced, janet: CustomerProfile) -> None:
    with traced.tracing.work("request", "CHAIN"):
        await whole(traced.advisor, janet, use_reasoning=False)
    request, root = await traced.span("request"), await traced.span("turn")
    assert root.parent == request.context


async def test_the_consumer_never_has_a_span_of_the_turn(traced: Traced, janet: CustomerProfile) -> None:
    async for _ in traced.advisor.provide_guidance_stream(janet):
        assert not traced.tracing.current_span.is_recording
    async with traced.advisor.consult(janet) as turn:
        async for _ in turn:
            assert not traced.tracing.current_span.is_recording
    assert not traced.tracing.current_span.is_recording


async def test_turns_that_run_together_keep_their_spans_apart(traced: Traced, janet: CustomerProfile) -> None:
    customers = [janet.model_copy(update={"customer_id": f"customer-{number}"}) for number in range(8)]
    async with asyncio.timeout(60):
        await asyncio.gather(*(whole(traced.advisor, customer) for customer in customers))
    spans = await traced.spans()
    assert len({root.context.trace_id for root in spans["turn"]}) == 8
    of_trace = {root.context.trace_id: root for root in spans["turn"]}
    for name in ("retrieval", "reasoning", "guidance"):
        assert len(spans[name]) == 8
        for span in spans[name]:
            root = of_trace[span.context.trace_id]
            assert span.parent == root.context
            assert span.attributes["user.id"] == root.attributes["user.id"]
            assert span.attributes["guidance.turn_id"] == root.attributes["guidance.turn_id"]


async def test_nothing_of_a_traced_turn_blocks_the_event_loop(traced: Traced, janet: CustomerProfile) -> None:
    await whole(traced.advisor, janet)
    with blockbuster_ctx():
        await whole(traced.advisor, janet)
    assert len((await traced.spans())["turn"]) == 2


async def test_a_turn_that_nobody_listens_to_is_traced_to_its_end(traced: Traced, janet: CustomerProfile) -> None:
    turn_id = await traced.advisor.start_turn(janet, use_reasoning=False)
    async for _ in traced.advisor.events(turn_id):
        pass
    (root,) = (await traced.spans_with("turn"))["turn"]
    assert root.attributes["guidance.outcome"] == "completed"


async def test_an_advisor_that_closes_ends_the_traces_of_its_turns(
    open_traced: OpenTraced, janet: CustomerProfile
) -> None:
    async with open_traced() as traced:
        traced.author(**LONG)
        stream = traced.advisor.provide_guidance_stream(janet, use_reasoning=False)
        await anext(stream)
    assert (await traced.span("turn")).attributes["guidance.outcome"] == "closed_early"
    with contextlib.suppress(ModelError, Exception):
        await stream.aclose()
