"""What prompt caching reads and saves over whole consultations, beside what the published rules allow to be read.

Fifty customers hold a consultation of five turns each with `AdvisorAgent`, private notes included, on three regimes:
Anthropic's breakpoints, OpenAI's breakpoints and OpenAI's automatic prefixes. The provider is the simulator in a
process of its own with a clock that is moved by hand: everybody asks once a minute, at even distances.

What may be read is counted twice from the logged requests alone (`benchmarks/cache_rules.py`), not by the simulator's
cache and not by the plan: with the breakpoints and keys that were sent, and with the best ones that anybody could have
sent, a breakpoint after every message and as few keys as fifteen requests a minute and key allow.

The same consultations are then held with caching switched off. Since models with automatic prefixes cannot be told to
forget, the provider's cache is emptied before each of those turns.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.cache_log import LoggedCall, framing_of, read_log
from benchmarks.cache_rules import (
    AnthropicRules,
    BreakpointRules,
    LoggedRequest,
    PrefixRules,
    Rules,
    best_marks,
    fewest_keys,
)
from benchmarks.rows import Place, Row
from guidance_agent import AdvisorAgent, CustomerProfile, Runtime, Settings
from guidance_agent.core.cache_report import CacheFigures, cache_report
from guidance_agent.core.database import Database, database_url
from guidance_agent.provider_simulator import ProviderSimulatorProcess
from guidance_agent.provider_simulator.tokens import count_tokens, split_tokens
from guidance_agent.testing import load_persona, personas

__all__ = ["REGIMES", "Held", "Regime", "hold_consultations", "invented_customers", "run"]

PROMISED_FOR = 50
"""Customers."""

KEY = "test-key-of-the-simulator"

MINIMUM = {
    "claude-sonnet-5-5": 512,
    "claude-haiku-5-5": 512,
    "gpt-6-sol": 1_024,
    "gpt-6-luna": 1_024,
    "gpt-5.5": 1_024,
    "gpt-5.4-mini": 1_024,
}
"""Shortest cacheable prefix of each model, in tokens, as its provider publishes it."""

FOLLOW_UPS = (
    "How much of that would be taxed?",
    "And when does my State Pension begin?",
    "What would happen to it if I died before 75?",
    "I don't quite follow. Can you say that again with an example?",
    "Could I leave it where it is for now?",
    "Somebody rang me about a better scheme. Is that normal?",
    "So you mean I could do it in several steps?",
    "What would an annuity have paid me instead?",
    "Who could I talk to about this?",
)


class Regime(NamedTuple):
    """A way of caching, with an author model and a fast model that cache so."""

    name: str
    author: str
    fast: str

    @property
    def provider(self) -> str:
        return self.author.partition("/")[0]


REGIMES = (
    Regime("Anthropic", "anthropic/claude-sonnet-5-5", "anthropic/claude-haiku-5-5"),
    Regime("OpenAI, breakpoints", "openai/gpt-6-sol", "openai/gpt-6-luna"),
    Regime("OpenAI, automatic", "openai/gpt-5.5", "openai/gpt-5.4-mini"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What consultations left behind: the simulator's log, the figures of our own records, and what was asked."""

    log: list[LoggedCall]
    framing: int
    figures: CacheFigures
    questions: frozenset[str]


def invented_customers(count: int) -> list[CustomerProfile]:
    """Return customers of whom no two have the same profile."""
    names = personas()
    customers = []
    for number in range(count):
        persona = load_persona(names[number % len(names)]).profile
        changes = {"customer_id": f"customer-{number}", "notes": f"Saves {90 + number} pounds a month besides."}
        customers.append(persona.model_copy(update=changes))
    return customers


