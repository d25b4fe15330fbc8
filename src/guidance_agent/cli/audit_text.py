"""The evidence behind an answer in sections that a compliance officer can read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from guidance_agent.cli.terminal_text import moment, on_one_line, plain, wrapped
from guidance_agent.core.types import JsonObject

__all__ = ["JUDGEMENTS", "bundle_as_text"]

_STATES: Final = {
    "streaming": "still being given, or its process died a moment ago",
    "completed": "given in full",
    "closed_early": "the customer's side left before its end",
    "failed": "ended by an error",
    "process_died": "ended when its process died",
}
JUDGEMENTS: Final = {
    "pending": "waits for its verdict",
    "passed": "passed",
    "failed": "not passed",
    "unjudged_needs_review": "could not be judged; a person must look",
    None: "nothing was delivered, so there is nothing to judge",
}
_ACTIONS: Final = {
    "withheld": "Withheld, and replaced",
    "stopped": "Withheld, and the answer ended there",
    "flagged": "Shown, and put on record",
    "never_shown": "Still held when the answer ended; nobody saw it",
    "released_after_ask": "Shown after the judge of sentences had permitted it",
    "closing": "Closing material added by the program",
}
_ASKED: Final = {
    "breach": "The judge of sentences called it a breach.",
    "permitted": "The judge of sentences permitted it.",
    "no_answer": "The judge of sentences gave no answer in time.",
}


def bundle_as_text(bundle: JsonObject) -> str:
    """Return a bundle of evidence as text, every time in UTC."""
    sections = (
        ("The turn", _turn(bundle)),
        ("Question", _question(bundle)),
        ("Customer, as the model was told", _customer(bundle)),
        ("What the model was given", _given(bundle)),
        ("Calls of models", _calls(bundle)),
        ("Answer, as it was delivered", _answer(bundle)),
        ("What the gate did", _gate(bundle["gate_actions"])),
        ("Verdicts", _verdicts(bundle["verdicts"])),
        ("Corrections", _corrections(bundle["corrections"])),
        ("Reviews by people", _reviews(bundle["reviews"])),
        ("The rules, applied again", _rules(bundle["deterministic"])),
    )
    return "\n".join(
        f"{number}. {title}\n{'=' * (len(title) + len(str(number)) + 2)}\n" + "\n".join(lines) + "\n"
        for number, (title, lines) in enumerate(sections, 1)
    )


def _turn(bundle: JsonObject) -> Iterator[str]:
    turn = bundle["turn"]
    yield f"  Turn           {plain(turn['id'])}"
    yield f"  Consultation   {plain(turn['consultation_id'])}, turn {turn['ordinal']}"
    yield f"  Began          {moment(turn['started_at'])}"
    yield f"  Ended          {moment(turn['ended_at'])}: {_STATES.get(turn['state'], turn['state'])}"
    yield f"  Judgement      {JUDGEMENTS.get(turn['judgement'], turn['judgement'])}"
    yield f"  Model          {plain(turn['model'])}"
    if turn["simulated"]:
        yield "  SIMULATED: no language model is behind this answer."
    if turn["finish_reason"]:
        yield f"  Finish reason  {turn['finish_reason']}"
    if turn["error"]:
        yield f"  Error          {on_one_line(turn['error'], 300)}"
    timing = turn["timing"] or {}
    if timing.get("first_text") is not None:
        yield f"  First text     {timing['first_text']:.3f} s after the question, whole turn {timing['total']:.3f} s"


def _question(bundle: JsonObject) -> Iterator[str]:
    yield wrapped(bundle["question"])
    if bundle["conversation"]:
        yield ""
        yield "  Said before it:"
        for entry in bundle["conversation"]:
            yield f"  {entry['role']}:"
            yield wrapped(entry["content"], "    ")


def _customer(bundle: JsonObject) -> Iterator[str]:
    customer = bundle["customer"]
    yield f"  Customer {plain(customer['id'])}, profile as of {moment(customer['consultation_opened_at'])}"
    for name, value in sorted(customer["profile"].items()):
        if value not in (None, [], ""):
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
            yield wrapped(f"{name.replace('_', ' ')}: {shown}")


def _given(bundle: JsonObject) -> Iterator[str]:
    versions = bundle["versions"]
    for title, name in (
        ("Package", "package"),
        ("Released rules", "released_rules"),
        ("Knowledge", "knowledge"),
        ("Gate: rules and policy", "gate"),
        ("Judging: rules and policy", "judging"),
    ):
        yield f"  {title:26} {'not recorded' if versions[name] is None else versions[name]}"
    retrieved = bundle["retrieved"]
    if not any(retrieved.values()):
        yield "  Nothing was retrieved for the question."
    for fact in retrieved["facts"]:
        words = fact["statement"] or "(its words are those of another knowledge version)"
        yield wrapped(f"Fact {fact['id']}: {words}" + (f" [{fact['source']}]" if fact.get("source") else ""))
    for memory in retrieved["memories"]:
        yield wrapped(f"Remembered from {moment(memory['created_at'])}: {memory['text']}")
    for case in retrieved["cases"]:
        yield wrapped(f"Case {case['id']}: {case['text']}")
    for rule in retrieved["rules"]:
        yield wrapped(f"Rule {rule['id']}: {rule['text']}")
    if bundle["private_notes"]:
        yield "  Private notes of the model, shown to nobody:"
        yield wrapped(bundle["private_notes"], "    ")


def _calls(bundle: JsonObject) -> Iterator[str]:
    for call in bundle["calls"]:
        yield f"  {moment(call['started_at'])}  {call['operation']}: {plain(call['model'])}, {call['outcome']}"
        yield (
            f"    {_tokens(call)}; {_money(call['cost_usd'])}; cache: {call['cache_outcome']}; "
            f"{call['total_seconds']:.2f} s, attempts {call['attempts']}"
            + (f"; request {plain(call['request_id'])}" if call["request_id"] else "")
            + ("; simulated" if call["simulated"] else "")
        )
        for part, fingerprint in call["cache_parts"].items():
            yield f"    prompt part {part}: {fingerprint}"
        if call["error"]:
            yield f"    error: {on_one_line(call['error'], 300)}"
    cost = bundle["cost"]
    if cost["total_usd"] is None and cost["calls"]:
        known = "" if cost["known_usd"] is None else f"; the others cost {_money(cost['known_usd'])}"
        yield f"  Total cost: unknown, {cost['calls_without_price']} of {cost['calls']} calls have no price{known}."
    elif cost["calls"]:
        estimated = ", partly estimated" if cost["usage_estimated"] else ""
        yield f"  Total cost: {_money(cost['total_usd'])}{estimated}, judging included."
    else:
        yield "  No call is on record."


def _tokens(call: JsonObject) -> str:
    if call["input_tokens"] is None:
        return "usage unknown"
    written = call["cache_write_5m_tokens"] + call["cache_write_1h_tokens"]
    return (
        f"{'about ' if call['usage_estimated'] else ''}{call['input_tokens']:,} tokens in, "
        f"{call['cache_read_tokens']:,} read from the cache, {written:,} written to it, {call['output_tokens']:,} out"
    )


def _money(usd: float | None) -> str:
    return "price unknown" if usd is None else f"${usd:.6f}"


def _answer(bundle: JsonObject) -> Iterator[str]:
    answer = bundle["answer"]
    yield wrapped(answer["text"]) if answer["text"] else "  Nothing was delivered."
    yield ""
    unseen = answer["journaled_length"] - (answer["delivered_length"] or 0)
    if answer["delivered_length"] is not None:
        yield f"  {answer['delivered_length']:,} characters were delivered" + (
            f"; {unseen:,} more were recorded and not delivered." if unseen else "."
        )
    matches = answer["text_hash_matches"]
    if matches is not None:
        yield f"  SHA-256 {answer['text_hash']}: " + (
            "the text above has it." if matches else "THE TEXT HAS ANOTHER ONE."
        )
    yield "  Recorded before it was shown, in pieces (offsets count characters):"
    for piece in answer["released"]:
        yield f"    {moment(piece['at'])}  {piece['start']:>5} to {piece['end']:<5}  {on_one_line(piece['text'], 60)}"


def _gate(actions: Sequence[JsonObject]) -> Iterator[str]:
    if not actions:
        yield "  Nothing: every sentence was shown as the model wrote it."
    for action in actions:
        check = f" ({action['check']})" if action["check"] else ""
        yield (
            f"  {moment(action['created_at'])}  {_ACTIONS.get(action['action'], action['action'])}{check}, at "
            f"{action['start']} to {action['end']}"
        )
        if action["withheld_text"]:
            yield wrapped(f"Withheld: {action['withheld_text']}", "    ")
        if action["replacement"]:
            yield wrapped(f"Shown: {action['replacement']}", "    ")
        if action["asked"]:
            yield f"    {_ASKED.get(action['asked'], action['asked'])}"
        for finding in action["findings"]:
            yield wrapped(
                f"Because of “{finding['cue']}” (rule {finding['rule']}, weight {finding['score']:g})", "    "
            )


def _verdicts(verdicts: Sequence[JsonObject]) -> Iterator[str]:
    if not verdicts:
        yield "  None yet."
    for row in verdicts:
        verdict = row["verdict"]
        who = verdict.get("reviewer") or row["judge_model"] or "the rules alone"
        yield f"  {moment(row['created_at'])}  {'PASSED' if row['passed'] else 'NOT PASSED'}, purpose {row['purpose']}"
        yield f"    By {plain(who)}, policy {row['policy_version']}" + (", simulated" if row["simulated"] else "")
        if row.get("text"):
            yield wrapped(f"On a text that was not shown: {row['text']}", "    ")
        if verdict.get("unreadable"):
            yield wrapped(f"The judge's answer cannot be read: {verdict['unreadable']}", "    ")
        if verdict.get("reasoning"):
            yield wrapped(f"Reasoning: {verdict['reasoning']}", "    ")
        for result in verdict["checks"]:
            yield from _check(result)


def _check(result: JsonObject) -> Iterator[str]:
    why = f", {result['reason'].replace('_', ' ')}" if result["reason"] else ""
    severity = f", {result['severity']}" if result["severity"] else ""
    status = result["status"].replace("_", " ")
    name, found_by = result["check"].replace("_", " "), f"{result['source']}; {result['requirement']}"
    yield f"    {name}: {status}{severity}{why} ({found_by})"
    if result["quote"] is not None:
        yield wrapped(f"at {result['start']} to {result['end']}: “{result['quote']}”", "      ")
    if result["explanation"]:
        yield wrapped(result["explanation"], "      ")


def _corrections(corrections: Sequence[JsonObject]) -> Iterator[str]:
    if not corrections:
        yield "  None."
    for row in corrections:
        delivered = f"received {moment(row['delivered_at'])}" if row["delivered_at"] else "not received yet"
        yield f"  {moment(row['created_at'])}  at {row['span_start']} to {row['span_end']}, {delivered}"
        yield wrapped(f"To be read as: {row['replacement']}", "    ")
        yield wrapped(f"Because: {row['reason']}", "    ")


def _reviews(reviews: Sequence[JsonObject]) -> Iterator[str]:
    if not reviews:
        yield "  None was asked for."
    for row in reviews:
        yield f"  {row['id']}, opened {moment(row['opened_at'])}: {row['cause']}, {row['status']}"
        if row["detail"]:
            yield wrapped(row["detail"], "    ")
        if row["claimed_by"]:
            yield f"    Claimed by {plain(row['claimed_by'])}, {moment(row['claimed_at'])}"
        if row["decision"]:
            yield f"    Decided: {row['decision']}, by {plain(row['decided_by'])}, {moment(row['decided_at'])}"
        if row["reason"]:
            yield wrapped(f"Reason: {row['reason']}", "    ")


def _rules(found: JsonObject) -> Iterator[str]:
    yield wrapped(found["meaning"])
    yield f"  Figures of {found['day']}; installed rules, policy and facts: {found['installed_version']}"
    if found["recorded"] is not None:
        yield f"  Recorded ones: {found['recorded']['version']}"
        yield from _result("Recorded", found["recorded"]["result"])
    if found["computed"] is not None and found["outcome"] != "identical":
        yield from _result("Computed now", found["computed"]["result"])


def _result(title: str, result: dict[str, Any]) -> Iterator[str]:
    said = {"pass": "nothing to object to", "undecided": "left to the judge", "flag": "a breach"}
    yield f"  {title}: {said.get(result['decision'], result['decision'])}"
    for finding in result["findings"]:
        yield (
            f"    {finding['start']} to {finding['end']}: “{on_one_line(finding['cue'])}” ({finding['check']}, rule "
            f"{finding['rule']}, weight {finding['score']:g})"
        )
