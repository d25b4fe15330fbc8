"""Concurrent batches over HTTP: order, strategies, histories, tools, schemas, limits of time, bad input."""

from __future__ import annotations

import asyncio
import gc
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import BaseModel
from rich.console import Console

from guidance_agent.errors import (
    BatchFailedError,
    BatchRequestError,
    ModelError,
)
from guidance_agent.llm.concurrent import (
    BatchConfig,
    BatchErrorStrategy,
    BatchProgress,
    BatchRequest,
    batch_complete,
    batch_complete_simple,
    stream_batch,
)
from guidance_agent.llm.concurrent.progress import ProgressBar
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelCall, Usage
from guidance_agent.llm.model import get_model
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script

OPENAI = "openai/gpt-6-luna"


class Opinion(BaseModel):
    ok: bool


@pytest.fixture
def answers(simulator: ProviderSimulator) -> Callable[..., list[str]]:
    """Have the simulator answer `Question N?` with `Answer N`, the first the slowest; return the questions."""

    def make(number: int, *, slow: float = 3.0) -> list[str]:
        # The last question of a conversation is the one that is answered.
        for place in reversed(range(number)):
            script = Script(text=f"Answer {place}", first_ms=slow * (number - place), interval_ms=0)
            simulator.faults.add(Fault(kind="script", times=None, contains=f"Question {place}?", script=script))
        return [f"Question {place}?" for place in range(number)]

    return make


def broken(simulator: ProviderSimulator, contains: str, *, status: int = 500, times: int | None = None) -> None:
    simulator.faults.add(Fault(kind="status", status=status, contains=contains, times=times))


def strategy(name: str, **fields: Any) -> BatchConfig:
    return BatchConfig(error_strategy=BatchErrorStrategy(name), **fields)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for is the record of another's work
            await asyncio.sleep(0.005)


def texts_of(body: Any) -> list[tuple[str, str]]:
    """The messages that a provider received, as role and text, on whichever wire format."""
    found = []
    for message in body["messages"]:
        content = message["content"]
        text = content if isinstance(content, str) else "".join(block.get("text", "") for block in content or ())
        found.append((message["role"], text))
    return found


async def test_results_keep_the_order_of_the_requests_whichever_is_answered_first(
    gateway: ModelGateway, model: str, answers: Callable[..., list[str]], calls: list[ModelCall]
) -> None:
    response = await batch_complete(answers(12), model, gateway=gateway, config=BatchConfig(max_concurrent=12))
    assert [result.response for result in response.results] == [f"Answer {place}" for place in range(12)]
    assert [result.custom_id for result in response.results] == [str(place) for place in range(12)]
    assert (response.total, response.succeeded, response.failed, response.unfinished) == (12, 12, 0, 0)
    assert response.usage == sum((call.usage for call in calls if call.usage), Usage())
    assert response.cost == pytest.approx(sum(call.cost.usd for call in calls if call.cost))
    assert response.cost > 0
    result = response.results[0]
    assert result.elapsed is not None
    assert 0 < result.elapsed <= response.elapsed
    assert (result.outcome, result.finish_reason, result.route, result.simulated) == (
        "succeeded",
        "stop",
        "online",
        True,
    )


async def test_the_simple_form_has_one_answer_for_each_message(
    gateway: ModelGateway, model: str, answers: Callable[..., list[str]]
) -> None:
    assert await batch_complete_simple(answers(4), model, gateway=gateway) == [f"Answer {n}" for n in range(4)]


async def test_the_simple_form_raises_rather_than_being_shorter_and_keeps_what_is_done(
    gateway: ModelGateway, simulator: ProviderSimulator, answers: Callable[..., list[str]]
) -> None:
    broken(simulator, "Question 1?")
    with pytest.raises(BatchFailedError, match=r"1 of 4 messages.*message 1") as raised:
        await batch_complete_simple(answers(4), OPENAI, gateway=gateway)
    kept = raised.value.response.results
    assert [result.response for result in kept] == ["Answer 0", None, "Answer 2", "Answer 3"]
    with pytest.raises(BatchRequestError, match="cannot skip"):
        await batch_complete_simple(["a"], OPENAI, gateway=gateway, config=strategy("skip"))


