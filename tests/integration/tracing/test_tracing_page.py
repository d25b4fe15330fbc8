"""`specs/tracing.md` lists every span, attribute and event that there is, and none that there is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from guidance_agent import CustomerProfile, Runtime, Settings, TextDelta
from guidance_agent.advisor.importance import MemoryRater
from guidance_agent.compliance.gate import SentenceGate
from guidance_agent.compliance.gatekeeper import Gatekeeper
from guidance_agent.core.background import BackgroundJob, BackgroundWorker
from guidance_agent.core.batch_processing import BatchOptions, BatchProcessor, BatchRequest
from guidance_agent.core.clock import SystemClock
from guidance_agent.errors import ModelError
from guidance_agent.llm.concurrent import BatchConfig, batch_complete
from guidance_agent.llm.messages import Message, ModelRequest, ToolSpec
from guidance_agent.provider_simulator import Fault, ProviderSimulator, Script
from guidance_agent.settings import CalculationSettings
from guidance_agent.tracing import NEW_TRACE, SpanContext
from guidance_agent.tracing.preparing import FinishedSpan
from guidance_agent.tracing.setup import resource_of
from tests.integration.advisor.scripted_judge import ScriptedJudge, judging, verdict_on
from tests.integration.compliance.judging import answer, entry, passing
from tests.integration.tracing.conftest import WITHIN, OpenTraced, Traced
from tests.unit.compliance.word_rules import WordRules

PAGE = Path(__file__).parents[3] / "specs" / "tracing.md"
OF_A_JUDGE = "judged_reply-"
MODEL = "anthropic/claude-haiku-5-5"


@pytest.fixture(autouse=True)
def rules_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def gate(self: Gatekeeper, day: date, *, question: str, asks: bool) -> SentenceGate:
        settings = self._settings
        return SentenceGate(WordRules(), self.policy, asks=asks, undecided=settings.undecided, before=question)

    monkeypatch.setattr(Gatekeeper, "gate", gate)


def section(title: str) -> str:
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def told(text: str) -> list[list[str]]:
    """Return the rows of all tables in a text, each as its cells."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    assert rows
    return rows


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def generic(name: str) -> str:
    name = re.sub(r"\.\d+(?=\.|$)", ".N", name)
    return re.sub(r"^guidance\.cache\.part\..*", "guidance.cache.part.PART", name)


def carried(spans: Mapping[str, list[FinishedSpan]]) -> set[str]:
    return {generic(key) for named in spans.values() for span in named for key in span.attributes}


async def whole(traced: Traced, customer: CustomerProfile, **options: Any) -> None:
    with contextlib.suppress(ModelError):
        async for _ in traced.advisor.provide_guidance_stream(customer, **options):
            pass


class NeverSays:
    """A judge of sentences that is asked, and does not answer."""

    def __init__(self, asked: asyncio.Event) -> None:
        self._asked = asked

    async def ask(self, sentence: str, **_: Any) -> None:
        self._asked.set()
        await asyncio.Event().wait()


async def answers(traced: Traced, janet: CustomerProfile) -> None:
    """Turns with everything that a gate can do, notes, a retry, and the memory of an earlier turn."""
    await traced.runtime.gateway.embed("openai/text-embedding-3-small", ["Can I retire?"])
    traced.simulator.faults.add(Fault(kind="status", status=500, path="embeddings", times=None))
    traced.simulator.faults.add(Fault(kind="status", status=529, model="sonnet"))
    traced.author("Some draw an income. Steer it out now. An annuity pays an income for life.")
    await whole(traced, janet)
    traced.author("Some draw an income. Hurry now. Others keep it.")
    asking = {"presenting_question": "Should I transfer my final salary pension? Somebody rang me about it."}
    await whole(traced, janet.model_copy(update=asking), use_reasoning=False)
    for opinion, sentence in (('{"verdict": "permitted"}', "Maybe move it."), ("no verdict", "Maybe sell it.")):
        traced.simulator.faults.add(Fault(kind="script", model="haiku", script=Script(text=opinion)))
        traced.author(f"First. {sentence} Second. Third.")
        await whole(traced, janet, use_reasoning=False)
    asked = asyncio.Event()
    usual, traced.runtime.sentence_judge = traced.runtime.sentence_judge, NeverSays(asked)  # type: ignore[assignment]
    traced.author("First. Perhaps move it. Second.")
    async with traced.advisor.consult(janet, use_reasoning=False) as turn:
        async for event in turn:
            if type(event) is TextDelta:
                break
        await asyncio.wait_for(asked.wait(), WITHIN)
    traced.runtime.sentence_judge = usual
    traced.author_fails(kind="truncate", after_chunks=4)
    await whole(traced, janet, use_reasoning=False)


