"""Which parts were read, written or paid in full, told from the counts of a provider."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guidance_agent.llm.cache_use import part_uses
from guidance_agent.llm.messages import Message, ModelRequest, ToolSpec, Usage
from guidance_agent.llm.providers.anthropic import ANTHROPIC
from guidance_agent.llm.providers.base import Profile
from guidance_agent.llm.providers.ollama import OLLAMA
from guidance_agent.llm.providers.openai import OPENAI

CLAUDE = "anthropic/claude-sonnet-5-5"
GPT_BREAKPOINTS = "openai/gpt-6-sol"
GPT_PREFIX = "openai/gpt-5.5"

# As a provider counts the parts of `consultation`, a word each: not what the plan estimates for Claude.
CONDUCT, REQUIREMENTS, CUSTOMER, EXCHANGE, LAST = 1_500, 3_000, 3_200, 400, 900


def consultation(model: str, turns: int) -> ModelRequest:
    history = [
        message
        for _ in range(turns)
        for message in (Message("user", "ask " * 100), Message("assistant", "answer " * 300))
    ]
    if history:
        history[-1] = replace(history[-1], part="conversation")
    return ModelRequest(
        model=model,
        messages=(
            Message("system", "conduct " * CONDUCT, part="conduct"),
            Message("system", "rule " * (REQUIREMENTS - CONDUCT), part="requirements"),
            Message("system", "customer " * (CUSTOMER - REQUIREMENTS), part="customer"),
            *history,
            Message("user", "fact " * LAST),
        ),
    )


def uses(profile: Profile, request: ModelRequest, *, read: int, written: int = 0, total: int) -> dict[str, str]:
    usage = Usage(cache_read_tokens=read, cache_write_5m_tokens=written, input_tokens=total - read - written)
    return dict(part_uses(request, profile.cache_plan(request), usage))


@pytest.mark.parametrize(("profile", "model"), [(ANTHROPIC, CLAUDE), (OPENAI, GPT_BREAKPOINTS)])
@pytest.mark.parametrize(
    ("turns", "read", "written", "expected"),
    [
        (0, 0, CUSTOMER, "written written written"),
        (0, REQUIREMENTS, CUSTOMER - REQUIREMENTS, "read read written"),
        (0, CONDUCT, CUSTOMER - CONDUCT, "read written written"),
        (0, CUSTOMER, 0, "read read read"),
        (1, CUSTOMER, EXCHANGE, "read read read written"),
        (2, CUSTOMER + EXCHANGE, EXCHANGE, "read read read extended"),
        (30, CUSTOMER + 29 * EXCHANGE, EXCHANGE, "read read read extended"),
        (2, CUSTOMER + 2 * EXCHANGE, 0, "read read read read"),
        (2, 0, 0, "uncached uncached uncached uncached"),
    ],
)
def test_breakpoints_tell_the_parts_apart(
    profile: Profile, model: str, turns: int, read: int, written: int, expected: str
) -> None:
    request = consultation(model, turns)
    found = uses(profile, request, read=read, written=written, total=CUSTOMER + turns * EXCHANGE + LAST)
    assert list(found) == ["conduct", "requirements", "customer", "conversation"][: len(found)]
    assert " ".join(found.values()) == expected


@pytest.mark.parametrize(
    ("turns", "read", "expected"),
    [
        (0, 0, "uncached uncached uncached"),
        (0, REQUIREMENTS // 128 * 128, "read read uncached"),
        (1, CUSTOMER // 128 * 128, "read read read uncached"),
        (3, (CUSTOMER + 2 * EXCHANGE) // 128 * 128, "read read read extended"),
        (0, 1_024, "extended uncached uncached"),
    ],
)
def test_steps_of_an_automatic_cache_tell_the_parts_apart(turns: int, read: int, expected: str) -> None:
    request = consultation(GPT_PREFIX, turns)
    found = uses(OPENAI, request, read=read, total=CUSTOMER + turns * EXCHANGE + LAST)
    assert " ".join(found.values()) == expected


def test_tools_are_a_part_of_their_own() -> None:
    tool = ToolSpec("lookup", "figure " * 600, {"type": "object"})
    request = replace(consultation(CLAUDE, 0), tools=(tool,))
    found = uses(ANTHROPIC, request, read=0, written=CUSTOMER + 620, total=CUSTOMER + 620 + LAST)
    assert found == dict.fromkeys(["tools", "conduct", "requirements", "customer"], "written")


@pytest.mark.parametrize("usage", [None, Usage(input_tokens=4_000, estimated=True)])
def test_nothing_is_said_where_nothing_was_reported(usage: Usage | None) -> None:
    request = consultation(CLAUDE, 0)
    assert part_uses(request, ANTHROPIC.cache_plan(request), usage) == {}


def test_reads_of_a_call_that_was_closed_early_count() -> None:
    request = consultation(CLAUDE, 0)
    usage = Usage(cache_read_tokens=CUSTOMER, input_tokens=LAST, estimated=True)
    assert set(part_uses(request, ANTHROPIC.cache_plan(request), usage).values()) == {"read"}


def test_nothing_is_said_of_a_server_that_does_not_report_its_cache() -> None:
    request = consultation("ollama/llama3.2", 1)
    assert part_uses(request, OLLAMA.cache_plan(request), Usage(input_tokens=4_000)) == {}


def test_a_prompt_without_parts_has_no_uses() -> None:
    request = ModelRequest(model=CLAUDE, messages=(Message("user", "What now?"),))
    assert part_uses(request, ANTHROPIC.cache_plan(request), Usage(input_tokens=9)) == {}
