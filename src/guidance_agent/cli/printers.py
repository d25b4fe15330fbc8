"""How the events of a turn are shown: as text for a person, or as one JSON line each for a program."""

from __future__ import annotations

import re
import sys
from typing import Protocol, assert_never

from guidance_agent.advisor.events import (
    Completed,
    ContextRetrieved,
    Corrected,
    Event,
    Failed,
    Judged,
    ReasoningDelta,
    TextDelta,
    TurnStarted,
    Withheld,
    event_to_json,
)
from guidance_agent.cli.figures import answer_figures
from guidance_agent.cli.margin import Margin
from guidance_agent.cli.output import json_line, write_output

__all__ = ["JsonPrinter", "Printer", "TextPrinter", "make_printer"]

# What a terminal would obey rather than show; an answer has no business sending commands to it.
_TERMINAL_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Printer(Protocol):
    """Shows one turn after the other."""

    def show(self, event: Event) -> None:
        """Show one event."""

    def end(self) -> None:
        """Finish what was shown of a turn, however it ended."""


class TextPrinter:
    """Writes the text to standard output as it comes, and everything else beside it."""

    def __init__(self, margin: Margin, *, show_reasoning: bool = False) -> None:
        self._margin = margin
        self._show_reasoning = show_reasoning
        self._to_terminal = sys.stdout.isatty()
        self._last = ""
        self._in_reasoning = False
        self._ids = ""

    def show(self, event: Event) -> None:
        match event:
            case TextDelta():
                self._end_reasoning()
                self._write(event.text)
            case TurnStarted():
                self._start(event)
            case ReasoningDelta():
                self._reason(event.text)
            case Completed():
                self._complete(event)
            case Corrected():
                self.end()
                self._margin.notice(f"Correction: {event.replacement} ({event.reason})")
            case Withheld():
                self._margin.note(f"[replaced by {event.check}: {event.reason}]")
            case Judged():
                self._judge(event)
            case ContextRetrieved() | Failed():
                pass
            case _:
                assert_never(event)

    def _judge(self, event: Judged) -> None:
        from guidance_agent.compliance.verdict import Verdict

        self.end()
        verdict = Verdict.model_validate(event.verdict)
        if verdict.passed:
            self._margin.note(f"Judged by {verdict.judge_model or verdict.reviewer or 'rules'}: passed")
        elif verdict.unreadable is not None:
            self._margin.notice(f"Judged: not passed, because the verdict cannot be read: {verdict.unreadable}")
        else:
            failed = ", ".join(dict.fromkeys(result.check.replace("_", " ") for result in verdict.failures))
            self._margin.notice(f"Judged: not passed ({failed}). A person will look at it.")

    def end(self) -> None:
        self._end_reasoning()
        if self._last and not self._last.endswith("\n"):
            write_output("\n")
        self._last = ""

    def _start(self, event: TurnStarted) -> None:
        self._ids = f"{event.model} · {event.consultation_id}"
        if event.simulated:
            self._margin.simulated()
            self._margin.note()

    def _write(self, text: str) -> None:
        if not text:
            return
        write_output(_TERMINAL_COMMANDS.sub("\ufffd", text) if self._to_terminal else text)
        self._last = text

    def _reason(self, text: str) -> None:
        if self._show_reasoning:
            if not self._in_reasoning:
                self._margin.piece("Private notes: ")
                self._in_reasoning = True
            self._margin.piece(_TERMINAL_COMMANDS.sub("\ufffd", text))

    def _end_reasoning(self) -> None:
        if self._in_reasoning:
            self._margin.piece("\n\n")
            self._in_reasoning = False

    def _complete(self, event: Completed) -> None:
        self.end()
        if event.simulated:
            self._margin.simulated()
        if event.finish_reason == "length":
            self._margin.notice("The answer was cut off at its longest allowed length (GUIDANCE_MAX_ANSWER_TOKENS).")
        self._margin.note()
        self._margin.note(answer_figures(event))
        self._margin.note(self._ids)


class JsonPrinter:
    """Writes one JSON object per event and line. Events that are not public carry `"public": false`."""

    def __init__(self, margin: Margin, *, show_reasoning: bool = False, all_events: bool = False) -> None:
        self._margin = margin
        shown: set[type[Event]] = {ReasoningDelta} if show_reasoning or all_events else set()
        self._private = shown | ({ContextRetrieved} if all_events else set())

    def show(self, event: Event) -> None:
        if isinstance(event, TurnStarted | Completed) and event.simulated:
            self._margin.simulated()
        if not event.public and type(event) not in self._private:
            return
        values = event_to_json(event) if event.public else {**event_to_json(event), "public": False}
        write_output(json_line(values))

    def end(self) -> None:
        """Every line is whole already."""


def make_printer(margin: Margin, *, as_json: bool, show_reasoning: bool, all_events: bool) -> Printer:
    """Return the printer that the options of a command ask for."""
    if as_json:
        return JsonPrinter(margin, show_reasoning=show_reasoning, all_events=all_events)
    return TextPrinter(margin, show_reasoning=show_reasoning)