async def sums(traced: Traced, janet: CustomerProfile) -> None:
    """A turn with a sum that was worked out before it."""
    usual = traced.runtime.settings
    counting = usual.model_copy(update={"calculations": CalculationSettings(enabled=True)})
    traced.runtime.settings = counting
    script = Script(tool="tax_free_part", arguments={"pot": "40000"})
    traced.simulator.faults.add(Fault(kind="script", model="haiku", script=script))
    traced.author("Some draw an income.")
    question = {"presenting_question": "How much of 40,000 pounds is tax-free?"}
    await whole(traced, janet.model_copy(update=question), use_reasoning=False)
    traced.runtime.settings = usual


async def calls(traced: Traced) -> None:
    """Calls of a program's own."""
    gateway, faults = traced.runtime.gateway, traced.simulator.faults
    tool = ToolSpec("figures", "Looks up figures.", {"type": "object", "properties": {"year": {"type": "integer"}}})
    asking = (Message("system", "You explain.", part="conduct"), Message("user", "What is drawdown?"))
    faults.add(Fault(kind="script", script=Script(text="One moment.", tool="figures", arguments={"year": 2026})))
    await gateway.complete(ModelRequest(model=MODEL, messages=asking, tools=(tool,)))
    faults.add(Fault(kind="script", script=Script(text="It leaves the pot invested.", reasoning="She is vulnerable.")))
    request = ModelRequest(
        model=MODEL, messages=(*asking, *[Message("assistant", "So."), Message("user", "And?")] * 40)
    )
    async for _ in gateway.stream(request):
        pass
    # The first call is refused, and the third queues meanwhile.
    faults.add(Fault(kind="status", status=429, retry_after=0.3, model="haiku"))
    config = BatchConfig(max_concurrent=2)
    assert (await batch_complete(["One?", "Two?", "Three?"], MODEL, config=config, gateway=gateway)).succeeded == 3
    traced.tracing.span("batch item", "LLM", parent=NEW_TRACE, link=SpanContext(1, 2)).end(outcome="completed")


async def judgements(traced: Traced, janet: CustomerProfile) -> None:
    def judge_says(text: str) -> None:
        traced.simulator.faults.add(Fault(kind="script", contains=OF_A_JUDGE, script=Script(text=text)))

    async with judging(traced.runtime, ScriptedJudge(lambda text: verdict_on(text, ("scam", 0, 4)))) as dispatcher:
        await dispatcher.drain()
    traced.author("An annuity pays an income for life, and so on.")
    traced.author("An annuity pays an income for life.")
    judge_says(json.dumps(answer(entry("scam", status="fail", severity="low", explanation="Nothing is said."))))
    judge_says(passing())
    await traced.advisor.provide_guidance(janet, use_reasoning=False)
    await whole(traced, janet, use_reasoning=False)
    judge_says("no verdict")
    async with judging(traced.runtime, traced.runtime.validator) as dispatcher:
        await dispatcher.drain()


async def jobs(traced: Traced) -> None:
    rater = MemoryRater(traced.runtime.memory, traced.runtime.gateway, traced.runtime.reasoning_model)
    work = [BackgroundJob(name="importance", interval=60, run=rater.run, at_start=True)]
    async with BackgroundWorker(work, traced.tracing):
        await traced.spans_with("job.importance")


