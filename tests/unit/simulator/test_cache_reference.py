"""The cache accounting beside a slow reference that was written from the published rules alone.

The reference is `benchmarks/cache_rules.py`, which counts what consultations are allowed to read: the two check each
other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cache_rules import AnthropicRules, BreakpointRules, LoggedRequest, PrefixRules, Span
from guidance_agent.provider_simulator.cache import PromptCaches
from guidance_agent.provider_simulator.prompt import Prompt
from guidance_agent.provider_simulator.read_anthropic import read_messages_request
from guidance_agent.provider_simulator.read_openai import read_chat_request
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.tokens import count_tokens, split_tokens

MINIMUM = 40
MODELS = {"claude-sonnet-5-5": MINIMUM, "gpt-6-sol": MINIMUM}
SETTINGS = SimulatorSettings.instant().but(cache_minimums=MODELS)
WORDS = ["alpha ", "beta ", "gamma "]
LIVES = {"5m": 300.0, "1h": 3_600.0}


@dataclass(frozen=True)
class Piece:
    """A block of a request: which text, how long, and its mark."""

    word: int
    length: int
    mark: str | None

    @property
    def text(self) -> str:
        return WORDS[self.word] * self.length


pieces = st.builds(Piece, st.integers(0, 2), st.sampled_from([3, 15, 45]), st.sampled_from([None, None, "5m", "1h"]))
pauses = st.sampled_from([0.0, 100.0, 299.0, 301.0, 1_801.0, 3_601.0])
delays = st.sampled_from([0.0, 1.0, 150.0])
requests = st.tuples(st.lists(pieces, min_size=1, max_size=28), pauses, delays)


def lawful(blocks: list[Piece]) -> list[Piece]:
    """At most four marks, one hour before five minutes: what the provider accepts."""
    kept: list[Piece] = []
    marks: list[str] = []
    for block in blocks:
        mark = block.mark
        if mark is not None and (len(marks) == 4 or (mark == "1h" and "5m" in marks)):
            mark = None
        if mark is not None:
            marks.append(mark)
        kept.append(Piece(block.word, block.length, mark))
    return kept


def logged(
    blocks: list[Piece], prompt: Prompt, *, now: float, begun: float, life: float | None = None
) -> LoggedRequest:
    """The request as the rules see it; the framing that the prompt has beside its blocks stands before the first."""
    sizes = [count_tokens(block.text) for block in blocks]
    framing = prompt.input_tokens - prompt.trailing_tokens - sum(sizes)
    spans = [
        Span((block.word, block.length), size, None if block.mark is None else life or LIVES[block.mark])
        for block, size in zip(blocks, sizes, strict=True)
    ]
    spans[0] = spans[0]._replace(tokens=spans[0].tokens + framing)
    return LoggedRequest(key="", group="", spans=tuple(spans), started=now, begun=begun)


@settings(max_examples=150, deadline=None)
@given(st.lists(requests, min_size=1, max_size=8))
def test_anthropic_accounting_equals_the_reference(sequence: list[tuple[list[Piece], float, float]]) -> None:
    caches, rules, now = PromptCaches(SETTINGS), AnthropicRules(MINIMUM), 1_000.0
    for raw, pause, delay in sequence:
        now += pause
        blocks = lawful(raw)
        content: list[dict[str, Any]] = []
        for block in blocks:
            part: dict[str, Any] = {"type": "text", "text": block.text}
            if block.mark is not None:
                part["cache_control"] = {"type": "ephemeral", "ttl": block.mark}
            content.append(part)
        body = {"model": "claude-sonnet-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": content}]}
        prompt = read_messages_request(body, SETTINGS)
        lease = caches.begin(prompt, workspace="w", now=now)
        lease.commit(now + delay)
        expected = rules.ask(logged(blocks, prompt, now=now, begun=now + delay))
        assert (lease.use.read, lease.use.written_5m, lease.use.written_1h) == expected
        assert lease.use.total == prompt.input_tokens


@settings(max_examples=150, deadline=None)
@given(st.lists(requests, min_size=1, max_size=8))
def test_openai_breakpoints_equal_the_reference(sequence: list[tuple[list[Piece], float, float]]) -> None:
    caches, rules, now = PromptCaches(SETTINGS), BreakpointRules(MINIMUM), 1_000.0
    for blocks, pause, delay in sequence:
        now += pause
        content: list[dict[str, Any]] = []
        for block in blocks:
            part: dict[str, Any] = {"type": "text", "text": block.text}
            if block.mark is not None:
                part["prompt_cache_breakpoint"] = {"mode": "explicit"}
            content.append(part)
        body = {
            "model": "gpt-6-sol",
            "messages": [{"role": "user", "content": content}],
            "prompt_cache_options": {"mode": "explicit"},
        }
        prompt = read_chat_request(body, SETTINGS)
        lease = caches.begin(prompt, workspace="w", now=now)
        lease.commit(now + delay)
        expected = rules.ask(logged(blocks, prompt, now=now, begun=now + delay, life=1_800.0))
        assert (lease.use.read, lease.use.written) == expected[:2]
        assert lease.use.total == prompt.input_tokens


prompts_in_words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(prompts_in_words, pauses, st.sampled_from(["k-1", "k-2"])), min_size=2, max_size=6))
def test_automatic_prefixes_equal_the_reference(sequence: list[tuple[list[str], float, str]]) -> None:
    caches, now = PromptCaches(SETTINGS), 1_000.0
    rules = PrefixRules(1_024, tokens=split_tokens, framing=3)
    for chosen, pause, key in sequence:
        now += pause
        text = "".join(word * 150 for word in chosen)
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], "prompt_cache_key": key}
        prompt = read_chat_request(body, SETTINGS)
        lease = caches.begin(prompt, workspace="w", now=now)
        lease.commit(now)
        span = Span(("user", text), prompt.input_tokens - prompt.trailing_tokens, None)
        request = LoggedRequest(key=key, group="", spans=(span,), started=now, begun=now)
        assert lease.use.read == rules.ask(request).read
        assert lease.use.written == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(prompts_in_words, min_size=2, max_size=5))
def test_automatic_prefixes_equal_the_longest_common_one(prompts: list[list[str]]) -> None:
    caches = PromptCaches(SETTINGS)
    seen: list[list[str]] = []
    for chosen in prompts:
        words = [word for word in chosen for _ in range(150)]
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "".join(words)}]}
        lease = caches.begin(read_chat_request(body, SETTINGS), workspace="w", now=1_000.0)
        lease.commit(1_000.0)
        # Word by word: three tokens of framing, then one token for each word (its leading space is the last one's end).
        longest = 0
        for earlier in seen:
            shared = 0
            for one, other in zip(words, earlier, strict=False):
                if one != other:
                    break
                shared += 1
            longest = max(longest, shared)
        expected = (longest + 3) // 128 * 128
        assert lease.use.read == (expected if expected >= 1_024 else 0)
        seen.append(words)
