"""A turn as a tree for a person: what followed what, how long it took and what it cost."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from guidance_agent.cli.audit_text import JUDGEMENTS
from guidance_agent.cli.figures import money
from guidance_agent.cli.terminal_text import moment, on_one_line, plain
from guidance_agent.core.types import JsonObject

__all__ = ["report_as_text"]

_WIDTH_OF_A_FILE = 140
_STATES: Final = {
    "streaming": "still being given, or its process died a moment ago",
    "completed": "completed",
    "closed_early": "closed early by the customer's side",
    "failed": "failed",
    "process_died": "its process died",
}
_BY: Final = {"person": "a person", "judge": "the judge", "rules": "the rules alone"}


def report_as_text(report: JsonObject) -> str:
    """Return the report for a terminal, or for a file that a person reads; every time in UTC."""
    to_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if to_terminal else _WIDTH_OF_A_FILE
    printed = io.StringIO()
    console = Console(file=printed, width=width, force_terminal=to_terminal, highlight=False, markup=False, emoji=False)
    for line in _heading(report["trace"]):
        console.print(line, soft_wrap=True)
    console.print(_tree(report))
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines()) + "\n"


def _heading(trace: JsonObject) -> Iterator[str]:
    if trace["trace"] is not None:
        yield f"In Phoenix: {trace['trace']}"
        if trace["answer"] is not None:
            yield f"The answer: {trace['answer']}"
    else:
        known = "" if trace["trace_id"] is None else f" Its trace is {trace['trace_id']}."
        yield f"{trace['why_not']}{known}"
    yield ""


def _tree(report: JsonObject) -> Tree:
    turn = report["turn"]
    tree = Tree(Text(f"turn {plain(turn['id'])}: {_STATES.get(turn['state'], turn['state'])}", style="bold"))
    for line in _turn(turn):
        tree.add(Text(line))
    retrieved = report["retrieved"]
    branch = tree.add(Text(f"retrieval: {', '.join(f'{len(ids)} {name}' for name, ids in retrieved.items())}"))
    for name, ids in retrieved.items():
        if ids:
            branch.add(Text(f"{name}: {plain(', '.join(ids))}"))
    for title, items, lines in _happened(report):
        branch = tree.add(Text(f"{_at(items)}{title}"))
        for line in lines:
            branch.add(Text(line))
    for correction in report["corrections"]:
        received = (
            f"received {moment(correction['delivered_at'])}" if correction["delivered_at"] else "not received yet"
        )
        place = f"characters {correction['start']} to {correction['end']}"
        tree.add(Text(f"{_at(correction)}correction of {place}, {received}"))
    for review in report["reviews"]:
        decided = f": {review['decision']}, {moment(review['decided_at'])}" if review["decision"] else ""
        tree.add(Text(f"review because of {review['cause']}, {review['status']}{decided}"))
    for annotation in report["annotations"]:
        tree.add(Text(_annotation(annotation)))
    tree.add(Text(_cost(report)))
    return tree


def _happened(report: JsonObject) -> Iterator[tuple[str, JsonObject, Iterator[str]]]:
    """Yield calls, gate actions and verdicts as they followed each other."""
    found = [
        *((call, _call_title(call), _call(call)) for call in report["calls"]),
        *((action, _gate(action), iter(())) for action in report["gate_actions"]),
        *((verdict, _verdict_title(verdict), _verdict(verdict)) for verdict in report["verdicts"]),
    ]
    for item, title, lines in sorted(found, key=lambda each: each[0]["after"]):
        yield title, item, lines


def _at(item: JsonObject) -> str:
    return f"{item['after']:+.3f} s  "


def _turn(turn: JsonObject) -> Iterator[str]:
    yield f"consultation {plain(turn['consultation_id'])}, turn {turn['ordinal']}, {plain(turn['model'])}"
    if turn["simulated"]:
        yield "SIMULATED: no language model is behind this answer"
    yield f"began {moment(turn['started_at'])}, ended {moment(turn['ended_at'])}"
    times = [
        f"{name} {turn[key]:.3f} s"
        for name, key in (
            ("first token", "first_token_seconds"),
            ("first text", "first_text_seconds"),
            ("whole turn", "total_seconds"),
        )
        if turn[key] is not None
    ]
    if turn["tokens_per_second"] is not None:
        times.append(f"{turn['tokens_per_second']:.1f} tokens/s")
    if times:
        yield ", ".join(times)
    delivered = "" if turn["delivered_length"] is None else f", {turn['delivered_length']:,} delivered"
    yield f"{turn['text_length']:,} characters released{delivered}, {turn['events']} events"
    if turn["finish_reason"]:
        yield f"finish reason: {turn['finish_reason']}"
    if turn["error"]:
        yield f"error: {on_one_line(turn['error'], 300)}"
    yield f"judgement: {JUDGEMENTS.get(turn['judgement'], turn['judgement'])}"


def _call_title(call: JsonObject) -> str:
    return f"{plain(call['operation'])}: {plain(call['model'])}, {call['outcome']}"


def _call(call: JsonObject) -> Iterator[str]:
    first = "" if call["first_token_seconds"] is None else f"first token {call['first_token_seconds']:.3f} s, "
    attempts = f", {call['attempts']} attempts" if call["attempts"] != 1 else ""
    yield f"{first}whole call {call['total_seconds']:.3f} s, {call['chunks']} chunks{attempts}"
    if call["input_tokens"] is None:
        yield "usage unknown"
    else:
        about = "about " if call["usage_estimated"] else ""
        yield (
            f"{about}{call['input_tokens']:,} tokens in, {call['cache_read_tokens'] or 0:,} read from the cache, "
            f"{call['cache_write_tokens'] or 0:,} written to it, {call['output_tokens'] or 0:,} out"
        )
    yield f"cache: {call['cache_outcome'].replace('_', ' ')}; {money(call['cost_usd'], simulated=call['simulated'])}"
    if call["error"]:
        yield f"error: {on_one_line(call['error'], 300)}"


def _gate(action: JsonObject) -> str:
    check = f" ({action['check']})" if action["check"] else ""
    asked = f", the judge of sentences said {action['asked'].replace('_', ' ')}" if action["asked"] else ""
    return f"gate: {action['action'].replace('_', ' ')}{check} at {action['start']} to {action['end']}{asked}"


def _verdict_title(verdict: JsonObject) -> str:
    said = "passed" if verdict["passed"] else "not passed" if verdict["readable"] else "unreadable"
    return f"verdict ({verdict['purpose']}): {said}, by {_BY[verdict['by']]}"


def _verdict(verdict: JsonObject) -> Iterator[str]:
    if verdict["judge_model"]:
        yield f"{plain(verdict['judge_model'])}, confidence {verdict['confidence']:.2f}"
    if verdict["failed_checks"]:
        yield f"failed: {', '.join(verdict['failed_checks'])}"


def _annotation(annotation: JsonObject) -> str:
    if annotation["sent_at"]:
        state = f"delivered {moment(annotation['sent_at'])}"
    else:
        why = f" ({on_one_line(annotation['error'], 120)})" if annotation["error"] else ""
        state = f"not delivered yet{why}"
    return f"annotation {annotation['name']}: {annotation['label']}, {state}"


def _cost(report: JsonObject) -> str:
    cost, calls = report["cost"], report["calls"]
    if not calls:
        return "cost: no call is on record"
    simulated = any(call["simulated"] for call in calls)
    if cost["total_usd"] is None:
        known = "" if cost["known_usd"] is None else f"; the others {money(cost['known_usd'], simulated=simulated)}"
        return f"cost: unknown, {cost['calls_without_price']} of {len(calls)} calls have no price{known}"
    estimated = ", partly estimated" if cost["usage_estimated"] else ""
    return f"cost: {money(cost['total_usd'], simulated=simulated)} for {len(calls)} calls, judging included{estimated}"