async def hold_consultations(
    simulator: ProviderSimulatorProcess,
    regime: Regime,
    customers: Sequence[CustomerProfile],
    turns: int,
    *,
    cached: bool,
) -> Held:
    """Hold a consultation with each customer, all of them in step, and return what it left behind.

    Args:
        simulator: A simulator whose clock is moved by hand.
        regime: The models.
        customers: Who asks.
        turns: How often each of them asks.
        cached: Whether prompt caching is on.
    """
    questions: set[str] = set()
    for forgotten in ("requests", "cache"):
        await asyncio.to_thread(simulator.control, "DELETE", forgotten)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.load(
            data_dir=Path(folder),
            database_url=None,
            background=False,
            model=regime.author,
            reasoning_model=regime.fast,
            reasoning_deadline=60.0,
            enable_prompt_caching=cached,
            providers={regime.provider: {"base_url": simulator.base_url, "api_key": KEY}},
        )
        async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
            histories: list[list[dict[str, str]]] = [[] for _ in customers]
            for turn in range(turns):
                for number, customer in enumerate(customers):
                    question = FOLLOW_UPS[(number + turn) % len(FOLLOW_UPS)] if turn else customer.presenting_question
                    questions.add(str(question))
                    histories[number].append({"role": "customer", "content": str(question)})
                    if not cached:
                        await asyncio.to_thread(simulator.control, "DELETE", "cache")
                    answer = [piece async for piece in advisor.provide_guidance_stream(customer, histories[number])]
                    histories[number].append({"role": "advisor", "content": "".join(answer)})
                    await asyncio.to_thread(simulator.control, "POST", "clock", {"advance": 60.0 / len(customers)})
        async with Database(database_url(settings)) as records:
            (section,) = (await cache_report(records)).sections
    logged = await asyncio.to_thread(simulator.requests)
    return Held(
        log=read_log(logged, count_tokens),
        framing=framing_of(logged, count_tokens)[0],
        figures=section.total,
        questions=frozenset(questions),
    )


def allowed(held: Held, *, best_breakpoints: bool = False, own_keys: bool = True) -> list[int]:
    """Return how many tokens each call may read, in the order of the log.

    Args:
        held: The consultations.
        best_breakpoints: With the best breakpoints instead of those that were sent.
        own_keys: With the keys that were sent instead of the fewest.
    """
    found = [0] * len(held.log)
    for model in dict.fromkeys(call.model for call in held.log):
        places = [place for place, call in enumerate(held.log) if call.model == model]
        requests: Sequence[LoggedRequest] = [held.log[place].request for place in places]
        if not own_keys:
            requests = fewest_keys(requests)
        if best_breakpoints:
            requests = [best_marks(request) for request in requests]
        rules = _rules(model, held.framing, any_distance=best_breakpoints)
        for place, request in zip(places, requests, strict=True):
            found[place] = rules.ask(request).read
    return found


def _rules(model: str, framing: int, *, any_distance: bool) -> Rules:
    minimum = MINIMUM[model]
    if model.startswith("claude"):
        return AnthropicRules(minimum, positions=float("inf")) if any_distance else AnthropicRules(minimum)
    if model.startswith("gpt-6"):
        return BreakpointRules(minimum)
    return PrefixRules(minimum, tokens=split_tokens, framing=framing)


class Shares(NamedTuple):
    """Tokens that could have been read, and what was read in percent: of them, and of all after the first call.

    Attributes:
        allowed: With the breakpoints and keys that were sent.
        best: With the best breakpoints and the fewest keys.
    """

    allowed: int
    best: int
    of_allowed: float
    of_best: float
    of_stable: float
    of_all: float


def shares(held: Held) -> Shares:
    """Return the shares that were read; "after the first call" leaves out the first call of each model.

    Raises:
        ValueError: a call read more than the rules allow, so that the rules are read wrongly.
    """
    sent, best = allowed(held), allowed(held, best_breakpoints=True, own_keys=False)
    for call, may in zip(held.log, sent, strict=True):
        if call.read > may:
            raise ValueError(
                f"a call of {call.model} read {call.read} tokens where the rules allow {may}: the simulator and "
                "benchmarks/cache_rules.py disagree"
            )
    first = {call.model: place for place, call in reversed(list(enumerate(held.log)))}
    later = [call for place, call in enumerate(held.log) if first[call.model] != place]
    read = sum(call.read for call in held.log)
    return Shares(
        allowed=sum(sent),
        best=sum(best),
        of_allowed=100 * read / sum(sent),
        of_best=100 * read / sum(best),
        of_stable=100 * sum(min(call.read, sum(call.parts)) for call in later) / sum(sum(call.parts) for call in later),
        of_all=100 * sum(call.read for call in later) / sum(call.total for call in later),
    )


def saving(cached: Held, plain: Held) -> float:
    """Return by how many per cent the input was cheaper than with caching off.

    Raises:
        ValueError: the two runs are not of the same prompts, or what our records call the cost without caching is not
            what the run without caching cost.
    """
    paid, without, full = cached.figures.paid_usd, cached.figures.uncached_usd, plain.figures.paid_usd
    totals = [sum(call.total for call in held.log) for held in (cached, plain)]
    if paid is None or without is None or full is None or plain.figures.read_tokens or totals[0] != totals[1]:
        raise ValueError(f"the runs cannot be compared: {totals} tokens, {cached.figures!r}, {plain.figures!r}")
    if abs(without - full) > 1e-6 * full:
        raise ValueError(f"the records say {without} dollars without caching; the run without it cost {full}")
    return 100 * (1 - paid / full)


