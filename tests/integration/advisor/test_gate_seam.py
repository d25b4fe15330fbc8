"""What a gate withholds is not shown: its replacement is, and the event says where it stands."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from guidance_agent import AdvisorAgent, Completed, CustomerProfile, TextDelta, Withheld
from guidance_agent.compliance.gate import OpenGate, Released, Withholding
from guidance_agent.compliance.gatekeeper import Gatekeeper
from guidance_agent.provider_simulator import ProviderSimulator, Script
from tests.integration.advisor.wiring import author_says


class HoldsSteers(OpenGate):
    """Holds text until its sentence has ended and replaces those that say `you should`."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> Sequence[Released]:
        *whole, self._held = (self._held + text).split("|")
        return [self._judged(sentence) for sentence in whole]

    def finish(self, *, ask: bool = False) -> Sequence[Released]:
        held, self._held = self._held, ""
        return [self._judged(held)] if held else []

    def _judged(self, sentence: str) -> Released:
        if "you should" in sentence:
            return Withholding("advice_boundary", "a steer", "That choice is yours. ")
        return sentence


@pytest.mark.parametrize("cut", [1, 3, 1_000])
async def test_what_a_gate_withholds_is_replaced_in_its_place(
    wired: AdvisorAgent,
    simulator: ProviderSimulator,
    wire: str,
    janet: CustomerProfile,
    monkeypatch: pytest.MonkeyPatch,
    cut: int,
) -> None:
    monkeypatch.setattr(Gatekeeper, "gate", lambda *_, **__: HoldsSteers())
    said = "Some keep it. |I think you should take it. |Others take it."
    pieces = tuple(said[start : start + cut] for start in range(0, len(said), cut))
    author_says(simulator, wire, Script(pieces=pieces))
    async with wired.consult(janet, use_reasoning=False) as turn:
        events = [event async for event in turn if event.public]
    shown = "Some keep it. That choice is yours. Others take it."
    assert isinstance(events[-1], Completed)
    assert events[-1].text == shown
    (withheld,) = [event for event in events if isinstance(event, Withheld)]
    assert shown[withheld.start : withheld.end] == "That choice is yours. "
    assert (withheld.check, withheld.reason) == ("advice_boundary", "a steer")
    after = [event for event in events if isinstance(event, TextDelta) and event.sequence > withheld.sequence]
    assert after[0].start == withheld.start
    assert [event.sequence for event in events] == list(range(len(events)))


def test_the_open_gate_releases_every_piece_as_it_comes() -> None:
    gate = OpenGate()
    assert list(gate.feed("you should")) == ["you should"]
    assert list(gate.finish()) == []
