"""Every call of a model goes through a cache plan: each place that makes one is listed here with a run that proves it.

A new place fails the walk until it is listed, and its run fails until what the provider receives carries the plan's
breakpoints and keys, or the plan says of every part why there is none.
"""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from guidance_agent import AdvisorAgent, CustomerProfile, Runtime
from guidance_agent.advisor.importance import rate_importance
from guidance_agent.cli.checks.services import check_online
from guidance_agent.core.batch_processing import BatchProcessor
from guidance_agent.learning.check_set import CheckCase, ModelCheckSet
from guidance_agent.learning.failures import Failure
from guidance_agent.learning.reflection import (
    judge_rule_value,
    refine_principle,
    reflect_on_failure,
    validate_principle,
)
from guidance_agent.llm.batch_request import BatchRequest
from guidance_agent.llm.concurrent import batch_complete
from guidance_agent.llm.gateway import ModelGateway
from guidance_agent.llm.messages import Message, ModelRequest
from guidance_agent.llm.model import get_model
from guidance_agent.llm.tool_loop import complete_with_tools, stream_with_tools
from guidance_agent.llm.transports.base import PreparedCall
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from tests.integration.advisor.wiring import wired_settings
from tests.integration.llm.cache_marks import SentMarks, blocks_of, marks_of

SOURCE = Path(__file__).parents[3] / "src" / "guidance_agent"
ASKING = frozenset({"stream", "complete", "prepare"})

# The door itself: what these call is a transport, and only they may.
THE_DOOR = frozenset({"llm/gateway.py ModelGateway.complete.once complete"})

# Methods of these names that ask no model.
OTHER_WORK = frozenset(
    {"advisor/gated_answer.py GatedAnswer.__aenter__ prepare", "tracing/export.py ExportThread._fill prepare"}
)

# Batches reach providers by transports of their own; their tests hold that the bodies are those of the gateway.
BATCHES = ("core/batch_processing.py", "core/batches/")

# What speaks to Phoenix or to a collector of traces, and to no model.
OTHER_SERVERS = frozenset(
    {"core/annotation_delivery.py", "core/phoenix_rest.py", "phoenix/launch.py", "tracing/otlp.py"}
)

HTTP_CLIENTS = frozenset({"aiohttp", "anthropic", "http.client", "httpx", "litellm", "openai", "requests", "urllib3"})


class Run(NamedTuple):
    """A runtime whose models are all the simulator's, and an advisor in it."""

    runtime: Runtime
    advisor: AdvisorAgent
    simulator: ProviderSimulator


async def _two_turns(run: Run) -> None:
    customer = CustomerProfile(customer_id="janet", first_name="Janet", age=56, presenting_question="What is drawdown?")
    answer = await run.advisor.provide_guidance(customer)
    history = [
        {"role": "customer", "content": "What is drawdown?"},
        {"role": "advisor", "content": answer},
        {"role": "customer", "content": "Is it taxed?"},
    ]
    async for _ in run.advisor.provide_guidance_stream(customer, history):
        pass


async def _a_sum(run: Run) -> None:
    question = "How much of £40,000 is tax-free?"
    customer = CustomerProfile(customer_id="janet", first_name="Janet", age=56, presenting_question=question)
    async for _ in run.advisor.provide_guidance_stream(customer, use_reasoning=False):
        pass


async def _a_refinement(run: Run) -> None:
    customer = CustomerProfile(customer_id="janet", first_name="Janet", age=56, presenting_question="What is drawdown?")
    run.simulator.faults.add(Fault(kind="script", contains="judged_reply", script=Script(text="No verdict.")))
    assert await run.advisor.provide_guidance(customer)


async def _a_rating(run: Run) -> None:
    assert (
        1 <= await rate_importance(run.runtime.gateway, run.runtime.reasoning_model, "She has a guaranteed rate.") <= 10
    )


async def _a_verdict(run: Run) -> None:
    reply = (
        "You can take a quarter of your pot tax-free or leave it invested. MoneyHelper is free. What matters to you?"
    )
    verdict = await run.runtime.validator.validate(reply, question="Can I take it?")
    assert verdict.unreadable is None


async def _a_sentence(run: Run) -> None:
    assert run.runtime.sentence_judge is not None
    opinion = await run.runtime.sentence_judge.ask("Both have a cost.", context="", check="advice_boundary")
    assert opinion == "permitted"


