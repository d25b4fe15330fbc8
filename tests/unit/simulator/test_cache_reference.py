"""The cache accounting beside a slow reference that was written from the published rules alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from guidance_agent.provider_simulator.cache import PromptCaches
from guidance_agent.provider_simulator.read_anthropic import read_messages_request
from guidance_agent.provider_simulator.read_openai import read_chat_request
from guidance_agent.provider_simulator.settings import SimulatorSettings
from guidance_agent.provider_simulator.tokens import count_tokens

MINIMUM = 40
MODELS = {"claude-sonnet-5-5": MINIMUM, "gpt-6-sol": MINIMUM}
SETTINGS = SimulatorSettings.instant().but(cache_minimums=MODELS)
WORDS = ["alpha ", "beta ", "gamma "]


@dataclass(frozen=True)
class Piece:
    """A block of a request: which text, how long, and its mark."""

    word: int
    length: int
    mark: str | None


@dataclass
class Known:
    """A prefix that some request wrote: its blocks, until when it lives, and for how long a read renews it."""

    prefix: tuple[tuple[int, int], ...]
    ttl: float
    until: float


pieces = st.builds(Piece, st.integers(0, 2), st.sampled_from([3, 15, 45]), st.sampled_from([None, None, "5m", "1h"]))
requests = st.tuples(
    st.lists(pieces, min_size=1, max_size=28), st.sampled_from([0.0, 100.0, 299.0, 301.0, 1_801.0, 3_601.0])
)


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


def text_of(block: Piece) -> str:
    return WORDS[block.word] * block.length


def size_of(block: Piece) -> int:
    return count_tokens(text_of(block))


class AnthropicReference:
    """Every rule as a sentence, every look-up as a scan."""

    def __init__(self) -> None:
        self.known: list[Known] = []

    def alive(self, prefix: tuple[tuple[int, int], ...], now: float) -> Known | None:
        return next((k for k in self.known if k.prefix == prefix and now < k.until), None)

    def ask(self, blocks: list[Piece], now: float, ahead: int) -> tuple[int, int, int]:
        """Tokens read, written for five minutes, written for an hour; `ahead` is the framing before the blocks."""
        shapes = [(b.word, b.length) for b in blocks]

        def tokens(upto: int) -> int:
            return ahead + sum(size_of(b) for b in blocks[:upto])

        marks = [i + 1 for i, b in enumerate(blocks) if b.mark and tokens(i + 1) >= MINIMUM]
        best, source = 0, None
        for mark in marks:
            for upto in range(mark, max(0, mark - 20), -1):
                found = self.alive(tuple(shapes[:upto]), now)
                if found is not None:
                    found.until = max(found.until, now + found.ttl)
                    if upto > best:
                        best, source = upto, found
                    break
        a = tokens(best) if best else 0
        b = max([a] + [tokens(m) for m in marks if blocks[m - 1].mark == "1h"])
        c = max([a] + [tokens(m) for m in marks])
        for mark in marks:
            if self.alive(tuple(shapes[:mark]), now) is None:
                ttl = 3_600.0 if blocks[mark - 1].mark == "1h" else 300.0
                if source is not None and mark < best:
                    ttl = min(ttl, source.ttl)
                self.known.append(Known(tuple(shapes[:mark]), ttl, now + ttl))
        return a, c - b, b - a


@settings(max_examples=150, deadline=None)
@given(st.lists(requests, min_size=1, max_size=8))
def test_anthropic_accounting_equals_the_reference(sequence: list[tuple[list[Piece], float]]) -> None:
    caches, reference, now = PromptCaches(SETTINGS), AnthropicReference(), 1_000.0
    for raw, pause in sequence:
        now += pause
        blocks = lawful(raw)
        content: list[dict[str, Any]] = []
        for block in blocks:
            part: dict[str, Any] = {"type": "text", "text": text_of(block)}
            if block.mark is not None:
                part["cache_control"] = {"type": "ephemeral", "ttl": block.mark}
            content.append(part)
        body = {"model": "claude-sonnet-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": content}]}
        prompt = read_messages_request(body, SETTINGS)
        lease = caches.begin(prompt, workspace="w", now=now)
        lease.commit(now)
        framing = prompt.input_tokens - prompt.trailing_tokens - sum(map(size_of, blocks))
        read, five, hour = reference.ask(blocks, now, framing)
        assert (lease.use.read, lease.use.written_5m, lease.use.written_1h) == (read, five, hour)
        assert lease.use.total == prompt.input_tokens


class BreakpointReference:
    """Exact matches at breakpoints only; the latest four that are new are written; thirty minutes from the last use."""

    def __init__(self) -> None:
        self.known: list[Known] = []

    def ask(
        self, texts: list[tuple[tuple[int, int], ...]], sizes: list[int], marked: list[bool], now: float
    ) -> tuple[int, int]:
        def alive(prefix: tuple[tuple[int, int], ...]) -> Known | None:
            return next((k for k in self.known if k.prefix == prefix and now < k.until), None)

        long = [i for i, mark in enumerate(marked) if mark and sizes[i] >= MINIMUM]
        read = 0
        for index in [i for i, mark in enumerate(marked) if mark][-50:]:
            found = alive(texts[index]) if index in long else None
            if found is not None:
                found.until = now + 1_800
                read = sizes[index]
        new = [i for i in long if alive(texts[i]) is None][-4:]
        self.known += [Known(texts[i], 1_800.0, now + 1_800) for i in new]
        return read, max(0, sizes[new[-1]] - read) if new else 0


@settings(max_examples=150, deadline=None)
@given(st.lists(requests, min_size=1, max_size=8))
def test_openai_breakpoints_equal_the_reference(sequence: list[tuple[list[Piece], float]]) -> None:
    caches, reference, now = PromptCaches(SETTINGS), BreakpointReference(), 1_000.0
    for blocks, pause in sequence:
        now += pause
        content: list[dict[str, Any]] = []
        for block in blocks:
            part: dict[str, Any] = {"type": "text", "text": text_of(block)}
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
        lease.commit(now)
        framing = prompt.input_tokens - prompt.trailing_tokens - sum(map(size_of, blocks))
        shapes = [(b.word, b.length) for b in blocks]
        prefixes = [tuple(shapes[: i + 1]) for i in range(len(blocks))]
        sizes = [framing + sum(size_of(b) for b in blocks[: i + 1]) for i in range(len(blocks))]
        read, written = reference.ask(prefixes, sizes, [b.mark is not None for b in blocks], now)
        assert (lease.use.read, lease.use.written) == (read, written)
        assert lease.use.total == prompt.input_tokens


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), min_size=2, max_size=5))
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