async def test_failing_fast_raises_at_once_cancels_the_rest_and_keeps_what_is_done(
    gateway: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall]
) -> None:
    simulator.faults.add(Fault(kind="script", contains="first", script=Script(text="Done.")))
    broken(simulator, "second")
    simulator.faults.add(Fault(kind="stall", contains="slow", times=None))
    requests = ["first", "second", *["slow"] * 20]
    async with asyncio.timeout(5):
        with pytest.raises(BatchFailedError, match="'1' failed") as raised:
            await batch_complete(requests, OPENAI, gateway=gateway, config=strategy("fail_fast", max_concurrent=1))
    response = raised.value.response
    assert [result.response for result in response.results if result.success] == ["Done."]
    assert (response.total, response.succeeded, response.failed, response.unfinished) == (22, 1, 1, 20)
    assert isinstance(raised.value.__cause__, ModelError)
    assert len(calls) == 2


async def test_failing_fast_cancels_what_runs_beside_the_failure(
    gateway: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall]
) -> None:
    simulator.faults.add(Fault(kind="stall", times=None))
    async with asyncio.timeout(5):
        with pytest.raises(BatchFailedError):
            await batch_complete(
                ["slow", "slow", BatchRequest(user_message="bad", timeout=0.05), "slow"],
                OPENAI,
                gateway=gateway,
                config=strategy("fail_fast", max_concurrent=4),
            )
    assert [call.outcome for call in calls].count("cancelled") >= 3


async def test_going_on_has_a_result_for_every_request_and_no_failure_is_an_answer(
    gateway: ModelGateway, simulator: ProviderSimulator, answers: Callable[..., list[str]]
) -> None:
    broken(simulator, "Question 2?", status=400)
    broken(simulator, "Question 3?", status=529)
    response = await batch_complete(answers(5), OPENAI, gateway=gateway)
    assert [result.success for result in response.results] == [True, True, False, False, True]
    fatal, may_pass = response.results[2:4]
    assert (fatal.response, fatal.error_type, fatal.outcome) == (None, "RequestRejectedError", "errored_fatal")
    assert (may_pass.error_type, may_pass.outcome) == ("ProviderUnavailableError", "errored_retryable")
    assert fatal.error
    assert set(response.failures) == {"2", "3"}
    assert (response.succeeded, response.failed) == (3, 2)


async def test_skipping_leaves_failures_out_of_the_results_and_in_the_counts(
    gateway: ModelGateway, simulator: ProviderSimulator, answers: Callable[..., list[str]]
) -> None:
    broken(simulator, "Question 2?")
    response = await batch_complete(answers(5), OPENAI, gateway=gateway, config=strategy("skip"))
    assert [result.custom_id for result in response.results] == ["0", "1", "3", "4"]
    assert (response.total, response.succeeded, response.failed) == (5, 4, 1)
    assert list(response.failures) == ["2"]


async def test_each_request_may_say_everything_for_itself(
    gateway: ModelGateway, simulator: ProviderSimulator, model: str
) -> None:
    requests: list[Any] = [
        BatchRequest(user_message="One", custom_id="mine", metadata={"customer": "c-1"}, max_tokens=77),
        BatchRequest(user_message="Two", model="openai/gpt-6-sol", system_prompt="Be brief.", temperature=0.25),
        [{"role": "user", "content": "Three"}, {"role": "assistant", "content": "Yes?"}, Message("user", "Go on.")],
    ]
    response = await batch_complete(
        requests, model, "Be kind.", gateway=gateway, config=BatchConfig(max_concurrent=1, operation="completion")
    )
    assert [result.id for result in response.results] == ["mine", "1", "2"]
    assert response.results[0].metadata == {"customer": "c-1"}
    bodies = [record.body for record in simulator.requests]
    assert bodies[1]["model"] == "gpt-6-sol"
    assert bodies[0].get("max_tokens", bodies[0].get("max_completion_tokens")) == 77
    assert "Be kind." in json.dumps(bodies[0])
    assert "Be brief." in json.dumps(bodies[1])
    assert "Be kind." not in json.dumps(bodies[1])
    assert [text for role, text in texts_of(bodies[2]) if role != "system"] == ["Three", "Yes?", "Go on."]


