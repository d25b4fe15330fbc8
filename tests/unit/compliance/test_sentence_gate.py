"""The gate is a function of the text: however it is cut, the same is released, withheld and found."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guidance_agent.compliance.gate import Released, SentenceGate, Withholding
from guidance_agent.compliance.policy import load_policy
from guidance_agent.compliance.sentences import SentenceVerdict
from guidance_agent.compliance.standard_rules import sentence_rules

STEER = "If I were you, I would take the whole pot out now."
TEXTS = (
    f"Some people draw an income. {STEER} Others keep it invested.\n\nPension Wise explains each option for free.",
    "You can take it from 55 (57 from 6 April 2028), e.g. in parts. Mr. Lee asked for £11,502.40 a year… and got 5.8%!",
    f"- {STEER}\n- {STEER}\n\n1. Ask the provider.\n2. People like you should move it across straight away.",
    "“You should drain it before April” is his view; tax, benefits and your own wishes all bear on it. Naïve 🙂.",
    "No end " * 400 + STEER,
    "x" * 3_000 + " " + STEER,
    "Then combine the lot, " * 120,
    " \n\n \t leading space. " + STEER + "   \n",
)


def passed(pieces: Iterable[str]) -> tuple[list[Released], list[tuple[int, SentenceVerdict]]]:
    """Return what was released, neighbouring text joined, and the verdicts on what was held."""
    verdicts: list[tuple[int, SentenceVerdict]] = []
    gate = SentenceGate(
        sentence_rules(), load_policy(), judged=lambda start, verdict: verdicts.append((start, verdict))
    )
    joined: list[Released] = []
    for released in [*(gate.feed(piece) for piece in pieces), gate.finish()]:
        for item in released:
            if isinstance(item, str) and joined and isinstance(joined[-1], str):
                joined[-1] += item
            elif item:
                joined.append(item)
    return joined, verdicts


def written(item: Released) -> str:
    """What the model wrote there."""
    if isinstance(item, str):
        return item
    return item.withheld if isinstance(item, Withholding) else item.text


def cuts(text: str, rng: random.Random) -> Iterable[str]:
    place = 0
    while place < len(text):
        size = rng.choice((1, 1, 2, 3, 5, 8, 40, 400))
        yield text[place : place + size]
        place += size


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_thousand_splits_release_withhold_and_find_the_same(text: str) -> None:
    whole = passed([text])
    splits = 1_000 if len(text) < 200 else 40
    for seed in range(splits):
        assert passed(cuts(text, random.Random(seed))) == whole, seed


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([*"aI. ,!?\n\u200b“”‘’£5%…-'", STEER, " you should ", "e.g. ", "n't "]), max_size=60),
    st.data(),
)
def test_any_text_in_any_pieces_is_the_same(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    bounds = [0, *places, len(text)]
    assert passed(text[start:end] for start, end in pairwise(bounds)) == passed([text])


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_what_is_released_and_what_is_withheld_are_together_the_text(text: str) -> None:
    released, _ = passed([text])
    assert "".join(map(written, released)) == text


def test_a_steer_is_withheld_and_replaced_in_its_place() -> None:
    released, _ = passed([TEXTS[0]])
    first, withheld, rest = released
    assert isinstance(first, str) and isinstance(withheld, Withholding) and isinstance(rest, str)
    assert first == "Some people draw an income. "
    assert withheld.check == "advice_boundary"
    assert "your own decision" in withheld.replacement
    assert rest.startswith("Others keep it invested.")
    assert "whole pot" not in first + withheld.replacement + rest


@pytest.mark.parametrize("nothing", ["\u115f", "\u200b", "\u3164", "\U000e0041", "\u0301"])
def test_letters_that_are_none_are_no_words(nothing: str) -> None:
    released, _ = passed([f"{nothing} A pension {nothing} is paid monthly{nothing}. {nothing}"])
    assert "".join(map(written, released)) == f"{nothing} A pension {nothing} is paid monthly{nothing}. {nothing}"


def test_text_without_a_cue_is_never_kept_back_by_more_than_a_word() -> None:
    text = "A pension provider sends a statement once a year, and it shows charges in pounds. The law says so."
    gate = SentenceGate(sentence_rules(), load_policy())
    out = ""
    for place, letter in enumerate(text, 1):
        out += "".join(item for item in gate.feed(letter) if isinstance(item, str))
        assert len(text[:place]) - len(out) <= len(text[:place].rsplit(" ", 1)[-1])
    out += "".join(item for item in gate.finish() if isinstance(item, str))
    assert out == text
    assert gate.held == ""


@pytest.mark.parametrize(
    "disguised",
    [
        "If I w\u200bere y\u00adou, I wou\u2060ld ta\u200dke the whole p\ufeffot out now.",
        "\u202eIf I were you, I would take the whole pot out now.",
        "If I wеrе уоu, I wоuld tаkе thе whоlе pоt оut nоw.",
        "Ｉｆ Ｉ ｗｅｒｅ ｙｏｕ, I would take the whole pot out now.",
        "If I were you, I’d take the whole pot out now.",
        "IF I WERE YOU, I WOULD TAKE THE WHOLE POT OUT NOW.",
        "If  I\u00a0were\tyou, I would take the whole pot out now.",
    ],
)
def test_invisible_and_lookalike_letters_hide_nothing(disguised: str) -> None:
    released, _ = passed([f"Fine. {disguised} Fine."])
    assert any(isinstance(item, Withholding) for item in released)


@pytest.mark.parametrize("unit", ["a", "you should ", "take the lot, ", "“", "£1", "\u200b", "If I were you ", "é"])
def test_a_megabyte_without_an_end_takes_linear_time(unit: str) -> None:
    took = []
    for size in (50_000, 200_000):
        text = (unit * (size // len(unit) + 1))[:size]
        began = time.process_time()
        released, _ = passed([text])
        took.append(time.process_time() - began)
        assert sum(len(written(item)) for item in released) == size
    assert took[1] < 12 * took[0] + 1
