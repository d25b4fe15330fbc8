"""`guidance-agent rules`: what was learned from failures, and which of it stands in the prompts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from guidance_agent.cli import options
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.output import json_line, write_output

if TYPE_CHECKING:
    from guidance_agent import Runtime
    from guidance_agent.learning.learner import Learned
    from guidance_agent.learning.rule_records import Release, ReleaseResult, Rule, RuleEvent, RuleStatus
    from guidance_agent.learning.rules import RulesBase
    from guidance_agent.settings import Settings

__all__ = ["EXAMPLES", "learn", "list_rules", "release", "rollback", "rules", "show"]

EXAMPLES = (
    "guidance-agent rules learn --limit 20",
    "guidance-agent rules list --status draft",
    "guidance-agent rules show rule_019a8b2c3d4e5f60718293a4b5",
    "guidance-agent rules release --note 'after the review of October'",
    "guidance-agent rules rollback 3",
)


class Status(StrEnum):
    """Which rules are listed."""

    DRAFT = "draft"
    RELEASED = "released"
    RETIRED = "retired"
    ALL = "all"


_STATUSES: dict[Status, tuple[RuleStatus, ...]] = {
    Status.DRAFT: ("draft",),
    Status.RELEASED: ("released",),
    Status.RETIRED: ("retired",),
    Status.ALL: (),
}

Note = Annotated[str, typer.Option("--note", metavar="TEXT", help="What the version is for; kept in the records.")]


def rules(context: typer.Context) -> None:
    """Learn rules from answers that failed, look at them, release them and roll back."""
    if context.invoked_subcommand is None:
        write_output(context.get_help() + "\n")


def list_rules(
    status: Annotated[Status, typer.Option("--status", help="Which rules.")] = Status.ALL,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """List rules, the oldest first, and the version that is in force."""

    async def work() -> tuple[Sequence[Rule], Sequence[Release]]:
        async with _base(options.load_settings(data_dir=data_dir)) as base:
            if base is None:
                return (), ()
            return await base.rules(statuses=_STATUSES[status]), await base.releases()

    found, versions = asyncio.run(work())
    version = versions[0].version if versions else 0
    if as_json:
        write_output(json_line({"version": version, "rules": [_of_rule(rule) for rule in found]}))
    else:
        lines = [f"{rule.id}  {rule.status:<8}  {rule.confidence:.2f}  {_marked(rule)}{rule.text}" for rule in found]
        write_output("\n".join([f"Version {version} is in force.", *(lines or ["No such rule."])]) + "\n")
    return ExitCode.DONE


def show(
    rule_id: Annotated[str, typer.Argument(metavar="RULE", help="Id of the rule.")],
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Show one rule: where it comes from, step by step, and what happened to it."""
    from guidance_agent.errors import UnknownRuleError

    async def work() -> tuple[Rule, Sequence[RuleEvent]]:
        async with _base(options.load_settings(data_dir=data_dir)) as base:
            if base is None:
                raise UnknownRuleError(f"There is no rule {rule_id!r}: nothing is on record yet.")
            return await base.rule(rule_id), await base.history(rule_id)

    rule, events = asyncio.run(work())
    if as_json:
        history = [{**_of_event(event), "detail": event.detail} for event in events]
        write_output(json_line({**_of_rule(rule), "evidence": list(rule.evidence), "history": history}))
        return ExitCode.DONE
    lines = [f"{_marked(rule)}{rule.text}", f"{rule.status}, confidence {rule.confidence:.2f}", ""]
    for origin in rule.evidence:
        lines.append(f"From turn {origin['turn_id']} ({origin['source']}), by {origin['requirement']}:")
        lines += [f"  {step['step']}: {json.dumps(step['answer'], ensure_ascii=False)}" for step in origin["steps"]]
    lines.append("")
    lines += [f"{event.created_at:%Y-%m-%d %H:%M}  {event.kind:<11}  {event.confidence:.2f}" for event in events]
    write_output("\n".join(lines) + "\n")
    return ExitCode.DONE


