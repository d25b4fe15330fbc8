"""Set-ups that cannot work say so in time, and every transport takes the same whole path."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from guidance_agent import AdvisorAgent, Completed, Event, Failed, Runtime
from guidance_agent.core.schema import model_calls, turns
from guidance_agent.errors import (
    AuthenticationError,
    ConfigurationError,
    ModelError,
    ModelNotFoundError,
    ProviderUnreachableError,
    UnknownModelError,
)
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.advisor.wiring import AUTHOR, author_fails, author_requests, author_says, bare, wired_settings
from tests.integration.attacks.evidence import asks, check_ended, public, replayed, rows, shown


async def outcome(runtime: Runtime, *, use_reasoning: bool = False) -> tuple[list[Event], Exception | None]:
    async with AdvisorAgent(runtime=runtime) as advisor:
        async with advisor.consult(asks("c"), use_reasoning=use_reasoning) as turn:
            events = [event async for event in turn]
        await check_ended(runtime, turn.turn_id, shown(events))
        return events, turn.exception


def provider(wire: str, base_url: str, key: str = "a-key") -> dict[str, dict[str, str]]:
    return {wire: {"base_url": base_url, "api_key": key}}


async def test_an_address_where_nobody_listens_is_a_typed_failure_on_record(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    settings = wired_settings(simulator, wire, tmp_path / "data", providers=provider(wire, "http://127.0.0.1:1"))
    async with Runtime(settings, environ={}) as runtime:
        events, error = await outcome(runtime, use_reasoning=True)
    assert isinstance(error, ProviderUnreachableError)
    assert isinstance(events[-1], Failed)
    assert "127.0.0.1:1" in events[-1].message


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_an_address_may_be_written_with_and_without_its_version(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, path: str
) -> None:
    settings = wired_settings(simulator, wire, tmp_path / "data", providers=provider(wire, simulator.base_url + path))
    async with Runtime(settings, environ={}) as runtime:
        events, _ = await outcome(runtime)
    assert isinstance(events[-1], Completed)


async def test_an_address_with_a_wrong_path_a_wrong_key_and_an_unknown_model_are_told_apart(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    wrong_path = wired_settings(
        simulator, wire, tmp_path / "path", providers=provider(wire, f"{simulator.base_url}/elsewhere/v1")
    )
    async with Runtime(wrong_path, environ={}) as runtime:
        assert isinstance((await outcome(runtime))[1], ModelNotFoundError)
    unknown = wired_settings(simulator, wire, tmp_path / "model", model=f"{wire}/no-such-model-9")
    async with Runtime(unknown, environ={}) as runtime:
        assert isinstance((await outcome(runtime))[1], ModelNotFoundError)
    author_fails(simulator, wire, kind="status", status=401, times=None)
    wrong_key = wired_settings(
        simulator, wire, tmp_path / "key", providers=provider(wire, simulator.base_url, "wrong-key-1234")
    )
    async with Runtime(wrong_key, environ={}) as runtime:
        events, error = await outcome(runtime)
    assert isinstance(error, AuthenticationError)
    assert "wrong-key-1234" not in str(events)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("/", UnknownModelError),
        ("nobody/x", UnknownModelError),
        ("no-provider-known", UnknownModelError),
        ("gemini/", UnknownModelError),
        ("mistral/large", ConfigurationError),
    ],
)
async def test_a_model_that_cannot_be_called_is_refused_before_anything_is_recorded(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, model: str, error: type[ConfigurationError]
) -> None:
    settings = wired_settings(simulator, wire, tmp_path / "data")
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime, model=model) as advisor:
        with pytest.raises(error):
            await advisor.provide_guidance(asks("c"))
        assert await rows(runtime, turns) == []
    with pytest.raises(ConfigurationError):
        async with (
            Runtime(wired_settings(simulator, wire, tmp_path / "data", model=model), environ={}) as runtime,
            AdvisorAgent(runtime=runtime) as advisor,
        ):
            await advisor.provide_guidance(asks("c"))


async def test_a_model_without_a_native_transport_is_refused_before_anything_is_recorded(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    settings = wired_settings(simulator, wire, tmp_path / "data", transport="native", model="cohere/command-r")
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        with pytest.raises(ConfigurationError):
            await advisor.consult(asks("c"), use_reasoning=False).__aenter__()
        assert await rows(runtime, turns) == []


@pytest.mark.parametrize("reasoning_model", ["groq/fast", "cohere/command-r", "nobody/x"])
async def test_a_model_for_notes_that_cannot_be_called_costs_no_answer_or_is_refused_in_time(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, reasoning_model: str
) -> None:
    settings = wired_settings(simulator, wire, tmp_path / "data", transport="native", reasoning_model=reasoning_model)
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        try:
            turn = await advisor.consult(asks("c")).__aenter__()
        except ConfigurationError:
            assert await rows(runtime, turns) == []
            return
        events = [event async for event in turn]
    assert isinstance(events[-1], Completed)


async def test_a_fallback_answers_before_the_first_text_and_never_after_it(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    second = {"anthropic": "anthropic/claude-haiku-5-5", "openai": "openai/gpt-6-luna"}[wire]
    settings = wired_settings(
        simulator, wire, tmp_path / "data", fallbacks=["nobody/x", second], retry={"max_attempts": 1}
    )
    async with Runtime(settings, environ={}) as runtime:
        author_fails(simulator, wire, kind="status", status=500)
        events, error = await outcome(runtime)
        assert error is None
        assert isinstance(events[-1], Completed)
        assert {row["model"] for row in await rows(runtime, model_calls)} == {second}
        before = len(simulator.requests)
        author_fails(simulator, wire, kind="drop", after_chunks=1, script=Script(chunks=9, interval_ms=5))
        async with AdvisorAgent(runtime=runtime) as advisor, advisor.consult(asks("d"), use_reasoning=False) as turn:
            events = [event async for event in turn]
    assert isinstance(turn.exception, ModelError)
    assert len(simulator.requests) == before + 1


@pytest.mark.slow
@pytest.mark.only_on("sqlite")
@pytest.mark.filterwarnings("ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211")
async def test_the_whole_path_through_litellm_shows_and_records_what_the_native_path_does(
    simulator: ProviderSimulator, wire: str, tmp_path: Path
) -> None:
    text = "A quarter is free of tax \N{BANKNOTE WITH POUND SIGN}. <think>hidden</think>Cafe\u0301.\r\n\r\nEnd."
    author_says(simulator, wire, Script(text=text))
    base_url = simulator.base_url + ("/v1" if wire == "openai" else "")
    texts = {}
    for transport in ("native", "litellm"):
        settings = wired_settings(
            simulator, wire, tmp_path / transport, transport=transport, providers=provider(wire, base_url)
        )
        async with Runtime(settings, environ={}) as runtime:
            events, error = await outcome(runtime, use_reasoning=True)
            assert error is None
            done = events[-1]
            assert isinstance(done, Completed)
            assert await replayed(runtime, done.turn_id) == public(events)
            assert done.usage is not None
            texts[transport] = (done.text, done.finish_reason, done.usage.output_tokens, done.usage.estimated)
    assert texts["litellm"] == texts["native"]
    assert author_requests(simulator, wire)[-1].model == bare(AUTHOR[wire])


@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 500}, {"kind": "garbage"}, {"kind": "slow_headers"}], ids=lambda f: f["kind"]
)
async def test_an_embedding_model_that_fails_or_is_silent_costs_no_answer(
    simulator: ProviderSimulator, tmp_path: Path, fault: dict[str, object]
) -> None:
    settings = wired_settings(simulator, "openai", tmp_path / "data", embedding_model="openai/text-embedding-3-small")
    simulator.faults.add(Fault.model_validate({"times": None, "operation": "embed", **fault}))
    async with (
        asyncio.timeout(10),
        Runtime(settings, environ={}) as runtime,
        AdvisorAgent(runtime=runtime) as advisor,
    ):
        answers = await asyncio.gather(
            *(advisor.provide_guidance(asks(f"c-{number}"), use_reasoning=False) for number in range(8))
        )
    assert all(answers)
