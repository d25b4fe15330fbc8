"""What is said of an answer reaches Phoenix, whatever happens there, and no process sends what another one does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from guidance_agent.core.annotation_delivery import LEASE_SECONDS, Delivered
from guidance_agent.core.annotations import IDENTIFIER
from guidance_agent.core.database import Database
from tests.integration.core.annotation_desk import NOON, AnnotationDesk, said, span_of
from tests.integration.core.fake_phoenix import FakePhoenix, fake_phoenix


class Desk(AnnotationDesk):
    """With a Phoenix that does what a test wants."""

    def __init__(self, database: Database, phoenix: FakePhoenix) -> None:
        super().__init__(database, phoenix.address)
        self.phoenix = phoenix


@pytest_asyncio.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    async with fake_phoenix() as phoenix:
        yield Desk(database, phoenix)


async def test_an_annotation_arrives_as_phoenix_wants_it_and_once(desk: Desk) -> None:
    await desk.turns(1)
    await desk.say(0, said("failed", "advice_boundary: “Janet should sell”"))
    assert await desk.delivery.run() == 1
    (sent,) = desk.phoenix.stored.values()
    assert sent == {
        "span_id": span_of(0),
        "name": "compliance",
        "annotator_kind": "LLM",
        "identifier": IDENTIFIER,
        "result": {"label": "failed", "score": 0.0, "explanation": "advice_boundary: “[NAME] should sell”"},
        "metadata": {"confidence": 0.9, "turn_id": "t0", "verdict_id": None},
    }
    row = await desk.row()
    assert (row["sent_at"], row["attempts"], row["error"]) == (NOON, 1, None)
    # The records keep what was said; only what leaves is redacted.
    assert "Janet" in row["explanation"]
    desk.clock.passes(86_400)
    assert await desk.delivery.run() == 0
    assert len(desk.phoenix.requests) == 1


async def test_many_are_sent_in_batches_and_a_look_is_bounded(desk: Desk) -> None:
    await desk.annotated(250)
    assert await desk.delivery.run() == 250
    assert [len(request) for request in desk.phoenix.requests] == [100, 100, 50]
    for number in range(30):
        await desk.say(number, said("failed", name="review"))
    desk.phoenix.rejects = {"review"}
    desk.phoenix.requests.clear()
    assert await desk.delivery.run() == 0
    assert len(desk.phoenix.requests) == 20


async def test_what_is_said_later_replaces_what_was_said_before(desk: Desk) -> None:
    await desk.annotated(1)
    await desk.delivery.run()
    await desk.say(0, said("failed"))
    assert await desk.delivery.run() == 1
    (stored,) = desk.phoenix.stored.values()
    assert stored["result"]["label"] == "failed"


async def test_a_span_that_has_not_arrived_is_waited_for_without_holding_up_the_others(desk: Desk) -> None:
    desk.phoenix.spans = {span_of(0), span_of(2)}
    await desk.annotated(4)
    assert await desk.delivery.run() == 2
    assert {key[0] for key in desk.phoenix.stored} == desk.phoenix.spans
    waits = [row for row in await desk.rows() if row["sent_at"] is None]
    assert [row["attempts"] for row in waits] == [1, 1]
    assert all("not arrived" in row["error"] for row in waits)
    # Not asked again at once, and later and later.
    gaps: list[float] = []
    for _ in range(12):
        row = next(row for row in await desk.rows() if row["sent_at"] is None)
        gaps.append(row["next_attempt"] - desk.clock.now().timestamp())
        desk.clock.passes(gaps[-1] - 0.01)
        asked = len(desk.phoenix.requests)
        assert await desk.delivery.run() == 0
        assert len(desk.phoenix.requests) == asked
        desk.clock.passes(0.01)
        assert await desk.delivery.run() == 0
    assert gaps == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 600.0, 600.0]
    desk.phoenix.spans = None
    desk.clock.passes(600)
    assert await desk.delivery.run() == 2
    assert len(desk.phoenix.stored) == 4


async def an_hour(desk: Desk) -> int:
    """Let an hour pass with a look every twenty seconds; return how many annotations arrived."""
    arrived = 0
    for _ in range(180):
        desk.clock.passes(20)
        arrived += await desk.delivery.run()
    return arrived


async def test_an_hour_without_phoenix_loses_nothing_and_is_told_once(
    desk: Desk, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "guidance_agent.annotations")
    async with fake_phoenix() as other:
        port = other.port
        desk.address = other.address
    await desk.annotated(150)
    assert await an_hour(desk) == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"http://127.0.0.1:{port}" in caplog.text
    async with fake_phoenix(port) as back:
        desk.clock.passes(60)
        assert await desk.delivery.run() == 150
        assert len(back.stored) == 150
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert {row["attempts"] for row in await desk.rows()} == {1}


@pytest.mark.parametrize("status", [500, 507, 429])
async def test_a_phoenix_in_trouble_is_left_alone_longer_and_longer_and_then_gets_everything(
    desk: Desk, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    desk.phoenix.always = status
    await desk.annotated(150)
    assert await an_hour(desk) == 0
    # Pauses of up to a minute: a request a minute, and a few at the beginning.
    assert 55 <= len(desk.phoenix.requests) <= 65
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    desk.phoenix.always = None
    desk.clock.passes(60)
    assert await desk.delivery.run() == 150
    assert len(desk.phoenix.stored) == 150


async def test_phoenix_is_left_alone_for_as_long_as_it_asks(desk: Desk) -> None:
    desk.phoenix.always, desk.phoenix.headers = 429, {"retry-after": "300"}
    await desk.annotated(1)
    await desk.delivery.run()
    desk.clock.passes(299)
    await desk.delivery.run()
    assert len(desk.phoenix.requests) == 1
    desk.clock.passes(1)
    await desk.delivery.run()
    assert len(desk.phoenix.requests) == 2


async def test_a_phoenix_that_says_nothing_is_given_up_and_tried_again(desk: Desk) -> None:
    desk.phoenix.answers.append(0)
    await desk.annotated(1)
    patient = desk.another(timeout=0.1)
    assert await patient.run() == 0
    assert "no answer" in (await desk.row())["error"]
    desk.clock.passes(1)
    assert await patient.run() == 1


async def test_refused_then_lost_then_unknown_then_well_arrives(desk: Desk) -> None:
    await desk.annotated(1)
    desk.phoenix.answers += [500, 0, 401, 503]
    desk.phoenix.spans = set()
    delivery = desk.another(timeout=0.1)
    seconds = 0
    while not desk.phoenix.stored and seconds < 600:
        await delivery.run()
        desk.clock.passes(1)
        seconds += 1
        if len(desk.phoenix.requests) == 7:
            desk.phoenix.spans = None
    assert len(desk.phoenix.stored) == 1
    assert seconds < 60
    assert (await desk.row())["error"] is None


@pytest.mark.parametrize("status", [401, 403])
async def test_a_wrong_key_is_told_once_with_the_variable_that_holds_it(
    desk: Desk, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    desk.phoenix.always = status
    await desk.annotated(3)
    assert await an_hour(desk) == 0
    assert ["PHOENIX_API_KEY" in record.getMessage() for record in caplog.records] == [True]
    desk.phoenix.always, desk.phoenix.key = None, "Bearer right"
    desk.address = desk.phoenix.address
    desk.clock.passes(60)
    assert await desk.delivery.run() == 3


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, "404 page not found"), (405, ""), (501, ""), (302, ""), (200, "<!doctype html>"), (200, '{"data": 1}')],
)
async def test_another_backend_is_asked_rarely_and_without_noise(
    desk: Desk, status: int, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    desk.phoenix.always, desk.phoenix.body = status, body
    await desk.annotated(3)
    assert await an_hour(desk) == 0
    assert len(desk.phoenix.requests) <= 7
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert await desk.backlog.waiting() == 3
    # A Phoenix at another address gets them at once.
    async with fake_phoenix() as other:
        desk.address = other.address
        assert await desk.delivery.run() == 3


async def test_one_that_is_rejected_holds_up_no_other(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.phoenix.rejects = {"odd"}
    await desk.annotated(60)
    await desk.say(7, said(name="odd"))
    assert await desk.delivery.run() == 60
    (odd,) = (row for row in await desk.rows() if row["sent_at"] is None)
    assert (odd["name"], odd["attempts"]) == ("odd", 1)
    assert "422" in odd["error"]
    asked = len(desk.phoenix.requests)
    desk.clock.passes(59)
    await desk.delivery.run()
    assert len(desk.phoenix.requests) == asked
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    desk.phoenix.rejects = set()
    desk.clock.passes(1)
    assert await desk.delivery.run() == 1


async def test_processes_that_look_at_once_send_nothing_twice(desk: Desk) -> None:
    await desk.annotated(300)
    sent = await asyncio.gather(*(desk.another().run() for _ in range(4)))
    assert sum(sent) == 300
    assert len(desk.phoenix.times_stored) == len(set(desk.phoenix.times_stored)) == 300


async def test_what_a_process_had_taken_when_it_died_is_sent_after_its_lease(desk: Desk) -> None:
    await desk.annotated(1)
    desk.phoenix.answers.append(0)
    dying = asyncio.create_task(desk.delivery.run())
    await asyncio.wait_for(desk.phoenix.arrived.wait(), 10)
    dying.cancel()
    await asyncio.wait([dying])
    other = desk.another()
    assert await other.run() == 0
    desk.clock.passes(LEASE_SECONDS)
    assert await other.run() == 1


async def test_what_is_replaced_on_its_way_is_sent_anew_and_last(desk: Desk) -> None:
    await desk.annotated(1)
    desk.phoenix.answers.append(0)
    looking = asyncio.create_task(desk.delivery.run())
    await asyncio.wait_for(desk.phoenix.arrived.wait(), 10)
    await desk.say(0, said("failed"))
    # Nobody overtakes what is under way.
    assert await desk.another().run() == 0
    desk.phoenix.goes_on.set()
    await looking
    await desk.delivery.run()
    assert [request[0]["result"]["label"] for request in desk.phoenix.requests] == ["passed", "failed"]
    assert next(iter(desk.phoenix.stored.values()))["result"]["label"] == "failed"
    row = await desk.row()
    assert (row["version"], row["sent_at"]) == (2, desk.clock.now())


async def test_after_its_days_an_annotation_is_tried_no_more_and_kept(desk: Desk) -> None:
    desk.phoenix.spans = set()
    await desk.annotated(1)
    desk.clock.passes(29.9 * 86_400)
    await desk.delivery.run()
    assert len(desk.phoenix.requests) == 1
    desk.clock.passes(0.2 * 86_400)
    await desk.delivery.run()
    assert len(desk.phoenix.requests) == 1
    assert await desk.backlog.waiting() == 0
    assert (await desk.row())["sent_at"] is None


async def test_without_a_phoenix_everything_waits_for_one(desk: Desk) -> None:
    address, desk.address = desk.address, None
    await desk.annotated(2)
    assert await desk.delivery.drain() == Delivered(sent=0, waiting=2)
    desk.address = address
    assert await desk.delivery.drain() == Delivered(sent=2, waiting=0)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_draining_sends_what_can_be_sent_and_says_what_waits(desk: Desk) -> None:
    desk.phoenix.spans = {span_of(number) for number in range(2_010)} - {span_of(5)}
    await desk.annotated(2_010)
    assert await desk.delivery.drain() == Delivered(sent=2_009, waiting=1)


async def test_nothing_is_imported_or_written_while_nothing_waits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_transaction(*_: object) -> None:
        pytest.fail("a look that found nothing wrote something")

    monkeypatch.setattr(desk.database, "transaction", no_transaction)
    assert await desk.delivery.run() == 0
    assert desk.phoenix.requests == []


async def test_before_a_process_ends_what_was_too_early_is_sent_when_its_span_is_there(desk: Desk) -> None:
    desk.phoenix.spans = set()
    await desk.annotated(1)
    await desk.delivery.run()

    def flush() -> bool:
        desk.phoenix.spans = None
        return True

    await desk.delivery.last_look(flush)
    assert len(desk.phoenix.stored) == 1


@pytest.mark.parametrize("why", ["nothing waits", "spans do not arrive", "phoenix is away"])
async def test_a_process_ends_without_a_last_look_that_would_be_in_vain(desk: Desk, why: str) -> None:
    if why != "nothing waits":
        await desk.annotated(1)
    if why == "phoenix is away":
        desk.phoenix.always = 503
        await desk.delivery.run()
    asked, flushed = len(desk.phoenix.requests), []

    def flush() -> bool:
        flushed.append(why)
        return False

    await desk.delivery.last_look(flush)
    assert len(desk.phoenix.requests) == asked
    assert flushed == (["spans do not arrive"] if why == "spans do not arrive" else [])


async def test_what_was_on_its_way_when_the_background_stopped_is_sent_in_the_last_look(desk: Desk) -> None:
    await desk.annotated(1)
    desk.phoenix.answers.append(0)
    looking = asyncio.create_task(desk.delivery.run())
    await asyncio.wait_for(desk.phoenix.arrived.wait(), 10)
    looking.cancel()
    await asyncio.wait([looking])
    await desk.delivery.last_look(lambda: True)
    assert len(desk.phoenix.stored) == 1
    assert (await desk.row())["sent_at"] is not None
