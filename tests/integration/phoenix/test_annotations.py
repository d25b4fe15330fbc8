"""What is said of answers reaches a real Phoenix: once its spans have arrived, and each time it changes."""

from __future__ import annotations

import secrets
import time
import urllib.request

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from guidance_agent.core.annotations import IDENTIFIER
from guidance_agent.core.database import Database
from guidance_agent.core.phoenix_address import PhoenixAddress
from guidance_agent.phoenix import LocalPhoenix
from tests.integration.core.annotation_desk import AnnotationDesk, said
from tests.integration.phoenix.reading import Reader

PROJECT = "annotations"


def export(phoenix: LocalPhoenix, *span_ids: str) -> None:
    """Have spans arrive, each in a trace of its own."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add()
    spans.resource.attributes.add(key="openinference.project.name").value.string_value = PROJECT
    scope = spans.scope_spans.add()
    now = time.time_ns()
    for span_id in span_ids:
        scope.spans.add(
            trace_id=secrets.token_bytes(16),
            span_id=bytes.fromhex(span_id),
            name="guidance",
            start_time_unix_nano=now,
            end_time_unix_nano=now + 1_000_000,
        )
    headers = {"content-type": "application/x-protobuf"}
    sent = urllib.request.Request(phoenix.traces_endpoint, request.SerializeToString(), headers)  # noqa: S310
    with urllib.request.urlopen(sent, timeout=30) as answer:  # noqa: S310
        assert answer.status == 200


@pytest.fixture
def desk(database: Database, phoenix: LocalPhoenix) -> AnnotationDesk:
    return AnnotationDesk(database, PhoenixAddress(base_url=phoenix.endpoint, headers={}))


async def delivered(desk: AnnotationDesk, count: int) -> None:
    """Look until so many have arrived; Phoenix stores spans a little after it took them."""
    deadline = time.monotonic() + 60
    arrived = 0
    while arrived < count:
        assert time.monotonic() < deadline, await desk.rows()
        desk.clock.passes(600)
        arrived += await desk.delivery.run()


async def test_annotations_wait_for_their_spans_and_arrive_with_all_that_was_said(
    desk: AnnotationDesk, phoenix: LocalPhoenix
) -> None:
    there, late = secrets.token_hex(8), secrets.token_hex(8)
    await desk.turns(2, span_ids=[there, late])
    await desk.say(0, said("failed", "advice_boundary (high; R): a steer “Janet should sell”"))
    await desk.say(1, said("passed"))
    export(phoenix, there)
    await delivered(desk, 1)
    states = {row["span_id"]: row["error"] for row in await desk.rows()}
    assert states == {there: None, late: "the span has not arrived"}
    (annotation,) = Reader(phoenix, PROJECT).annotations(there)
    assert (annotation["name"], annotation["identifier"], annotation["annotator_kind"]) == (
        "compliance",
        IDENTIFIER,
        "LLM",
    )
    assert annotation["result"] == {
        "label": "failed",
        "score": 0.0,
        "explanation": "advice_boundary (high; R): a steer “[NAME] should sell”",
    }
    assert annotation["metadata"] == {"confidence": 0.9, "turn_id": "t0", "verdict_id": None}
    export(phoenix, late)
    await delivered(desk, 1)
    (annotation,) = Reader(phoenix, PROJECT).annotations(late)
    assert annotation["result"]["label"] == "passed"


async def test_what_is_said_again_replaces_what_was_said_and_a_review_stands_beside_it(
    desk: AnnotationDesk, phoenix: LocalPhoenix
) -> None:
    span_id = secrets.token_hex(8)
    await desk.turns(1, span_ids=[span_id])
    export(phoenix, span_id)
    await desk.say(0, said("failed"))
    await delivered(desk, 1)
    await desk.say(0, said("passed"))
    await desk.say(0, said("passed", name="review"))
    await delivered(desk, 2)
    found = Reader(phoenix, PROJECT).annotations(span_id)
    assert {each["name"]: each["result"]["label"] for each in found} == {"compliance": "passed", "review": "passed"}
    assert len(found) == 2
