"""The rules of the gate are read while the model thinks: nothing waits for them that need not, and nothing is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import date
from pathlib import Path
from typing import TypeAlias

import pytest

from guidance_agent import AdvisorAgent, Completed, CustomerProfile, Failed, Runtime, TextDelta, TurnStarted
from guidance_agent.compliance import gatekeeper
from guidance_agent.compliance.dated_rules import GateRules
from guidance_agent.compliance.fitted_models import load_models
from guidance_agent.compliance.gatekeeper import Gatekeeper
from guidance_agent.compliance.rules_version import fitted_version
from guidance_agent.errors import ConfigurationError, KnowledgeError
from guidance_agent.knowledge.loader import load_knowledge
from guidance_agent.provider_simulator import ProviderSimulator, Script
from guidance_agent.settings import GateSettings
from tests.integration.advisor.wiring import author_requests, author_says, closed_by_client, endless, wired_settings

Opened: TypeAlias = Callable[[], AbstractAsyncContextManager[AdvisorAgent]]
BREACH = "Some keep it invested. You should take all of it out now. Others draw an income."


class SlowReading:
    """Lets the reading of the rules go on when it is told to, and fails if it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.failure: Exception | None = None
        self.readings = 0
        read = Gatekeeper._read

        def slowly(keeper: Gatekeeper) -> GateRules:
            self.readings += 1
            self.begun.set()
            if not self.may_end.wait(10):
                raise TimeoutError("nobody let the reading end")
            if self.failure is not None:
                raise self.failure
            return read(keeper)

        monkeypatch.setattr(Gatekeeper, "_read", slowly)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowReading]:
    slow = SlowReading(monkeypatch)
    yield slow
    slow.may_end.set()


@pytest.fixture
def opened(simulator: ProviderSimulator, wire: str, tmp_path: Path) -> Opened:
    @asynccontextmanager
    async def open_advisor() -> AsyncIterator[AdvisorAgent]:
        async with (
            Runtime(wired_settings(simulator, wire, tmp_path / "data"), environ={}) as runtime,
            AdvisorAgent(runtime=runtime) as advisor,
        ):
            yield advisor

    return open_advisor


async def asked(simulator: ProviderSimulator, wire: str) -> None:
    """Wait until the author has been asked."""
    async with asyncio.timeout(5):
        while not author_requests(simulator, wire):  # noqa: ASYNC110 - the simulator's log is what is polled
            await asyncio.sleep(0.01)


def reading_tasks() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "rules of the gate"]


def test_the_version_that_is_told_without_reading_the_models_is_theirs() -> None:
    assert fitted_version() == load_models().version


def test_the_version_on_record_is_told_without_reading_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gatekeeper, "_read", None)
    keeper = Gatekeeper(GateSettings(), load_knowledge())
    assert GateRules(load_knowledge()).version in keeper._version
    assert len(keeper.policy_version) == 16


def test_models_of_another_version_than_they_are_said_to_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gatekeeper, "fitted_version", lambda: "000000000000")
    keeper = Gatekeeper(GateSettings(), load_knowledge())
    with pytest.raises(KnowledgeError, match="python -m fitting"):
        keeper.gate(date(2026, 11, 21), question="", asks=False)


async def test_a_turn_begins_and_its_model_is_asked_while_the_rules_are_read(
    opened: Opened, reading: SlowReading, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=(BREACH[:30], BREACH[30:])))
    async with opened() as advisor, advisor.consult(janet, use_reasoning=False) as turn:
        events = aiter(turn)
        assert isinstance(await anext(events), TurnStarted)
        await asked(simulator, wire)
        assert reading.begun.is_set()
        assert not reading.may_end.is_set()
        reading.may_end.set()
        rest = [event async for event in events]
    assert isinstance(rest[-1], Completed)
    said = "".join(event.text for event in rest if isinstance(event, TextDelta))
    assert said.startswith("Some keep it invested. ")
    assert "out now" not in said


async def test_rules_are_read_once_for_all_turns(
    opened: Opened, reading: SlowReading, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=("Some keep it invested.",)))
    reading.may_end.set()

    async def ask(advisor: AdvisorAgent, name: str) -> str:
        customer = janet.model_copy(update={"customer_id": name})
        return "".join([text async for text in advisor.provide_guidance_stream(customer, use_reasoning=False)])

    async with opened() as advisor:
        said = await asyncio.gather(*(ask(advisor, f"c-{number}") for number in range(3)))
        said.append(await ask(advisor, "c-4"))
    assert [text.partition(".")[0] for text in said] == ["Some keep it invested"] * 4
    assert reading.readings == 1


async def test_nothing_is_shown_before_there_is_a_gate_and_a_caller_who_leaves_waits_for_no_rules(
    opened: Opened, reading: SlowReading, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    async with opened() as advisor:
        async with advisor.consult(janet, use_reasoning=False) as turn:
            assert isinstance(await anext(aiter(turn)), TurnStarted)
            await asked(simulator, wire)
        await closed_by_client(author_requests(simulator, wire)[0], within=0.5)
        assert turn.state == "closed_early"
        assert not reading.may_end.is_set()
        # Another turn may still want them.
        assert len(reading_tasks()) == 1
        reading.may_end.set()
    assert reading_tasks() == []


async def test_closing_the_runtime_waits_for_the_thread_that_reads(
    opened: Opened, reading: SlowReading, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    endless(simulator, wire)
    async with opened() as advisor, advisor.consult(janet, use_reasoning=False) as turn:
        assert isinstance(await anext(aiter(turn)), TurnStarted)
        await asyncio.to_thread(reading.begun.wait, 5)
        asyncio.get_running_loop().call_later(0.1, reading.may_end.set)
    assert reading.may_end.is_set()
    assert reading_tasks() == []


async def test_rules_that_cannot_be_read_fail_the_turn_before_any_text_and_are_read_again_for_the_next(
    opened: Opened, reading: SlowReading, simulator: ProviderSimulator, wire: str, janet: CustomerProfile
) -> None:
    author_says(simulator, wire, Script(pieces=("Some keep it invested.",)))
    reading.failure = KnowledgeError("The file cannot be used.")
    reading.may_end.set()
    async with opened() as advisor:
        async with advisor.consult(janet, use_reasoning=False) as turn:
            events = [event async for event in turn if event.public]
        assert [type(event) for event in events] == [TurnStarted, Failed]
        assert isinstance(turn.exception, KnowledgeError)
        reading.failure = None
        async with advisor.consult(janet, use_reasoning=False) as turn:
            events = [event async for event in turn if event.public]
    assert isinstance(events[-1], Completed)


async def test_facts_of_ones_own_that_lack_a_figure_of_the_rules_are_told_when_the_runtime_opens(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    facts = tmp_path / "knowledge" / "facts"
    facts.mkdir(parents=True)
    shipped = Path(load_knowledge.__code__.co_filename).parent / "facts"
    for file in shipped.iterdir():
        (facts / file.name).write_bytes(file.read_bytes())
    settings = wired_settings(simulator, wire, tmp_path / "data", knowledge_dir=tmp_path / "knowledge")
    with pytest.raises(ConfigurationError, match="names the figure"):
        async with Runtime(settings, environ={}):
            pass
