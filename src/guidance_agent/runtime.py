"""The composition root: builds the parts from settings, opens them in order and closes them in the other.

Without a key or an address of any provider the provider simulator is started in this process, on a loopback port, and
its answers are marked as simulated everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

from guidance_agent.advisor.events import Failed, event_to_json
from guidance_agent.advisor.prompts import ReleasedRules
from guidance_agent.core.clock import Clock, SystemClock
from guidance_agent.errors import ConfigurationError
from guidance_agent.runtime_work import WorkOfRecords
from guidance_agent.settings import ProviderSettings, Settings

if TYPE_CHECKING:
    from guidance_agent.compliance.gatekeeper import Gatekeeper
    from guidance_agent.compliance.judging import BackgroundJudging
    from guidance_agent.compliance.sentence_judge import SentenceJudge
    from guidance_agent.core.annotation_delivery import AnnotationDelivery, Redact
    from guidance_agent.core.background import BackgroundJob, BackgroundWorker
    from guidance_agent.core.journal import Journal
    from guidance_agent.core.limit_store import LimitTable
    from guidance_agent.core.memory import MemoryStream
    from guidance_agent.core.records import Records
    from guidance_agent.core.response_cache import ResponseCacheTable
    from guidance_agent.core.types import JsonObject
    from guidance_agent.core.verdicts import VerdictRecords
    from guidance_agent.llm.response_cache import ResponseCache
    from guidance_agent.provider_simulator import ProviderSimulator
    from guidance_agent.retrieval.embeddings import Embedder
    from guidance_agent.retrieval.retriever import Retriever
    from guidance_agent.tracing.tracer import Tracing

__all__ = ["Runtime", "RuntimeRole"]

RuntimeRole = Literal["app", "worker"]
"""What a process is for: it has turns, or works in the background alone."""

SWEEP_SECONDS = 30.0
RATING_SECONDS = 30.0
RELEASE_SECONDS = 30.0
"""How old the released rules of a running process may be."""
LAST_FLUSH_SECONDS = 1.0
"""How long the spans of a process that ends may take to be delivered for its verdicts to be sent at once."""

_LEAST_CLOSE_SECONDS = 0.1


class Runtime(WorkOfRecords):
    """The services of one process, to be shared by its advisors; an async context manager.

    Args:
        settings: None loads them from file and environment.
        clock: Wall clock, monotonic clock and ids; None is the real one.
        environ: Where provider keys and the variables of tracing are read; None is the process environment.
        role: What the process is for.
        schedules: Whether it runs the jobs of batches at their times, where the settings want that.
        tracing: Makes the spans, and stays open; None is what the settings say.

    Raises, on entering:
        ConfigurationError: when models, keys, knowledge or files cannot work.
        StorageError: when the database cannot be used.
    """

    journal: Journal
    records: Records
    verdicts: VerdictRecords
    retriever: Retriever
    memory: MemoryStream
    rules: ReleasedRules
    gates: Gatekeeper
    model: str
    reasoning_model: str
    sentence_judge: SentenceJudge | None
    tracing: Tracing

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        clock: Clock | None = None,
        environ: Mapping[str, str] | None = None,
        role: RuntimeRole = "app",
        schedules: bool = False,
        tracing: Tracing | None = None,
    ) -> None:
        self._given_tracing = tracing
        self._given_settings = settings or Settings.load()
        self.settings = self._given_settings
        self.clock = clock or SystemClock()
        self.rules = ReleasedRules()
        self._environ = os.environ if environ is None else environ
        self.simulator: ProviderSimulator | None = None
        self.judging: BackgroundJudging | None = None
        self.annotations: AnnotationDelivery | None = None
        self._role = role
        self._runs_schedules = schedules
        self._background: BackgroundWorker | None = None
        self._retrieved: set[str] = set()
        self._stack: contextlib.AsyncExitStack | None = None

    @property
    def is_open(self) -> bool:
        return self._stack is not None

    async def __aenter__(self) -> Runtime:
        if self._stack is not None:
            raise ConfigurationError("This runtime is already open. Share it, or make another.")
        self.settings = self._given_settings
        self._flushed_for = 0.0
        async with contextlib.AsyncExitStack() as stack:
            await self._open_tracing(stack)
            await self._open_records(stack)
            await self._open_models(stack)
            await self.reload_rules()
            await self._open_knowledge(stack)
            await self._open_judges()
            await self._open_background(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    @property
    def response_store(self) -> ResponseCacheTable:
        """The answers that the response cache keeps, to count or clear them, also where the cache is off."""
        from guidance_agent.core.response_cache import ResponseCacheTable

        wanted = self.settings.response_cache
        return ResponseCacheTable(self.database, self.clock, ttl=wanted.ttl, max_entries=wanted.max_entries)

    async def reload_rules(self) -> None:
        """Take up the rules of the latest release; whatever else happens to rules leaves the prompts as they are."""
        from guidance_agent.learning.released import released_rules

        self.rules = await released_rules(self.database, include_simulated=self.simulated)

    def turn_ended(self, retrieved_memories: Sequence[str]) -> None:
        if self._background is not None:
            self._retrieved.update(retrieved_memories)
            if self.judging is not None:
                self.judging.wake()
            self._background.wake()

    async def _touch_memories(self) -> None:
        retrieved, self._retrieved = self._retrieved, set()
        await self.memory.touch(retrieved)

    async def _open_tracing(self, stack: contextlib.AsyncExitStack) -> None:
        from guidance_agent.tracing.tracer import NO_TRACING

        if self._given_tracing is not None or self.settings.tracing == "off":
            self.tracing = self._given_tracing or NO_TRACING
            return
        from guidance_agent import __version__
        from guidance_agent.tracing.setup import open_tracing

        def local() -> str | None:
            from guidance_agent.phoenix.local import local_endpoint

            return local_endpoint(self.settings.data_dir)

        self.tracing = await asyncio.to_thread(
            open_tracing, self.settings, self._environ, version=__version__, find_local=local
        )
        if self.tracing.is_on:
            stack.push_async_callback(self._close_tracing)

    async def _close_tracing(self) -> None:
        from guidance_agent.tracing.tracer import CLOSE_SECONDS

        # The last flush was a part of it: both together take no longer than closing may.
        await asyncio.to_thread(self.tracing.close, max(_LEAST_CLOSE_SECONDS, CLOSE_SECONDS - self._flushed_for))

    def _last_flush(self) -> bool:
        began = self.clock.monotonic()
        try:
            return self.tracing.flush(LAST_FLUSH_SECONDS)
        finally:
            self._flushed_for = self.clock.monotonic() - began

    async def _open_records(self, stack: contextlib.AsyncExitStack) -> None:
        from guidance_agent.core.database import Database, database_url
        from guidance_agent.core.journal import Journal
        from guidance_agent.core.records import Records
        from guidance_agent.core.verdicts import VerdictRecords

        url = database_url(self.settings)
        self.database = await stack.enter_async_context(Database(url, auto_migrate=self.settings.auto_migrate))
        self.records = Records(self.database, self.clock)
        self.verdicts = VerdictRecords(self.database, self.clock)
        owner = f"{socket.gethostname()}-{os.getpid()}-{self.clock.new_id('run')[-6:]}"
        self.journal = await stack.enter_async_context(Journal(self.database, self.clock, owner=owner))

    async def _open_models(self, stack: contextlib.AsyncExitStack) -> None:
        from guidance_agent.core.ledger import UsageLedger
        from guidance_agent.llm.endpoints import default_models
        from guidance_agent.llm.gateway import ModelGateway

        chosen = default_models(self.settings, self._environ)
        self.model, self.reasoning_model = chosen.author, chosen.reasoning
        self.simulated = not chosen.configured
        if self.simulated:
            await self._start_simulator(stack)
        sinks = [UsageLedger(self.journal, simulated=self.simulated)]
        gateway = ModelGateway(
            self.settings,
            environ=self._environ,
            clock=self.clock,
            sinks=sinks,
            responses=self._response_cache(),
            tracing=self.tracing,
            limits=self._limit_store(),
        )
        self.gateway = await stack.enter_async_context(gateway)

    def _limit_store(self) -> LimitTable | None:
        if not self.settings.limits.shared:
            return None
        from guidance_agent.core.limit_store import LimitTable

        return LimitTable(self.database, self.clock)

    def _response_cache(self) -> ResponseCache | None:
        wanted = self.settings.response_cache
        if not wanted.enabled:
            return None
        from guidance_agent import __version__
        from guidance_agent.llm.response_cache import ResponseCache

        return ResponseCache(
            self.response_store, operations=wanted.operations, release=__version__, simulated=self.simulated
        )

    async def _start_simulator(self, stack: contextlib.AsyncExitStack) -> None:
        from guidance_agent.provider_simulator import ProviderSimulator, SimulatorSettings

        seed, state = self.settings.simulator_seed, self.settings.data_dir / "simulator.json"
        instant = self.settings.simulator == "instant"
        options = SimulatorSettings.instant(seed=seed) if instant else SimulatorSettings(seed=seed)
        try:
            simulator = await stack.enter_async_context(ProviderSimulator(options.but(state_path=state)))
        except OSError as error:
            raise ConfigurationError(
                f"The simulator cannot start in the data folder {str(self.settings.data_dir)!r}: {error}. Set "
                "GUIDANCE_DATA_DIR to a folder that can be written, or a provider's key."
            ) from error
        self.simulator = simulator
        provider = self.model.partition("/")[0]
        own = self.settings.providers.get(provider, ProviderSettings())
        address = {"base_url": simulator.base_url, "api_key": SecretStr("simulator"), "headers": {}}
        local = own.model_copy(update=address)
        self.settings = self.settings.model_copy(update={"providers": {**self.settings.providers, provider: local}})

    async def _open_knowledge(self, stack: contextlib.AsyncExitStack) -> None:
        from guidance_agent.compliance.gatekeeper import Gatekeeper
        from guidance_agent.core.memory import MemoryStream
        from guidance_agent.knowledge.loader import load_knowledge
        from guidance_agent.retrieval.embeddings import CachedEmbedder, HashedEmbedder, ProviderEmbedder
        from guidance_agent.retrieval.retriever import Retriever

        self.knowledge = await asyncio.to_thread(load_knowledge, self.settings.knowledge_dir)
        self.gates = await asyncio.to_thread(Gatekeeper, self.settings.gate, self.knowledge)
        stack.push_async_callback(self.gates.aclose)
        if self.settings.knowledge_dir is not None:
            # Facts of somebody else's may lack what the rules need, which is told before the first answer.
            await self.gates.ready()
        embedder: Embedder = HashedEmbedder()
        if self.settings.embedding_model is not None:
            provider = ProviderEmbedder(self.gateway, self.settings.embedding_model)
            origin = partial(self.gateway.address, self.settings.embedding_model)
            embedder = CachedEmbedder(provider, self.database, self.clock, origin=origin)
        self._embedder = embedder
        self.memory = MemoryStream(self.database, self.clock, embedder)
        self.retriever = Retriever(
            self.knowledge,
            self.database,
            embedder,
            self.memory,
            include_simulated=self.simulated,
            clock=self.clock,
            tracing=self.tracing,
        )

    async def _open_judges(self) -> None:
        from guidance_agent.compliance.policy_version import judging_version
        from guidance_agent.compliance.sentence_judge import SentenceJudge
        from guidance_agent.compliance.validator import GuidanceValidator
        from guidance_agent.llm.endpoints import judging_models

        for named in filter(None, (self.settings.judge_model, self.settings.gate_model, self.settings.audit.model)):
            # Answers do without these for a while; a wrong name or a missing key is told before the first of them.
            await self.gateway.address(named)
        chosen = judging_models(self.settings, self._environ)
        await asyncio.to_thread(judging_version)
        self.validator = GuidanceValidator(self.gateway, chosen.judge, self.knowledge, clock=self.clock)
        self.sentence_judge = None if chosen.gate is None else SentenceJudge(self.gateway, chosen.gate)

    async def _open_background(self, stack: contextlib.AsyncExitStack) -> None:
        if not self.settings.background:
            return
        from guidance_agent.advisor.importance import MemoryRater
        from guidance_agent.core.background import BackgroundJob, BackgroundWorker

        rater = MemoryRater(self.memory, self.gateway, self.reasoning_model)
        jobs = [
            await self._annotation_job(stack),
            *await self._judging_jobs(stack),
            BackgroundJob(name="sweep", interval=SWEEP_SECONDS, run=self.close_dead_turns, at_start=True, wakes=False),
            BackgroundJob(name="rules", interval=RELEASE_SECONDS, run=self.reload_rules, wakes=False),
            BackgroundJob(name="recency", interval=RATING_SECONDS, run=self._touch_memories),
            BackgroundJob(name="importance", interval=RATING_SECONDS, run=rater.run),
            BackgroundJob(name="embeddings", interval=RATING_SECONDS, run=self.memory.embed_pending),
        ]
        self._background = await stack.enter_async_context(BackgroundWorker(jobs, self.tracing))

    async def _annotation_job(self, stack: contextlib.AsyncExitStack) -> BackgroundJob:
        from guidance_agent.core.annotation_delivery import LOOK_SECONDS, AnnotationDelivery
        from guidance_agent.core.annotations import AnnotationBacklog
        from guidance_agent.core.background import BackgroundJob
        from guidance_agent.core.phoenix_address import phoenix_to_annotate

        settings = self.settings

        def redact() -> Redact:
            from guidance_agent.tracing.setup import redactor_of

            return redactor_of(settings).redact

        async def deliver() -> None:
            # Its number of deliveries would make each a span of its own.
            await delivery.run()

        find = partial(phoenix_to_annotate, settings, self._environ)
        # A malformed address is told before the first answer.
        await asyncio.to_thread(find)
        keep_trying = timedelta(days=settings.trace.annotation_days)
        delivery = AnnotationDelivery(
            AnnotationBacklog(self.database, self.clock, keep_trying=keep_trying),
            self.clock,
            find,
            redact,
        )
        self.annotations = delivery
        # Runs when nothing judges any more, and before the records are closed.
        stack.push_async_callback(delivery.last_look, self._last_flush)
        return BackgroundJob(name="annotations", interval=LOOK_SECONDS, run=deliver)

    async def _judging_jobs(self, stack: contextlib.AsyncExitStack) -> list[BackgroundJob]:
        from guidance_agent.compliance.judging import LOOK_SECONDS, BackgroundJudging
        from guidance_agent.compliance.turn_judge import TurnJudge
        from guidance_agent.core.background import BackgroundJob
        from guidance_agent.core.durable import DurableRunner, Perform, Schedule, open_runner
        from guidance_agent.core.slots import RENEW_SECONDS, WorkerSlot

        owner, host = self.journal.owner, socket.gethostname()
        schedules: Sequence[Schedule] | None = None
        if self._runs_schedules:
            # Other processes have a first text to come to.
            from guidance_agent.batch_runtime import performing_jobs, schedules_of

            schedules = schedules_of(self.settings)
        slot = WorkerSlot(self.database, self.clock, host=host, role=self._role, holder=owner)
        judge = TurnJudge(
            self.verdicts,
            self.validator,
            self.clock,
            deadline=timedelta(seconds=self.settings.judge_deadline),
            at_once=self.settings.judge_calls,
            announce=self.journal.announce,
            tracing=self.tracing,
        )

        async def open_durable(perform: Perform, ended: Callable[[], None]) -> DurableRunner:
            work = perform if schedules is None else performing_jobs(self, perform)
            return await open_runner(self.database.url, slot, work, ended=ended, schedules=schedules)

        def look_again() -> None:
            if self._background is not None:
                self._background.wake("judging")
                self._background.wake("annotations")

        judging = BackgroundJudging(
            self.verdicts,
            judge,
            self.clock,
            open_durable,
            is_quiet=lambda: not self.journal.live_turns,
            ended=look_again,
            eager=self._role == "worker",
        )

        async def keep_slot() -> None:
            if slot.name is not None and not await slot.renew():
                # Another process was thought to be alone: begin again, in another place.
                await judging.stop()

        self.judging = await stack.enter_async_context(judging)
        begin = BackgroundJob(name="schedules", interval=RENEW_SECONDS, run=judging.begin, at_start=True, wakes=False)
        return [
            *([begin] if schedules is not None else []),
            BackgroundJob(name="judging", interval=LOOK_SECONDS, run=judging.run),
            BackgroundJob(name="slot", interval=RENEW_SECONDS, run=keep_slot, wakes=False),
        ]

    async def close_dead_turns(self) -> tuple[str, ...]:
        """Close the turns that another process left behind, and return their ids."""
        return await self.records.close_dead_turns(_process_died, alive=self.journal.live_turns)


def _process_died(turn_id: str, sequence: int) -> JsonObject:
    return event_to_json(
        Failed(
            turn_id=turn_id,
            sequence=sequence,
            error="ProcessDied",
            message="The process that streamed this answer ended before the answer did. Ask again.",
        )
    )