async def test_a_sequence_gives_each_request_the_answers_before_it_and_leaves_failures_out(
    gateway: ModelGateway, simulator: ProviderSimulator, answers: Callable[..., list[str]]
) -> None:
    broken(simulator, '"Question 1?"', times=1)
    config = BatchConfig(history_mode="sequential", history=[{"role": "user", "content": "Hello."}])
    await batch_complete(answers(3), OPENAI, "Be kind.", gateway=gateway, config=config)
    last = texts_of(simulator.requests[-1].body)
    assert [text for _, text in last] == ["Be kind.", "Hello.", "Question 0?", "Answer 0", "Question 2?"]


async def test_a_shared_history_is_the_same_for_all_and_nothing_of_one_request_reaches_another(
    gateway: ModelGateway, simulator: ProviderSimulator, answers: Callable[..., list[str]]
) -> None:
    history = (Message("user", "I am 56."), Message("assistant", "Noted."))
    config = BatchConfig(history_mode="shared", history=history, max_concurrent=6)
    questions = answers(6)
    await batch_complete(questions, OPENAI, gateway=gateway, config=config)
    received = [[text for _, text in texts_of(record.body)] for record in simulator.requests]
    assert sorted(received) == [["I am 56.", "Noted.", question] for question in questions]


async def test_two_batches_at_once_on_one_gateway_do_not_meet(
    gateway: ModelGateway, simulator: ProviderSimulator, answers: Callable[..., list[str]]
) -> None:
    questions = answers(8)
    config = BatchConfig(history_mode="sequential")
    one, two = await asyncio.gather(
        batch_complete(questions[:4], OPENAI, gateway=gateway, config=config),
        batch_complete(questions[4:], OPENAI, gateway=gateway, config=config),
    )
    assert [each.response for each in (*one.results, *two.results)] == [f"Answer {n}" for n in range(8)]
    for record in simulator.requests:
        asked = {int(text.split()[1].strip("?")) // 4 for _, text in texts_of(record.body)}
        assert len(asked) == 1


async def test_a_request_that_takes_too_long_fails_alone(gateway: ModelGateway, simulator: ProviderSimulator) -> None:
    simulator.faults.add(Fault(kind="stall", contains="slow", times=None))
    requests: list[Any] = [BatchRequest(user_message="slow", timeout=0.05), "quick"]
    response = await batch_complete(requests, OPENAI, gateway=gateway, config=BatchConfig(timeout=30))
    late, quick = response.results
    assert (late.error_type, late.outcome) == ("ModelTimeoutError", "errored_retryable")
    assert quick.success


async def test_failures_that_may_pass_are_tried_again_and_others_are_not(
    gateway: ModelGateway, simulator: ProviderSimulator
) -> None:
    broken(simulator, "passes", status=529, times=2)
    broken(simulator, "never", status=400)
    config = BatchConfig(retry_failed=2, retry_wait=0.001)
    response = await batch_complete(["passes", "never"], OPENAI, gateway=gateway, config=config)
    passes, never = response.results
    assert (passes.success, passes.attempts, passes.retried) == (True, 3, True)
    assert (never.success, never.attempts, never.retried) == (False, 1, False)


async def test_an_empty_list_is_an_empty_response(gateway: ModelGateway, simulator: ProviderSimulator) -> None:
    response = await batch_complete([], OPENAI, gateway=gateway)
    assert (response.results, response.total, response.cost) == ((), 0, 0.0)
    assert await batch_complete_simple([], OPENAI, gateway=gateway) == []
    assert not simulator.requests


@pytest.mark.parametrize("one", ["hello", {"role": "user", "content": "x"}, BatchRequest(user_message="x"), None])
async def test_one_request_where_many_are_expected_is_refused_and_not_asked_letter_by_letter(
    gateway: ModelGateway, simulator: ProviderSimulator, one: Any
) -> None:
    model = get_model(OPENAI, gateway=gateway)
    for call in (lambda: model.batch(one), lambda: model.batch(one, schema=Opinion), lambda: model.batch_stream(one)):
        with pytest.raises(BatchRequestError, match="list of requests"):
            await call()
    assert not simulator.requests


@pytest.mark.parametrize("schema", [{"type": "objct"}, int, "text", {"$ref": "http://127.0.0.1:9/x.json"}])
async def test_a_schema_that_is_none_is_refused_before_anything_is_sent(
    gateway: ModelGateway, simulator: ProviderSimulator, schema: Any
) -> None:
    model = get_model(OPENAI, gateway=gateway)
    with pytest.raises(BatchRequestError, match="schema"):
        await model.complete("Is it?", output=schema)
    with pytest.raises(BatchRequestError, match="schema"):
        async with await model.stream_typed("Is it?", schema) as stream:
            async for _ in stream:
                pass
    [failed] = (await model.batch(["Is it?"], schema=schema)).results
    assert "schema" in str(failed.error)
    assert not simulator.requests


async def test_one_id_twice_is_refused_before_anything_is_sent(
    gateway: ModelGateway, simulator: ProviderSimulator
) -> None:
    requests = [BatchRequest(user_message="a", custom_id="x"), BatchRequest(user_message="b", custom_id="x")]
    with pytest.raises(BatchRequestError, match="'x'"):
        await batch_complete(requests, OPENAI, gateway=gateway)
    assert not simulator.requests
    streamed = [result async for result in stream_batch(requests, OPENAI, gateway=gateway)]
    assert sorted(result.success for result in streamed) == [False, True]


@pytest.mark.parametrize(
    "invalid", [BatchRequest(), BatchRequest(messages=[{"role": "bishop", "content": "a"}]), 7, {"role": "user"}]
)
async def test_one_invalid_request_among_many_fails_alone(gateway: ModelGateway, invalid: Any) -> None:
    requests: list[Any] = [*["What is drawdown?"] * 10, invalid, *["What is drawdown?"] * 10]
    response = await batch_complete(requests, OPENAI, gateway=gateway, config=BatchConfig(max_concurrent=20))
    assert (response.succeeded, response.failed) == (20, 1)
    assert response.results[10].error_type == "BatchRequestError"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_concurrent": 0}, "max_concurrent"),
        ({"max_concurrent": 2.5}, "max_concurrent"),
        ({"error_strategy": "fail_fast"}, "error_strategy.*FAIL_FAST"),
        ({"history_mode": "sequence"}, "history_mode.*'sequential'"),
        ({"retry_failed": -1}, "retry_failed"),
        ({"history": [Message("user", "a")]}, "independent"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(BatchRequestError, match=named):
        BatchConfig(**fields)


async def test_a_model_that_cannot_be_called_is_a_failed_result_with_the_reason(gateway: ModelGateway) -> None:
    response = await batch_complete(["a", "b"], "nobody/knows", gateway=gateway)
    assert {result.error_type for result in response.results} == {"UnknownModelError"}
    assert (await batch_complete(["a"], gateway=gateway)).results[0].error_type == "BatchRequestError"


async def test_a_stream_gives_results_as_they_finish_or_in_order(
    gateway: ModelGateway, answers: Callable[..., list[str]]
) -> None:
    questions = answers(4, slow=40)
    config = BatchConfig(max_concurrent=4)
    finished = [each.response async for each in stream_batch(questions, OPENAI, gateway=gateway, config=config)]
    assert finished == [f"Answer {n}" for n in (3, 2, 1, 0)]
    ordered = stream_batch(questions, OPENAI, gateway=gateway, config=config, order="input")
    assert [each.response async for each in ordered] == [f"Answer {n}" for n in range(4)]
    assert (ordered.progress.total, ordered.progress.done) == (4, 4)


async def test_a_stream_reads_its_requests_only_as_they_are_needed(
    gateway: ModelGateway, simulator: ProviderSimulator
) -> None:
    read = 0

    async def requests() -> AsyncIterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"What is drawdown {read}?"

    taken = 0
    async with stream_batch(requests(), OPENAI, gateway=gateway, config=BatchConfig(max_concurrent=2)) as results:
        async for result in results:
            assert result.success
            taken += 1
            if taken == 10:
                break
    assert read <= 10 + 2 * 4
    assert results.progress.total is None


async def test_a_stream_that_fails_fast_keeps_what_was_not_read_yet(
    gateway: ModelGateway, simulator: ProviderSimulator, answers: Callable[..., list[str]]
) -> None:
    questions = answers(3, slow=0)
    simulator.faults.add(Fault(kind="stall", contains="bad", times=None))
    config = strategy("fail_fast", max_concurrent=4, timeout=0.15)
    stream = stream_batch(["bad", *questions], OPENAI, gateway=gateway, config=config, order="input")
    with pytest.raises(BatchFailedError) as raised:
        async for _ in stream:
            pass
    kept = raised.value.response.results
    assert [result.response for result in kept if result.success] == ["Answer 0", "Answer 1", "Answer 2"]


async def test_a_stream_that_skips_failures_still_counts_them(
    gateway: ModelGateway, simulator: ProviderSimulator, answers: Callable[..., list[str]]
) -> None:
    broken(simulator, "Question 1?")
    stream = stream_batch(answers(3), OPENAI, gateway=gateway, config=strategy("skip"), order="input")
    assert [result.custom_id async for result in stream] == ["0", "2"]
    assert (stream.progress.succeeded, stream.progress.failed) == (2, 1)


@pytest.mark.parametrize("leaves", ["break", "cancel", "drop"])
async def test_leaving_a_stream_cancels_what_runs(
    leaves: str, gateway: ModelGateway, simulator: ProviderSimulator, calls: list[ModelCall]
) -> None:
    simulator.faults.add(Fault(kind="stall", contains="slow", times=None))
    requests = ["quick", *["slow"] * 5]
    config = BatchConfig(max_concurrent=6)

    async def read(stop: bool) -> None:
        async with stream_batch(requests, OPENAI, gateway=gateway, config=config) as stream:
            async for _ in stream:
                if stop:
                    break

    if leaves == "break":
        await read(True)
    elif leaves == "cancel":
        task = asyncio.create_task(read(False))
        await until(lambda: len(calls) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        stream = stream_batch(requests, OPENAI, gateway=gateway, config=config)
        assert (await anext(stream)).success
        del stream
        gc.collect()
        await until(lambda: len(calls) == 6)
    assert [call.outcome for call in calls] == ["completed", *["cancelled"] * 5]


async def test_progress_is_told_after_each_result_and_what_the_callback_raises_ends_the_batch(
    gateway: ModelGateway, simulator: ProviderSimulator, answers: Callable[..., list[str]]
) -> None:
    broken(simulator, "Question 1?")
    seen: list[BatchProgress] = []
    await batch_complete(answers(4), OPENAI, gateway=gateway, config=BatchConfig(on_progress=seen.append))
    assert [progress.done for progress in seen] == [1, 2, 3, 4]
    assert {progress.total for progress in seen} == {4}
    assert (seen[-1].succeeded, seen[-1].failed) == (3, 1)
    assert seen[-1].cost > 0

    def stop(progress: BatchProgress) -> None:
        raise KeyError(progress.done)

    with pytest.raises(KeyError):
        await batch_complete(answers(4), OPENAI, gateway=gateway, config=BatchConfig(on_progress=stop))


def test_the_bar_draws_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for is_terminal in (True, False):
        written = io.StringIO()
        bar = ProgressBar(Console(file=written, force_terminal=is_terminal, width=100))
        bar.update(BatchProgress(total=8, succeeded=2, failed=1, cost=0.5))
        bar.update(BatchProgress(total=8, succeeded=7, failed=1, cost=0.75))
        bar.stop()
        assert ("8/8" in written.getvalue()) is is_terminal
        assert ("1 failed, $0.7500" in written.getvalue()) is is_terminal


async def test_a_batch_may_show_a_bar(gateway: ModelGateway, capsys: pytest.CaptureFixture[str]) -> None:
    config = BatchConfig(show_progress=True)
    assert (await batch_complete(["a", "b"], OPENAI, gateway=gateway, config=config)).succeeded == 2
    assert capsys.readouterr().out == ""
