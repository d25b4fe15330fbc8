"""Text goes to standard output unchanged, everything else beside it; JSON lines hold public events only."""

from __future__ import annotations

import json
import sys

import pytest

from guidance_agent import Completed, ContextRetrieved, Corrected, Event, ReasoningDelta, TextDelta, TurnStarted
from guidance_agent.advisor.events import TurnTiming
from guidance_agent.cli.margin import Margin
from guidance_agent.cli.printers import JsonPrinter, TextPrinter, make_printer

STARTED = TurnStarted(turn_id="t", sequence=0, consultation_id="c", model="anthropic/claude-sonnet-5-5", simulated=True)
CONTEXT = ContextRetrieved(turn_id="t", sequence=0, facts=("TX-09",))
NOTES = ReasoningDelta(turn_id="t", sequence=0, text="Needs tax.")
TEXT = TextDelta(turn_id="t", sequence=1, text="£38,000 \x1b[31mred", start=0, end=16)
COMPLETED = Completed(
    turn_id="t",
    sequence=2,
    text=TEXT.text,
    finish_reason="length",
    usage=None,
    timing=TurnTiming(),
    cost_usd=None,
    cache_outcome="unknown",
    simulated=True,
)
EVENTS: tuple[Event, ...] = (STARTED, CONTEXT, NOTES, TEXT, COMPLETED)


def test_text_goes_out_unchanged_and_ends_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    printer = TextPrinter(Margin(notes=False))
    for event in EVENTS:
        printer.show(event)
    printer.end()
    seen = capsys.readouterr()
    assert seen.out == TEXT.text + "\n"
    assert seen.err.count("Simulated:") == 1
    assert "Needs tax" not in seen.err
    assert "cut off" in seen.err


def test_a_terminal_gets_no_commands_from_an_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    TextPrinter(Margin(notes=False)).show(TEXT)
    assert capsys.readouterr().out == "£38,000 \ufffd[31mred"


def test_private_notes_are_shown_beside_the_answer_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    printer = make_printer(Margin(notes=False), as_json=False, show_reasoning=True, all_events=False)
    for event in EVENTS:
        printer.show(event)
    seen = capsys.readouterr()
    assert "Private notes: Needs tax." in seen.err
    assert "Needs tax" not in seen.out


def test_a_correction_is_never_silent(capsys: pytest.CaptureFixture[str]) -> None:
    printer = TextPrinter(Margin(notes=False))
    printer.show(
        Corrected(turn_id="t", sequence=3, start=0, end=4, replacement="At 57.", reason="wrong age", verdict_id="v")
    )
    assert "Correction: At 57. (wrong age)" in capsys.readouterr().err


def test_notes_are_written_only_when_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    for wanted in (True, False):
        TextPrinter(Margin(notes=wanted)).show(COMPLETED)
        assert ("no price known" in capsys.readouterr().err) is wanted


@pytest.mark.parametrize(
    ("options", "types"),
    [
        ({}, ["turn_started", "text_delta", "completed"]),
        ({"show_reasoning": True}, ["turn_started", "reasoning_delta", "text_delta", "completed"]),
        (
            {"all_events": True},
            ["turn_started", "context_retrieved", "reasoning_delta", "text_delta", "completed"],
        ),
    ],
)
def test_json_lines_hold_what_was_asked_for(
    capsys: pytest.CaptureFixture[str], options: dict[str, bool], types: list[str]
) -> None:
    printer = JsonPrinter(Margin(notes=False), **options)
    for event in EVENTS:
        printer.show(event)
    printer.end()
    values = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [value["type"] for value in values] == types
    private = [value["type"] for value in values if value.get("public") is False]
    assert private == [name for name in types if name in ("context_retrieved", "reasoning_delta")]