class _Table:
    """Makes the rows of one regime's column."""

    def __init__(self, title: str, regime: Regime, *, promised: bool) -> None:
        self._title = title
        self._regime = regime
        self._promised = promised

    def row(
        self, name: str, value: float, words: str, *, unit: str = "", target: str = "", reached: bool = True
    ) -> Row:
        line = f"{name} ({target})" if target else name
        return Row(
            name=f"{name}, {self._regime.name}",
            unit=unit,
            value=value,
            floor=None,
            ratio=None,
            target=target,
            place=Place(table=self._title, line=line, column=self._regime.name, words=words),
            broken=self._promised and not reached,
        )

    def tokens(self, name: str, count: int) -> Row:
        return self.row(name, count, f"{count:,}", unit="tokens")

    def lengths(self, name: str, counts: Sequence[int], *, target: str = "", reached: bool = True) -> Row:
        least, most = min(counts), max(counts)
        words = f"{least:,}" if least == most else f"{least:,} to {most:,}, mean {sum(counts) / len(counts):,.0f}"
        return self.row(name, least, words, unit="tokens", target=target, reached=reached)

    def share(self, name: str, value: float, *, at_least: float) -> Row:
        target = f"≥ {at_least:g} %"
        return self.row(name, round(value, 2), f"{value:.1f} %", unit="%", target=target, reached=value >= at_least)


def _rows(regime: Regime, cached: Held, plain: Held, *, title: str, promised: bool) -> Iterator[Row]:
    table, found, calls = _Table(title, regime, promised=promised), shares(cached), cached.log
    shared = [sum(call.parts[:2]) for call in calls]
    last = [count_tokens(call.last) - _asked(call.last, cached.questions) for call in calls]
    yield table.row("models", 2, f"{regime.author.partition('/')[2]}, {regime.fast.partition('/')[2]}")
    yield table.row("calls", len(calls), f"{len(calls):,}")
    in_bounds = min(shared) >= 2_000 and max(shared) <= 4_000
    yield table.lengths("Parts 1 + 2, tokens", shared, target="2,000 to 4,000", reached=in_bounds)
    yield table.lengths("Part 3, tokens", [call.parts[2] for call in calls])
    long_enough = min(last) >= 600
    yield table.lengths("last message besides the question, tokens", last, target="≥ 600", reached=long_enough)
    yield table.tokens("input, tokens", sum(call.total for call in calls))
    yield table.tokens("written, tokens", sum(call.written for call in calls))
    yield table.tokens("read, tokens", sum(call.read for call in calls))
    yield table.tokens("may be read with the breakpoints and keys that were sent, tokens", found.allowed)
    yield table.tokens("may be read with the best breakpoints and the fewest keys, tokens", found.best)
    yield table.share("read of what may be read as sent", found.of_allowed, at_least=98)
    yield table.share("read of what may be read at best", found.of_best, at_least=98)
    yield table.share("read of Parts 1 to 3 after the first call", found.of_stable, at_least=90)
    yield table.share("read of all input after the first call", found.of_all, at_least=70)
    paid, full = cached.figures.paid_usd or 0.0, plain.figures.paid_usd or 0.0
    yield table.row("input cost, with caching off", round(full, 6), f"${full:.4f}", unit="USD")
    yield table.row("input cost, with caching", round(paid, 6), f"${paid:.4f}", unit="USD")
    yield table.share("input cost saved", saving(cached, plain), at_least=60)
    labels = ", ".join(f"{label} {count:,}" for label, count in cached.figures.outcomes.items())
    yield table.row("labels", cached.figures.hits, labels)


def _asked(last: str, questions: frozenset[str]) -> int:
    """Return the tokens of the question that stands in the last message."""
    return count_tokens(max((question for question in questions if question in last), key=len, default=""))


async def _measure(simulator: ProviderSimulatorProcess, count: int, turns: int) -> list[Row]:
    customers = invented_customers(count)
    title = f"{count} customers × {turns} turns"
    rows: list[Row] = []
    for regime in REGIMES:
        cached = await hold_consultations(simulator, regime, customers, turns, cached=True)
        plain = await hold_consultations(simulator, regime, customers, turns, cached=False)
        rows.extend(_rows(regime, cached, plain, title=title, promised=count >= PROMISED_FOR))
    return rows


def run(*, quick: bool = False) -> list[Row]:
    """Measure everything and return the figures; the promised shares hold for fifty customers."""
    with ProviderSimulatorProcess(["--instant", "--seed", "7", "--manual-clock"]) as simulator:
        return asyncio.run(_measure(simulator, 10 if quick else PROMISED_FOR, 5))
