"""However the bytes of an answer are cut on their way, what is shown and what is recorded are the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import pytest

from guidance_agent import AdvisorAgent, Completed, Runtime, TextDelta
from guidance_agent.provider_simulator import ProviderSimulator, Script, SimulatorSettings
from tests.integration.advisor.wiring import author_says, wired_settings
from tests.integration.attacks.evidence import asks, check_ended, public, replayed, shown

of_the_wire = pytest.mark.only_on("sqlite")
"""What is cut is on the wire; each round compares with records of its own, for which a folder is enough."""

TEXTS = {
    "ascii": "You can take a quarter free of tax. The rest counts as income, so it may be taxed.",
    "emoji": "Family: \N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}. Money: \N{BANKNOTE WITH POUND SIGN}\ufe0f. Flag: "
    "\N{REGIONAL INDICATOR SYMBOL LETTER G}\N{REGIONAL INDICATOR SYMBOL LETTER B}!",
    "combining": "Cafe\u0301 n\u0303andu\u0301 \u1112\u1161\u11ab Z\u0351\u036b\u0343algo",
    "cjk": "養老金可以分幾次領取。税金は所得によって変わります。연금은 나누어 받을 수 있습니다.",
    "right_to_left": "\u202bالمعاش التقاعدي\u202c and \u05e4\u05e0\u05e1\u05d9\u05d4 mixed",
    "reasoning_tags": "<think>weigh it \N{THINKING FACE}</think>Shown. a < b, <b>bold</b>, <thinker>, <thinking>.",
    "cut_reasoning": "Shown first.\n<thinking>never closed, so never shown",
    "line_ends": "One\r\ntwo\rthree\n\n\u2028four\u0085\u000bfive\tsix data: [DONE]\n\nevent: message_stop\n\n",
    "unstorable": "before\x00after \x07 \ufeff \ufffe end",
}


class Outcome(NamedTuple):
    text: str
    finish_reason: str
    output_tokens: int
    input_tokens: int


async def outcome(runtime: Runtime, advisor: AdvisorAgent, customer_id: str) -> Outcome:
    async with advisor.consult(asks(customer_id), use_reasoning=False) as turn:
        events = [event async for event in turn]
    done = events[-1]
    assert isinstance(done, Completed)
    assert shown(events) == done.text
    deltas = [event for event in events if isinstance(event, TextDelta)]
    assert "".join(done.text[delta.start : delta.end] for delta in deltas) == done.text
    assert await replayed(runtime, turn.turn_id) == public(events)
    await check_ended(runtime, turn.turn_id, done.text)
    assert done.usage is not None
    return Outcome(done.text, done.finish_reason, done.usage.output_tokens, done.usage.total_input_tokens)


async def outcomes(
    settings: SimulatorSettings, wire: str, data_dir: Path, scripts: list[Script], **more: object
) -> list[Outcome]:
    async with (
        ProviderSimulator(settings) as simulator,
        Runtime(wired_settings(simulator, wire, data_dir, **more), environ={}) as runtime,
        AdvisorAgent(runtime=runtime) as advisor,
    ):
        found = []
        for number, script in enumerate(scripts):
            author_says(simulator, wire, script, times=1)
            found.append(await outcome(runtime, advisor, f"customer-{number:03}"))
        return found


@of_the_wire
@pytest.mark.parametrize("line_ending", ["\n", "\r\n"])
async def test_the_cuts_of_the_bytes_change_nothing(wire: str, tmp_path: Path, line_ending: str) -> None:
    scripts = [Script(text=text) for text in TEXTS.values()]
    plain = SimulatorSettings.instant(seed=1).but(line_ending=line_ending, extra_ping_rate=0.3)
    expected = await outcomes(plain, wire, tmp_path / "event", scripts)
    for seed, mode in ((1, "byte"), (2, "random"), (3, "random")):
        cut = plain.but(chunk_mode=mode, seed=seed)
        assert await outcomes(cut, wire, tmp_path / f"{mode}{seed}", scripts) == expected


def pieces_of(text: str, rng: random.Random) -> tuple[str, ...]:
    pieces, rest = [], text
    while rest:
        size = rng.choice((1, 1, 2, 3, 7, 20))
        pieces.append(rest[:size])
        rest = rest[size:]
    return tuple(pieces)


@of_the_wire
async def test_the_cuts_of_the_provider_change_no_text(wire: str, tmp_path: Path) -> None:
    whole = [Script(pieces=(text,)) for text in TEXTS.values()]
    plain = SimulatorSettings.instant(seed=1)
    expected = [found[:2] for found in await outcomes(plain, wire, tmp_path / "whole", whole)]
    for seed in range(4):
        rng = random.Random(f"{wire}{seed}")
        scripts = [Script(pieces=pieces_of(text, rng)) for text in TEXTS.values()]
        cut = plain.but(chunk_mode="random" if seed % 2 else "event", seed=seed)
        assert [found[:2] for found in await outcomes(cut, wire, tmp_path / f"cut{seed}", scripts)] == expected


async def test_reasoning_in_the_text_is_not_shown_and_no_other_text_is_lost(wire: str, tmp_path: Path) -> None:
    names = list(TEXTS)
    found = await outcomes(
        SimulatorSettings.instant(seed=1).but(chunk_mode="byte"),
        wire,
        tmp_path / "data",
        [Script(text=text) for text in TEXTS.values()],
        gate={"mode": "off", "closing": False},
    )
    texts = dict(zip(names, (one.text for one in found), strict=True))
    assert texts.pop("reasoning_tags") == TEXTS["reasoning_tags"].partition("</think>")[2]
    assert texts.pop("unstorable") == TEXTS["unstorable"].replace("\x00", "\ufffd")
    assert texts.pop("cut_reasoning").strip() == "Shown first."
    assert texts == {name: TEXTS[name] for name in texts}