def learn(
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=options.MOST, help="At most so many failures, the oldest first.")
    ] = 20,
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Reflect on answers that failed, one call after the other; each failure is reflected on once."""

    async def work() -> Sequence[Learned]:
        async with _runtime(options.load_settings(data_dir=data_dir)) as runtime:
            return await runtime.learner().learn(limit=limit)

    learned = asyncio.run(work())
    if as_json:
        write_output(json_line({"learned": [_of_learned(each) for each in learned]}))
    else:
        lines = [f"{each.turn_id}  {each.outcome:<10}  {_told(each)}" for each in learned]
        write_output("\n".join(lines or ["There is no failure to reflect on."]) + "\n")
    return ExitCode.DONE


def release(
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="RULE", help="Only these drafts, however sure; may be repeated."),
    ] = None,
    note: Note = "",
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Make a new version of the rules, if the answers to the check set are no worse with it."""
    from guidance_agent.errors import RuleChangeError

    async def work() -> ReleaseResult:
        from guidance_agent.learning.check_set import ModelCheckSet

        async with _runtime(options.load_settings(data_dir=data_dir)) as runtime:
            questions = ModelCheckSet(runtime.gateway, runtime.model, runtime.knowledge, runtime.clock)
            return await runtime.rules_base().release(questions, rule_ids=rule or None, note=note)

    result = asyncio.run(work())
    changes = bool(result.added or result.removed)
    if result.release is None and changes:
        raise RuleChangeError(f"No version was made. {result.reason}")
    if as_json:
        version = None if result.release is None else result.release.version
        told = {"version": version, "reason": result.reason, "added": result.added, "removed": result.removed}
        write_output(json_line({**told, "questions": 0 if result.after is None else len(result.after.answers)}))
    elif result.release is None:
        write_output(f"{result.reason}\n")
    else:
        asked = 0 if result.after is None else len(result.after.answers)
        added, removed = len(result.added), len(result.removed)
        write_output(f"Version {result.release.version}: {added} new, {removed} gone; {asked} questions answered.\n")
    return ExitCode.DONE


def rollback(
    version: Annotated[
        int, typer.Argument(min=0, metavar="VERSION", help="The version to go back to; 0 has no rules.")
    ],
    note: Note = "",
    as_json: options.ResultAsJson = False,
    data_dir: options.DataDir = None,
) -> ExitCode:
    """Make a new version with the rules of an old one; asks no model."""
    from guidance_agent.errors import UnknownRuleError

    async def work() -> Release:
        async with _base(options.load_settings(data_dir=data_dir)) as base:
            if base is None:
                raise UnknownRuleError(f"There is no version {version}: nothing is on record yet.")
            return await base.rollback(version, note=note)

    made = asyncio.run(work())
    told = {"version": made.version, "rules": list(made.rule_ids), "note": made.note}
    write_output(
        json_line(told) if as_json else f"Version {made.version} has {len(made.rule_ids)} rules: {made.note}.\n"
    )
    return ExitCode.DONE


@contextlib.asynccontextmanager
async def _base(settings: Settings) -> AsyncIterator[RulesBase | None]:
    from guidance_agent.cli.records import records_to_read
    from guidance_agent.core.clock import SystemClock
    from guidance_agent.knowledge.loader import load_knowledge
    from guidance_agent.learning.rules import RulesBase

    async with records_to_read(settings) as records:
        if records is None:
            yield None
            return
        yield RulesBase(records, SystemClock(), await asyncio.to_thread(load_knowledge, settings.knowledge_dir))


@contextlib.asynccontextmanager
async def _runtime(settings: Settings) -> AsyncIterator[Runtime]:
    from guidance_agent import Runtime

    async with Runtime(settings.model_copy(update={"background": False})) as runtime:
        yield runtime


def _marked(rule: Rule) -> str:
    return "(simulated) " if rule.simulated else ""


def _told(learned: Learned) -> str:
    return f"{'(simulated) ' if learned.simulated else ''}{learned.reason or learned.rule_id}"


def _of_rule(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "text": rule.text,
        "status": rule.status,
        "confidence": round(rule.confidence, 4),
        "failures": [origin["turn_id"] for origin in rule.evidence],
        "simulated": rule.simulated,
        "created_at": rule.created_at.isoformat(),
    }


def _of_event(event: RuleEvent) -> dict[str, object]:
    return {
        "number": event.number,
        "kind": event.kind,
        "status": event.status,
        "confidence": round(event.confidence, 4),
        "at": event.created_at.isoformat(),
    }


def _of_learned(learned: Learned) -> dict[str, object]:
    return {
        "turn_id": learned.turn_id,
        "outcome": learned.outcome,
        "reason": learned.reason,
        "rule_id": learned.rule_id,
        "cost_usd": learned.cost_usd,
        "simulated": learned.simulated,
    }