async def _four_steps(run: Run) -> None:
    failure = Failure(
        turn_id="t", consultation_id="c", verdict_id=None, source="verdict", question="Shall I?", text="Go ahead."
    )
    gateway, model = run.runtime.gateway, run.runtime.validator.model
    reflection = (await reflect_on_failure(gateway, model, failure)).value
    validation = (await validate_principle(gateway, model, failure, reflection)).value
    refinement = (await refine_principle(gateway, model, failure, reflection, validation)).value
    await judge_rule_value(gateway, model, failure, refinement, reflection, validation, rules=[])


async def _a_check_set(run: Run) -> None:
    runtime = run.runtime
    case = CheckCase(name="definition", question="What does crystallised mean?")
    questions = ModelCheckSet(runtime.gateway, runtime.model, runtime.knowledge, runtime.clock, cases=[case])
    assert (await questions.run(runtime.rules)).failed == ()


async def _a_late_batch(run: Run) -> None:
    processor = BatchProcessor(run.runtime.database, run.runtime.gateway)
    request = BatchRequest(user_message="What is drawdown?", system_prompt="Explain pensions plainly. " * 600)
    now = run.runtime.clock.now()
    handle = await processor.submit([request], model=run.runtime.model, deadline=now, online_after_deadline=True)
    assert (await processor.wait(handle.job_key, timeout=20)).outcomes == {"succeeded": 1}


def _a_tool(year: str) -> str:
    return year


async def _with_tools(run: Run) -> None:
    system = Message("system", "Explain pensions plainly. " * 600, part="conduct")
    request = ModelRequest(model=run.runtime.model, messages=(system, Message("user", "What is drawdown?")))
    assert (await complete_with_tools(run.runtime.gateway, request, [_a_tool])).completion.text
    async for _ in stream_with_tools(run.runtime.gateway, request, [_a_tool]):
        pass


async def _a_concurrent_batch(run: Run) -> None:
    system = "Explain pensions plainly. " * 600
    response = await batch_complete(["What is drawdown?"], run.runtime.model, system, gateway=run.runtime.gateway)
    assert response.succeeded == 1


async def _a_model_by_name(run: Run) -> None:
    model = get_model(run.runtime.model, gateway=run.runtime.gateway)
    system = "Explain pensions plainly. " * 600
    assert (await model.complete("What is drawdown?", system_prompt=system)).text
    assert [text async for text in model.stream("What is drawdown?", system_prompt=system)]
    async with await model.stream_typed("Is it taxed?", {"type": "object"}, system_prompt=system) as stream:
        async for _ in stream:
            pass


async def _the_doctor(run: Run) -> None:
    check = await check_online(run.runtime.settings)
    assert check.status == "ok"


class Proof(NamedTuple):
    """A run that comes by a place, the operation that is asked for there, and whether its prompt is long enough."""

    run: Callable[[Run], Awaitable[None]]
    operation: str
    cached: bool


PROOFS: Mapping[str, Proof] = {
    "advisor/turn_run.py TurnRun._reason stream": Proof(_two_turns, "reasoning", cached=True),
    "advisor/turn_run.py TurnRun._answer stream": Proof(_two_turns, "guidance", cached=True),
    "advisor/calculations.py CalculationStep.run complete": Proof(_a_sum, "calculation", cached=True),
    "advisor/refined_run.py RefinedRun._candidate stream": Proof(_a_refinement, "refinement", cached=True),
    "advisor/importance.py rate_importance complete": Proof(_a_rating, "importance", cached=False),
    "llm/tool_loop.py complete_with_tools complete": Proof(_with_tools, "completion", cached=True),
    "llm/tool_loop.py stream_with_tools stream": Proof(_with_tools, "completion", cached=True),
    "llm/concurrent/item.py ItemRunner._answer complete": Proof(_a_concurrent_batch, "batch", cached=True),
    "llm/concurrent/item.py ItemRunner._answer.ask complete": Proof(_a_concurrent_batch, "batch", cached=True),
    "llm/model.py Model.complete complete": Proof(_a_model_by_name, "completion", cached=True),
    "llm/model.py Model.complete.ask complete": Proof(_a_model_by_name, "completion", cached=True),
    "llm/model.py Model.complete_sync complete": Proof(_a_model_by_name, "completion", cached=True),
    "llm/model.py Model.stream_sync stream": Proof(_a_model_by_name, "completion", cached=True),
    "llm/model_answer.py NotedCalls.complete complete": Proof(_a_concurrent_batch, "batch", cached=True),
    "llm/structured_stream.py TypedStream._run stream": Proof(_a_model_by_name, "completion", cached=True),
    "llm/text_stream.py TextStream._run stream": Proof(_a_model_by_name, "completion", cached=True),
    "llm/structured.py complete complete": Proof(_a_verdict, "judge", cached=True),
    "compliance/validator.py GuidanceValidator.validate complete": Proof(_a_verdict, "judge", cached=True),
    "compliance/sentence_judge.py SentenceJudge.ask complete": Proof(_a_sentence, "gate", cached=True),
    "learning/reflection.py ReflectionStep.ask complete": Proof(_four_steps, "reflection", cached=True),
    "learning/check_set.py ModelCheckSet._checked complete": Proof(_a_check_set, "check_set", cached=True),
    "core/batches/online.py _asked complete": Proof(_a_late_batch, "batch", cached=True),
    "cli/checks/services.py check_online complete": Proof(_the_doctor, "doctor", cached=False),
}