async def batches(traced: Traced) -> None:
    """A job that is refused, lost and found, one that is cancelled before it leaves, and one that ends online."""
    faults = traced.simulator.faults
    faults.clear()
    ids = {"turn_id": "turn_1", "consultation_id": "consultation_1", "customer_id": "customer_1"}
    asked = [BatchRequest(user_message="Sum it up.", max_tokens=20, metadata=ids)]
    options = BatchOptions(grace=0.0, retry_after=0.01, poll=0.02)
    runtime = traced.runtime
    async with BatchProcessor(runtime.database, runtime.gateway, options=options, tracing=traced.tracing) as processor:
        faults.add(
            Fault(kind="status", status=429, operation="batches.create"),
            Fault(kind="answer_lost", operation="batches.create"),
        )
        handle = await processor.submit(asked, model=MODEL)
        await processor.wait(handle.job_key, timeout=WITHIN)
        faults.add(Fault(kind="status", status=400, operation="batches.create"))
        handle = await processor.submit(asked, model=MODEL)
        await processor.cancel(handle.job_key)
        past = SystemClock().now()
        handle = await processor.submit(asked, model=MODEL, deadline=past, online_after_deadline=True)
        await processor.wait(handle.job_key, timeout=WITHIN)


async def kept_answers(traced: Traced, data_dir: Path) -> None:
    settings = Settings.load(
        data_dir=data_dir, simulator="instant", background=False, response_cache={"enabled": True}, gate={"mode": "off"}
    )
    async with Runtime(settings, environ={}, tracing=traced.tracing) as runtime:
        for _ in range(2):
            await runtime.gateway.complete(ModelRequest(model=runtime.model, messages=(Message("user", "And tax?"),)))


@pytest.fixture
async def spans(
    open_traced: OpenTraced, simulator: ProviderSimulator, janet: CustomerProfile, tmp_path: Path
) -> dict[str, list[FinishedSpan]]:
    """The spans of a run in which everything happens."""
    both = {
        "anthropic": {"base_url": simulator.base_url, "api_key": "test-key-of-the-simulator"},
        "openai": {"base_url": f"{simulator.base_url}/v1", "api_key": "test-key-of-the-simulator"},
    }
    settings: dict[str, Any] = {
        "providers": both,
        "embedding_model": "openai/text-embedding-3-small",
        "gate": {"ask": True, "closing": True, "deadline": 5, "actions": {"pressure": "stop"}},
        "retry": {"max_attempts": 2, "backoff_factor": 0.001},
    }
    async with open_traced(**settings) as traced:
        await answers(traced, janet)
        await sums(traced, janet)
        await calls(traced)
        await judgements(traced, janet)
        await jobs(traced)
        await batches(traced)
        await kept_answers(traced, tmp_path / "kept")
        return await traced.spans()


@pytest.mark.timeout(180)
async def test_the_page_tells_every_span_attribute_and_event(spans: dict[str, list[FinishedSpan]]) -> None:
    page_spans = {names_in(cells[0])[0]: cells[1] for cells in told(section("Spans"))}
    own = {"batch", "completion", "batch item"}
    assert spans.keys() - own == page_spans.keys()
    for name, named in spans.items():
        if name not in own:
            assert {span.attributes["openinference.span.kind"] for span in named} == {page_spans[name]}

    attributes, _, resource = section("Attributes").partition("### The resource")
    page_attributes = {names_in(cells[0])[0] for cells in told(attributes)}
    assert carried(spans) == page_attributes
    made = resource_of(Settings.load(), {}, version="1")
    assert made.keys() == {names_in(cells[0])[0] for cells in told(resource)}

    page_events = {names_in(cells[0])[0]: set(names_in(cells[2])) for cells in told(section("Events"))}
    events: dict[str, set[str]] = {}
    for named in spans.values():
        for event in (event for span in named for event in span.events):
            events.setdefault(event.name, set()).update(event.attributes)
    assert events == page_events

    outcomes = {span.attributes["guidance.outcome"] for span in spans["turn"]}
    assert outcomes == {"completed", "closed_early", "truncated"}
