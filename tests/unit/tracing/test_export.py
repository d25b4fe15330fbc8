"""The exporter's thread against real sockets: a collector that is there, away, slow, silent, or says no."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from blockbuster import blockbuster_ctx

from guidance_agent.tracing import SpanContext, Tracing
from guidance_agent.tracing.export import Exported, ExportLimits, ExportThread, Sent, Sink
from guidance_agent.tracing.otlp import Endpoint, OtlpSink
from guidance_agent.tracing.preparing import FinishedSpan, NoRedaction, Preparation
from tests.collector import Collector, black_hole, free_port

WITHIN = 10.0
QUICK = ExportLimits(delay=0.01, timeout=0.5)


@contextmanager
def exporting(sink: Sink, limits: ExportLimits = QUICK) -> Iterator[tuple[Tracing, ExportThread]]:
    exporter = ExportThread(sink, Preparation(NoRedaction()), limits)
    tracing = Tracing(exporter)
    try:
        yield tracing, exporter
    finally:
        exporter.close(0.2)


def otlp(url: str, **fields: object) -> OtlpSink:
    endpoint = Endpoint(f"{url}/v1/traces")._replace(**fields)  # type: ignore[arg-type]
    return OtlpSink(endpoint, {"service.name": "tests"}, version="1")


def spans(tracing: Tracing, count: int, **attributes: object) -> None:
    for number in range(count):
        tracing.span("guidance", "LLM", attributes={"number": number, **attributes}).end(outcome="completed")  # type: ignore[dict-item]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def test_a_span_arrives_as_it_was_made() -> None:
    with Collector() as collector, exporting(otlp(collector.url)) as (tracing, _):
        root = tracing.span(
            "turn", "AGENT", attributes={"text": "£1,000 – ok", "many": ["a"], "yes": True, "half": 0.5}
        )
        child = tracing.span("guidance", "LLM", parent=root, link=SpanContext(5, 6))
        child.event("attempt", {"number": 1})
        child.fail(ValueError("no"))
        child.end(outcome="failed")
        root.end(outcome="completed")
        assert tracing.flush(WITHIN)
        (turn,), (answer,) = collector.named("turn"), collector.named("guidance")
        assert collector.resources[0] == {"service.name": "tests"}
        assert collector.requests[0]["path"] == "/v1/traces"
    assert turn.attributes == {
        "text": "£1,000 – ok",
        "many": ["a"],
        "yes": True,
        "half": 0.5,
        "guidance.outcome": "completed",
        "openinference.span.kind": "AGENT",
    }
    assert (turn.parent_id, turn.status) == ("", 1)
    assert (answer.parent_id, answer.trace_id) == (turn.span_id, turn.trace_id)
    assert (answer.status, answer.message) == (2, "ValueError: no")
    assert [name for name, _ in answer.events] == ["attempt", "exception"]
    assert answer.links == [(f"{5:032x}", f"{6:016x}")]
    assert turn.started <= answer.started <= answer.finished <= turn.finished


def test_batches_are_bounded_and_nothing_is_lost() -> None:
    with Collector() as collector, exporting(otlp(collector.url), QUICK._replace(batch=50)) as (tracing, exporter):
        spans(tracing, 1_000)
        assert tracing.flush(WITHIN)
        assert collector.count == exporter.counts.delivered == 1_000
        assert len(collector.requests) >= 20


def test_large_spans_make_small_batches() -> None:
    with Collector() as collector, exporting(otlp(collector.url)) as (tracing, _):
        spans(tracing, 100, text="x" * 30_000)
        assert tracing.flush(WITHIN)
        assert max(map(len, collector.bodies)) < 1_200_000


def test_headers_and_compression_are_sent() -> None:
    with Collector() as collector:
        sink = otlp(collector.url, headers={"authorization": "Bearer key"}, compress=True)
        with exporting(sink) as (tracing, _):
            spans(tracing, 3)
            assert tracing.flush(WITHIN)
        assert collector.count == 3
        assert collector.requests[0]["authorization"] == "Bearer key"
        assert collector.requests[0]["content-encoding"] == "gzip"


def test_a_collector_that_is_away_gets_the_spans_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with caplog.at_level(logging.INFO), exporting(otlp(f"http://127.0.0.1:{port}")) as (tracing, exporter):
        spans(tracing, 10)
        until(lambda: len(caplog.records) == 1)
        spans(tracing, 10)
        with Collector(port) as collector:
            assert collector.wait_for(20) == 20
            until(lambda: exporter.counts.delivered == 20)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "Traces cannot be delivered",
        "Traces are delivered again.",
    ]
    assert f"http://127.0.0.1:{port}/v1/traces cannot be reached" in caplog.text


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_collector_that_cannot_now_is_asked_again(status: int) -> None:
    with Collector() as collector, exporting(otlp(collector.url)) as (tracing, exporter):
        collector.status = status
        spans(tracing, 5)
        until(lambda: len(collector.requests) == 1)
        assert exporter.counts == Exported(delivered=0, waiting=5, dropped=0, refused=0, lost=0)
        collector.status = 200
        assert collector.wait_for(5) == 5


def test_a_collector_that_names_a_time_is_left_alone_for_it() -> None:
    with Collector() as collector, exporting(otlp(collector.url)) as (tracing, _):
        collector.status, collector.headers = 503, {"retry-after": "2"}
        spans(tracing, 1)
        until(lambda: len(collector.requests) == 1)
        began = time.monotonic()
        collector.status, collector.headers = 200, {}
        assert collector.wait_for(1) == 1
        assert time.monotonic() - began > 1.5


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "PHOENIX_API_KEY"), (403, "PHOENIX_API_KEY"), (404, "/v1/traces"), (413, "too large"), (302, "302")],
)
def test_what_is_refused_for_good_is_counted_told_once_and_not_sent_again(
    status: int, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Collector() as collector, exporting(otlp(collector.url)) as (tracing, exporter):
        collector.status, collector.headers = status, {"location": "http://127.0.0.1:1/elsewhere"}
        for _ in range(3):
            spans(tracing, 2)
            assert not tracing.flush(WITHIN)
        assert exporter.counts == Exported(delivered=0, waiting=0, dropped=0, refused=6, lost=0)
        assert len(collector.requests) == 3
    told = [record.message for record in caplog.records]
    assert len(told) == 1
    assert told[0].startswith("Traces are refused")
    assert hint in told[0]


def test_spans_that_a_collector_left_out_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with Collector() as collector, exporting(otlp(collector.url)) as (tracing, exporter):
        collector.rejected = 2
        spans(tracing, 5)
        assert not tracing.flush(WITHIN)
        assert (exporter.counts.delivered, exporter.counts.refused) == (3, 2)
    assert "left out spans" in caplog.text


def test_a_silent_collector_costs_its_time_out_and_no_more() -> None:
    with black_hole() as url, exporting(otlp(url), QUICK._replace(timeout=0.2)) as (tracing, exporter):
        spans(tracing, 5)
        assert not tracing.flush(0.5)
        assert exporter.counts.waiting == 5


def test_what_finds_the_queue_full_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    may_go = threading.Event()

    class Stuck:
        def send(self, batch: Sequence[FinishedSpan], timeout: float) -> Sent:
            may_go.wait(WITHIN)
            return Sent(len(batch))

        def close(self) -> None:
            pass

    with exporting(Stuck(), ExportLimits(spans=100, batch=10, delay=0.0)) as (tracing, exporter):
        spans(tracing, 1_000)
        dropped = exporter.counts.dropped
        assert 880 <= dropped <= 900
        may_go.set()
        tracing.flush(WITHIN)
        assert exporter.counts == Exported(delivered=1_000 - dropped, waiting=0, dropped=dropped, refused=0, lost=0)
        until(lambda: "spans were dropped" in caplog.text)


def test_the_queue_is_bounded_by_characters_too() -> None:
    with black_hole() as url, exporting(otlp(url), QUICK._replace(characters=1_000_000)) as (tracing, exporter):
        spans(tracing, 1_000, text="x" * 30_000)
        counts = exporter.counts
        assert counts.dropped > 900
        # The queue and the batch under way, each of a million characters and the span that goes beyond.
        assert counts.waiting <= 2 * (1_000_000 // 30_000 + 1)


def test_a_fault_of_the_sink_loses_its_batch_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty:
        def __init__(self) -> None:
            self.batches = 0
            self.arrived = 0

        def send(self, batch: Sequence[FinishedSpan], timeout: float) -> Sent:
            self.batches += 1
            if self.batches == 1:
                raise KeyError("what")
            self.arrived += len(batch)
            return Sent(len(batch))

        def close(self) -> None:
            pass

    sink = Faulty()
    with exporting(sink) as (tracing, exporter):
        spans(tracing, 5)
        assert not tracing.flush(WITHIN)
        spans(tracing, 5)
        assert tracing.flush(WITHIN)
        assert sink.arrived == 5
        assert exporter.counts.lost == 5
    # A machine under load may drop spans meanwhile, which is told besides.
    (told,) = [record.message for record in caplog.records if "has a fault" in record.message]
    assert told.startswith("Tracing has a fault, and spans may be missing; this is told once. KeyError at ")
    assert "what" not in told


def test_a_span_that_cannot_be_made_ready_is_lost_alone() -> None:
    class Picky:
        def redact(self, key: str, value: str, names: tuple[str, ...]) -> str:
            if value == "poison":
                raise ValueError(value)
            return value

    with Collector() as collector:
        exporter = ExportThread(otlp(collector.url), Preparation(Picky()), QUICK)
        tracing = Tracing(exporter)
        spans(tracing, 2)
        spans(tracing, 1, text="poison")
        spans(tracing, 2)
        tracing.flush(WITHIN)
        assert collector.count == 4
        assert exporter.counts.lost == 1
        exporter.close()


@pytest.mark.parametrize("kind", ["away", "silent", "slow"])
def test_closing_takes_no_longer_than_it_may(kind: str) -> None:
    with Collector() as collector, black_hole() as hole:
        collector.delay = 30.0
        url = {"away": f"http://127.0.0.1:{free_port()}", "silent": hole, "slow": collector.url}[kind]
        exporter = ExportThread(otlp(url), Preparation(NoRedaction()), ExportLimits())
        tracing = Tracing(exporter)
        spans(tracing, 4_000)
        began = time.monotonic()
        tracing.close(1.0)
        assert time.monotonic() - began < 1.5
        assert exporter.counts.lost == 4_000
        spans(tracing, 1)
        assert exporter.counts.dropped == 1
        assert not exporter.flush(0.1) or not exporter.counts.waiting


def test_closing_delivers_what_waits() -> None:
    with Collector() as collector:
        exporter = ExportThread(otlp(collector.url), Preparation(NoRedaction()), ExportLimits(delay=60.0))
        spans(Tracing(exporter), 2_000)
        exporter.close(WITHIN)
        assert collector.count == 2_000
        assert exporter.counts == Exported(delivered=2_000, waiting=0, dropped=0, refused=0, lost=0)
        exporter.close(WITHIN)


async def test_ending_spans_neither_blocks_nor_waits_whatever_the_sink_does() -> None:
    may_go = threading.Event()

    class Blocks:
        def send(self, batch: Sequence[FinishedSpan], timeout: float) -> Sent:
            may_go.wait(WITHIN)
            return Sent(len(batch))

        def close(self) -> None:
            pass

    with exporting(Blocks(), ExportLimits(spans=1_000, batch=8, delay=0.0)) as (tracing, exporter):
        spans(tracing, 1)
        await asyncio.sleep(0.05)
        with blockbuster_ctx():
            longest = 0.0
            for _ in range(200):
                began = time.perf_counter()
                spans(tracing, 10, text="x" * 1_000)
                longest = max(longest, time.perf_counter() - began)
                await asyncio.sleep(0)
        assert exporter.counts.dropped > 900
        assert longest < 1.0
        may_go.set()


def test_spans_that_end_in_many_threads_all_arrive() -> None:
    with Collector() as collector, exporting(otlp(collector.url)) as (tracing, _):
        threads = [threading.Thread(target=spans, args=(tracing, 200)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tracing.flush(WITHIN)
        assert collector.count == 1_600


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_sends_its_own_spans_and_not_its_parents() -> None:
    with Collector() as collector, exporting(otlp(collector.url), QUICK._replace(delay=0.3)) as (tracing, exporter):
        spans(tracing, 3)
        child = os.fork()
        if child == 0:
            spans(tracing, 2, of="child")
            exporter.close(5.0)
            os._exit(0)
        os.waitpid(child, 0)
        assert tracing.flush(WITHIN)
        assert sorted(span.attributes.get("of", "parent") for span in collector.spans) == ["child"] * 2 + ["parent"] * 3
        assert len({span.span_id for span in collector.spans}) == 5