def call_sites() -> Iterator[str]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(("provider_simulator/", "llm/transports/")):
            yield from (f"{name} {place}" for place in _asking(ast.parse(path.read_text(encoding="utf-8")), ()))


def _asking(node: ast.AST, inside: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        inside = (*inside, node.name)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ASKING:
        yield f"{'.'.join(inside)} {node.func.attr}"
    for child in ast.iter_child_nodes(node):
        yield from _asking(child, inside)


def test_every_place_that_asks_a_model_is_listed_with_its_proof() -> None:
    assert set(call_sites()) - THE_DOOR - OTHER_WORK == set(PROOFS)


def test_nothing_reaches_a_model_around_the_gateway() -> None:
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).as_posix()
        if name.startswith(("provider_simulator/", "llm/transports/")):
            continue
        imported = set(_imported(path))
        if name in OTHER_SERVERS:
            continue
        assert not imported & HTTP_CLIENTS, f"{name} imports {imported & HTTP_CLIENTS}"
        if not name.startswith(("llm/", *BATCHES)):
            around = {each for each in imported if each.startswith("guidance_agent.llm.transports")}
            assert not around, f"{name} imports {around}"


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        match node:
            case ast.Import(names=found):
                names = [each.name for each in found]
            case ast.ImportFrom(module=str(module), names=found):
                names = [module, *(f"{module}.{each.name}" for each in found)]
            case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"), args=[first, *_]):
                names = [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
        for each in names:
            yield from (each, each.partition(".")[0])


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[PreparedCall]:
    """Every call that a gateway prepares, with its plan."""
    seen: list[PreparedCall] = []
    original = ModelGateway._prepared

    def noting(self: ModelGateway, *arguments: Any) -> PreparedCall:
        seen.append(original(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(ModelGateway, "_prepared", noting)
    return seen


@pytest.fixture(params=["anthropic", "openai"])
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def run(
    simulator: ProviderSimulator, wire: str, tmp_path: Path, prepared: list[PreparedCall]
) -> AsyncIterator[Run]:
    settings = wired_settings(simulator, wire, tmp_path / "data", calculations={"enabled": True})
    async with Runtime(settings, environ={}) as runtime, AdvisorAgent(runtime=runtime) as advisor:
        yield Run(runtime, advisor, simulator)


@pytest.mark.parametrize("place", sorted(PROOFS))
async def test_what_the_provider_receives_is_what_was_planned(
    place: str, run: Run, simulator: ProviderSimulator, prepared: list[PreparedCall]
) -> None:
    proof = PROOFS[place]
    await proof.run(run)
    calls = {tuple(message.content for message in call.request.messages): call for call in prepared}
    bodies = [record.body for record in simulator.requests]
    pairs = [(body, calls[tuple(block.text for block in blocks_of(body))]) for body in bodies]
    assert proof.operation in {call.request.operation for _, call in pairs}
    for body, call in pairs:
        plan = call.plan
        assert marks_of(body) == SentMarks(tuple((p.index, p.ttl) for p in plan.breakpoints), plan.cache_key)
        if call.request.operation == proof.operation:
            assert bool(plan.breakpoints) is proof.cached
        marked = {point.index for point in plan.breakpoints}
        assert plan.parts or not plan.enabled, f"{call.request.operation} names no part of its prompt"
        assert all(part.index in marked or part.note for part in plan.parts)
