"""A stream that is cut after each of its pieces: a typed end, the shown prefix on record, nothing shown twice."""

from __future__ import annotations

import pytest

from guidance_agent import AdvisorAgent, Completed, Failed, Runtime
from guidance_agent.errors import GuidanceAgentError, MalformedResponseError, MidStreamError, StreamTruncated
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.wiring import author_fails, author_requests
from tests.integration.attacks.evidence import asks, check_ended, public, replayed, shown

PIECES = ("One. ", "Two \N{BANKNOTE WITH POUND SIGN}. ", "Three. ", "Cafe\u0301. ", "End.")
TEXT = "".join(PIECES)
SCRIPT = Script(pieces=PIECES, first_ms=0, interval_ms=0)

CUTS: dict[str, tuple[dict[str, object], type[GuidanceAgentError]]] = {
    "truncate": ({"kind": "truncate"}, StreamTruncated),
    "close": ({"kind": "drop", "abrupt": False}, MidStreamError),
    "reset": ({"kind": "drop"}, MidStreamError),
    "error_event": ({"kind": "error_event"}, MidStreamError),
    "garbage": ({"kind": "garbage"}, MalformedResponseError),
}


@pytest.mark.parametrize("cut", CUTS)
async def test_a_cut_after_any_piece_ends_the_turn_with_a_typed_error_and_its_prefix_on_record(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str, cut: str
) -> None:
    fault, error = CUTS[cut]
    for after in range(1, len(PIECES) + 1):
        before = len(author_requests(simulator, wire))
        author_fails(simulator, wire, after_chunks=after, script=SCRIPT, **fault)
        async with wired.consult(asks(f"after-{after}"), use_reasoning=False) as turn:
            events = [event async for event in turn]
        end = events[-1]
        assert isinstance(end, Failed)
        assert end.error == error.__name__
        assert isinstance(turn.exception, error)
        delivered = shown(events)
        # A reset may overtake what was sent before it; anything else may not lose a character.
        assert TEXT.startswith(delivered)
        assert cut == "reset" or delivered == "".join(PIECES[:after])
        row = await check_ended(wired_runtime, turn.turn_id, delivered)
        assert row["state"] == "failed"
        assert await replayed(wired_runtime, turn.turn_id) == public(events)
        assert len(author_requests(simulator, wire)) == before + 1


@pytest.mark.parametrize("cut", ["truncate", "close", "reset", "error_event"])
async def test_a_cut_before_the_first_piece_is_tried_again_and_nothing_is_shown_twice(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str, cut: str
) -> None:
    author_fails(simulator, wire, after_chunks=0, script=SCRIPT, **CUTS[cut][0])
    author_fails(simulator, wire, kind="script", script=SCRIPT)
    async with wired.consult(asks("c"), use_reasoning=False) as turn:
        events = [event async for event in turn]
    assert isinstance(events[-1], Completed)
    assert shown(events) == TEXT
    assert len(author_requests(simulator, wire)) == 2
    await check_ended(wired_runtime, turn.turn_id, TEXT)


async def test_a_caller_who_stops_after_any_piece_leaves_that_prefix_on_record(
    wired: AdvisorAgent, wired_runtime: Runtime, simulator: ProviderSimulator, wire: str
) -> None:
    slow = Script(pieces=PIECES, first_ms=0, interval_ms=15)
    for stop_at in range(1, len(PIECES)):
        author_fails(simulator, wire, kind="script", script=slow)
        delivered, seen = "", 0
        async with wired.consult(asks(f"stop-{stop_at}"), use_reasoning=False) as turn:
            async for event in turn:
                if text := shown([event]):
                    delivered, seen = delivered + text, seen + 1
                if seen == stop_at:
                    break
        assert delivered
        row = await check_ended(wired_runtime, turn.turn_id, delivered)
        assert row["state"] == ("completed" if delivered == TEXT else "closed_early")
