"""The plain reading of the caching rules, on examples that were counted by hand, and the log that it is given."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.cache_log import framing_of, read_log
from benchmarks.cache_rules import (
    AnthropicRules,
    BreakpointRules,
    LoggedRequest,
    PrefixRules,
    Span,
    best_marks,
    fewest_keys,
)

HOUR, FIVE, HALF = 3_600.0, 300.0, 1_800.0


def request(*spans: tuple[str, int, float | None], at: float = 0.0, key: str = "", group: str = "") -> LoggedRequest:
    return LoggedRequest(
        key=key,
        group=group,
        spans=tuple(Span(("user", text), tokens, life) for text, tokens, life in spans),
        started=at,
        begun=at,
    )


STABLE = ("stable", 3_000, HOUR)


def test_the_next_turn_reads_up_to_the_end_of_the_conversation_before_it() -> None:
    rules = AnthropicRules(512)
    assert rules.ask(request(STABLE, ("q1", 900, None))) == (0, 0, 3_000)
    second = request(STABLE, ("q1", 20, None), ("a1", 400, FIVE), ("q2", 900, None), at=60)
    assert rules.ask(second) == (3_000, 420, 0)
    third = request(
        STABLE, ("q1", 20, None), ("a1", 400, None), ("q2", 20, None), ("a2", 400, FIVE), ("q3", 900, None), at=120
    )
    assert rules.ask(third) == (3_420, 420, 0)


def test_a_look_back_ends_after_twenty_positions() -> None:
    between = [(f"b{number}", 10, None) for number in range(19)]
    for count, read in ((18, 3_000), (19, 0)):
        rules = AnthropicRules(512)
        rules.ask(request(STABLE))
        far = request(("stable", 3_000, None), *between[:count], ("end", 10, HOUR), at=1)
        assert rules.ask(far).read == read
        without_bound = AnthropicRules(512, positions=float("inf"))
        without_bound.ask(request(STABLE))
        assert without_bound.ask(far).read == 3_000


def test_breakpoints_match_exactly_and_under_the_same_key() -> None:
    rules = BreakpointRules(1_024)
    assert rules.ask(request(("stable", 3_000, HALF), ("q1", 900, None), key="k")) == (0, 3_000, 0)
    unmarked = request(("stable", 3_000, None), ("q1", 20, None), ("a1", 400, HALF), key="k")
    assert rules.ask(unmarked) == (0, 3_420, 0)
    assert rules.ask(request(("stable", 3_000, HALF), ("q2", 900, None), key="other")).read == 0
    assert rules.ask(request(("stable", 3_000, HALF), ("q2", 900, None), key="k", at=1_799)).read == 3_000


def test_automatic_prefixes_are_read_in_whole_steps() -> None:
    rules = PrefixRules(1_024, tokens=list, framing=3)
    first = LoggedRequest(key="", group="", spans=(Span(("user", "a" * 1_200), 1_203, None),), started=0, begun=0)
    assert rules.ask(first).read == 0
    # 3 tokens of framing and 1,100 equal ones are eight whole steps.
    second = "a" * 1_100 + "b" * 500
    assert rules.ask(
        LoggedRequest(key="", group="", spans=(Span(("user", second), 1_603, None),), started=1, begun=1)
    ).read == (1_024)


def test_the_best_marks_end_every_block_and_the_fewest_keys_follow_the_rate() -> None:
    marked = best_marks(request(("a", 10, None), ("b", 10, FIVE)))
    assert [span.life for span in marked.spans] == [HOUR, HOUR]
    slow = [request(("a", 10, None), at=60.0 * n, group=f"g{n}") for n in range(40)]
    assert len({each.key for each in fewest_keys(slow)}) == 1
    fast = [request(("a", 10, None), at=float(n), group=f"g{n % 8}") for n in range(40)]
    keyed = fewest_keys(fast)
    assert len({each.key for each in keyed}) == 3
    assert len({(each.group, each.key) for each in keyed}) == 8


def anthropic_record(messages: int, *, total: int, read: int = 0) -> dict[str, Any]:
    roles = ("user", "assistant")
    body = {
        "system": [{"type": "text", "text": "aaaa", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [{"role": roles[n % 2], "content": [{"type": "text", "text": "bb"}]} for n in range(messages)],
    }
    usage = {
        "input_tokens": total - read - 1,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": 1,
    }
    return {"body": body, "usage": usage, "model": "m", "received_at": 1.0, "first_byte_at": 2.0}


def test_framing_is_read_off_the_reported_totals() -> None:
    # 4 tokens of system text, 2 for each message, 3 of framing for each and 5 for the prompt.
    records = [anthropic_record(n, total=4 + 5 * n + 5, read=2) for n in (1, 3, 5)]
    assert framing_of(records, len) == (3, 5)
    call = read_log(records, len)[1]
    assert (call.total, call.read, call.written) == (24, 2, 1)
    assert call.parts == (4,)
    assert [span.tokens for span in call.request.spans] == [4, 5, 5, 5]
    assert [span.life for span in call.request.spans] == [HOUR, None, None, None]


def test_totals_that_do_not_agree_are_refused() -> None:
    records = [anthropic_record(n, total=total) for n, total in ((1, 14), (3, 24), (5, 35))]
    with pytest.raises(ValueError, match="do not agree"):
        framing_of(records, len)
    with pytest.raises(ValueError, match="second turn"):
        framing_of(records[:1], len)
