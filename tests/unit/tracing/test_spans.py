"""Spans: what they collect, where they stand, and that nothing of them ever reaches the caller."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import time
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from guidance_agent.tracing import NEW_TRACE, NO_SPAN, NO_TRACING, SpanContext, Tracing
from guidance_agent.tracing.memory import MemorySink, tracing_in_memory
from guidance_agent.tracing.span import read_traceparent

WITHIN = 5.0


@pytest.fixture
def traced() -> Iterator[tuple[Tracing, MemorySink]]:
    tracing, sink = tracing_in_memory()
    yield tracing, sink
    tracing.close(WITHIN)


def test_a_span_carries_what_it_was_given_and_says_how_it_ended(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    span = tracing.span("guidance", "LLM", attributes={"guidance.operation": "guidance", "left.out": None})
    span.set({"llm.token_count.prompt": 12, "tags": ["a", "b"]})
    span.event("attempt", {"guidance.attempt.number": 1})
    span.end(outcome="completed")
    assert tracing.flush(WITHIN)
    (found,) = sink.spans
    assert found.attributes == {
        "guidance.operation": "guidance",
        "llm.token_count.prompt": 12,
        "tags": ["a", "b"],
        "guidance.outcome": "completed",
        "openinference.span.kind": "LLM",
    }
    assert [(event.name, dict(event.attributes)) for event in found.events] == [
        ("attempt", {"guidance.attempt.number": 1})
    ]
    assert found.status is True
    assert found.parent is None
    assert found.started <= found.events[0].at <= found.finished


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("completed", True), ("closed_early", True), ("cancelled", True), ("failed", False), ("truncated", False)],
)
def test_only_failures_are_errors(outcome: str, status: bool, traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    tracing.span("turn", "AGENT").end(outcome=outcome)  # type: ignore[arg-type]
    tracing.flush(WITHIN)
    assert sink.spans[0].status is status


def test_a_failure_is_an_event_and_the_status(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    span = tracing.span("turn", "AGENT")
    span.fail(ValueError("no such thing"))
    span.end(outcome="failed")
    tracing.flush(WITHIN)
    (found,) = sink.spans
    assert (found.status, found.message) == (False, "ValueError: no such thing")
    assert dict(found.events[0].attributes) == {
        "exception.type": "ValueError",
        "exception.message": "no such thing",
    }


def test_an_error_without_words_of_its_own_does_no_harm(traced: tuple[Tracing, MemorySink]) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("never")

    tracing, sink = traced
    span = tracing.span("turn", "AGENT")
    span.fail(Mute())
    span.end()
    tracing.flush(WITHIN)
    assert sink.spans[0].message == "Mute: RuntimeError while its message was made"


def test_nothing_happens_to_a_span_after_its_end(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    span = tracing.span("turn", "AGENT")
    span.end(outcome="completed")
    span.set({"late": 1})
    span.event("late")
    span.fail(ValueError("late"))
    span.end(outcome="failed")
    tracing.flush(WITHIN)
    (found,) = sink.spans
    assert found.attributes["guidance.outcome"] == "completed"
    assert "late" not in found.attributes
    assert found.events == []
    assert found.status is True


def test_the_current_span_is_the_parent_also_in_tasks_and_threads(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced

    async def in_task() -> None:
        tracing.span("in a task", "CHAIN").end()

    async def main() -> None:
        root = tracing.span("turn", "AGENT")
        with tracing.current(root):
            await asyncio.create_task(in_task())
            await asyncio.to_thread(lambda: tracing.span("in a thread", "CHAIN").end())
        tracing.span("elsewhere", "CHAIN").end()
        root.end()

    asyncio.run(main())
    tracing.flush(WITHIN)
    (root,) = sink.named("turn")
    for name in ("in a task", "in a thread"):
        (child,) = sink.named(name)
        assert child.parent == root.context
        assert child.context.trace_id == root.context.trace_id
    (elsewhere,) = sink.named("elsewhere")
    assert elsewhere.parent is None
    assert elsewhere.context.trace_id != root.context.trace_id


def test_what_is_shared_reaches_later_descendants_and_nobody_else(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    root = tracing.span("turn", "AGENT")
    early = tracing.span("early", "CHAIN", parent=root)
    root.share({"session.id": "cons_1"}, names=("Janet",))
    child = tracing.span("child", "LLM", parent=root)
    grandchild = tracing.span("grandchild", "LLM", parent=child)
    child.share({"guidance.turn_id": "turn_1"})
    late = tracing.span("late", "LLM", parent=child)
    for span in (late, grandchild, child, early, root):
        span.end()
    tracing.flush(WITHIN)
    of = {span.name: span for span in sink.spans}
    assert "session.id" not in of["early"].attributes
    assert of["turn"].attributes["session.id"] == of["grandchild"].attributes["session.id"] == "cons_1"
    assert "guidance.turn_id" not in of["grandchild"].attributes
    assert of["late"].attributes["guidance.turn_id"] == "turn_1"
    assert of["late"].original.names == ("Janet",)
    assert of["early"].original.names == ()


def test_a_stored_traceparent_is_continued(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    root = tracing.span("turn", "AGENT")
    stored = root.traceparent
    assert stored is not None
    assert len(stored) == 55
    root.end()
    tracing.span("validation", "EVALUATOR", parent=read_traceparent(stored)).end()
    tracing.flush(WITHIN)
    first, second = sink.spans
    assert second.parent == first.context
    assert second.context.trace_id == first.context.trace_id


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "nonsense",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "g" * 32 + "-" + "1" * 16 + "-01",
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(stored: str | None, traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    assert read_traceparent(stored) is None
    tracing.span("validation", "EVALUATOR", parent=read_traceparent(stored)).end()
    tracing.flush(WITHIN)
    assert sink.spans[0].parent is None


def test_a_linked_span_has_a_trace_of_its_own_and_names_where_it_came_from(
    traced: tuple[Tracing, MemorySink],
) -> None:
    tracing, sink = traced
    origin = SpanContext(7, 9)
    with tracing.current(tracing.span("job", "CHAIN")):
        tracing.span("batch item", "LLM", parent=NEW_TRACE, link=origin).end()
    tracing.flush(WITHIN)
    (item,) = sink.spans
    assert item.parent is None
    assert item.link == origin
    assert item.attributes["guidance.link.trace_id"] == f"{7:032x}"
    assert item.attributes["guidance.link.span_id"] == f"{9:016x}"


def test_a_clock_that_is_set_moves_no_span_of_a_trace_against_the_others(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    with time_machine.travel(datetime(2026, 11, 21, 12, tzinfo=UTC)) as traveller:
        root = tracing.span("turn", "AGENT")
        traveller.shift(timedelta(hours=-3))
        child = tracing.span("guidance", "LLM", parent=root)
        traveller.shift(timedelta(days=400))
        child.end()
        root.end()
    tracing.flush(WITHIN)
    inner, outer = sink.spans
    assert outer.started <= inner.started <= inner.finished <= outer.finished
    assert outer.finished - outer.started < 60 * 10**9


def test_a_span_may_be_given_its_times(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    began = datetime(2026, 11, 21, 2, tzinfo=UTC)
    span = tracing.span("batch item", "LLM", start=began)
    span.end(end=began + timedelta(hours=12))
    backwards = tracing.span("batch item", "LLM", start=began)
    backwards.end(end=began - timedelta(hours=1))
    tracing.flush(WITHIN)
    assert sink.spans[0].finished - sink.spans[0].started == 12 * 3_600 * 10**9
    assert sink.spans[1].finished == sink.spans[1].started


async def test_the_consumer_of_a_generator_never_has_its_span(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, _ = traced

    async def answer() -> AsyncGenerator[int, None]:
        span = tracing.span("turn", "AGENT")
        with tracing.current(span):
            await asyncio.sleep(0)
        try:
            for number in range(3):
                yield number
        finally:
            span.end()

    generator = answer()
    assert await anext(generator) == 0
    assert tracing.current_span is NO_SPAN
    await generator.aclose()
    assert tracing.current_span is NO_SPAN


def test_a_coroutine_that_is_dropped_while_it_waits_disturbs_nobody(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, _ = traced
    loop = asyncio.new_event_loop()

    async def waits() -> None:
        with tracing.current(tracing.span("turn", "AGENT")):
            await loop.create_future()

    coroutine = waits()
    contextvars.copy_context().run(coroutine.send, None)
    other = tracing.span("other", "AGENT")
    with tracing.current(other):
        coroutine.close()
        assert tracing.current_span is other
    assert tracing.current_span is NO_SPAN
    loop.close()


def test_users_have_pseudonyms_that_need_the_key() -> None:
    first, _ = tracing_in_memory(user_key=b"one")
    again, _ = tracing_in_memory(user_key=b"one")
    second, _ = tracing_in_memory(user_key=b"two")
    made = first.user_id("janet-56")
    assert made == again.user_id("janet-56")
    assert made not in (second.user_id("janet-56"), first.user_id("janet-57"))
    assert "janet" not in made
    assert first.user_id("lone \ud800 surrogate").isalnum()


def test_no_tracing_has_the_same_methods_and_does_nothing() -> None:
    span = NO_TRACING.span("turn", "AGENT", attributes={"a": 1})
    with NO_TRACING.current(span):
        assert NO_TRACING.current_span is span is NO_SPAN
    span.set({"a": 1})
    span.share({"a": 1})
    span.event("a")
    span.fail(ValueError())
    span.end(outcome="failed")
    assert (span.attributes, span.events, span.shared) == ({}, [], {})
    assert (span.traceparent, span.trace_id, span.span_id) == (None, None, None)
    assert NO_TRACING.flush(0)
    NO_TRACING.close(0)


def test_a_fault_of_tracing_never_reaches_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        has_room = True

        def put(self, span: object) -> None:
            raise OSError("the outlet broke")

        def flush(self, timeout: float) -> bool:
            return False

        def close(self, timeout: float) -> None:
            pass

    tracing = Tracing(Broken())
    for _ in range(3):
        tracing.span("turn", "AGENT").end()
    tracing.span("turn", "AGENT", start="yesterday").end()  # type: ignore[arg-type]
    (told,) = [record.message for record in caplog.records]
    assert told.startswith("Tracing has a fault, and spans may be missing; this is told once. OSError at ")
    assert "outlet broke" not in told


def test_spans_that_are_forgotten_leave_nothing_behind(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    for _ in range(100):
        tracing.span("never ended", "CHAIN")
    gc.collect()
    assert tracing.flush(WITHIN)
    assert sink.spans == []


def test_thousands_of_spans_in_one_trace_all_arrive(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    root = tracing.span("turn", "AGENT")
    for number in range(5_000):
        tracing.span("gate.flagged", "GUARDRAIL", parent=root, attributes={"number": number}).end()
    root.end()
    assert tracing.flush(WITHIN)
    assert len(sink.spans) == 5_001
    assert len({span.context.span_id for span in sink.spans}) == 5_001
    assert {span.context.trace_id for span in sink.spans} == {root.context.trace_id}


def test_a_span_lasts_as_long_as_its_work(traced: tuple[Tracing, MemorySink]) -> None:
    tracing, sink = traced
    span = tracing.span("turn", "AGENT")
    began = time.perf_counter()
    while time.perf_counter() - began < 0.01:
        pass
    span.end()
    took = time.perf_counter() - began
    tracing.flush(WITHIN)
    assert 0.01 <= (sink.spans[0].finished - sink.spans[0].started) / 1e9 <= took
