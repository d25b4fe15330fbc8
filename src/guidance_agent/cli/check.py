"""`guidance-agent check`: what the rules of the gate say of a text, without a model."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.output import write_output
from guidance_agent.errors import InputError

if TYPE_CHECKING:
    from guidance_agent.compliance.checks import TextVerdict

__all__ = ["EXAMPLES", "check"]

EXAMPLES = (
    "guidance-agent check answer.txt",
    "guidance-agent check --lines --json sentences.txt",
    "echo 'If I were you, I would take the lot.' | guidance-agent check -",
)


def check(
    file: Annotated[str, typer.Argument(metavar="[FILE|-]", help="The text; - or nothing reads standard input.")] = "-",
    lines: Annotated[
        bool, typer.Option("--lines", help="Take every line as a text of its own; one JSON object for each.")
    ] = False,
    as_json: options.ResultAsJson = False,
) -> ExitCode:
    """Check a text as the gate would while it streamed: what would be held, replaced or left to a judge.

    Figures are compared with the facts of today.
    """
    with _opened(file) as source:
        checked = _checker()
        if lines:
            for line in source:
                write_output(_as_json(checked(line.rstrip("\r\n"))) + "\n")
        else:
            verdict = checked(source.read())
            write_output((_as_json(verdict) if as_json else _as_text(verdict)) + "\n")
    return ExitCode.DONE


def _opened(file: str) -> TextIO:
    if file == "-":
        if sys.stdin is None:
            raise InputError("There is no standard input. Name a file.")
        return open(sys.stdin.fileno(), encoding="utf-8", errors="replace", closefd=False)
    return Path(file).open(encoding="utf-8", errors="replace")


def _checker() -> Callable[[str], TextVerdict]:
    from guidance_agent.compliance.checks import check_text
    from guidance_agent.compliance.dated_rules import GateRules
    from guidance_agent.compliance.policy import load_policy
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.knowledge.loader import load_knowledge
    from guidance_agent.settings import Settings

    settings = Settings.load()
    rules = GateRules(load_knowledge(settings.knowledge_dir)).on(SystemClock().today())
    policy = load_policy(settings.gate.actions)
    return lambda text: check_text(text, rules, policy)


def _as_json(verdict: TextVerdict) -> str:
    return json.dumps(dataclasses.asdict(verdict), ensure_ascii=False)


def _as_text(verdict: TextVerdict) -> str:
    shown = [f"{verdict.decision}" + (", discusses a decision" if verdict.decision_point else "")]
    shown += [
        f"  {found.start}-{found.end}  {found.check}  {found.cue!r}  ({found.rule}, {found.score:g})"
        for found in verdict.findings
        if found.score > 0
    ]
    return "\n".join(shown)
