"""The advisor: the one object that a chat backend talks to.

A turn is planned first (`planning.py`: the conversation is read, its consultation found, knowledge retrieved, the
prompt built), then runs on its own (`turn_run.py`: it streams, journals, delivers and records its end).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from guidance_agent.advisor.events import PublicEvent, TextDelta
from guidance_agent.advisor.services import AdvisorServices, open_default_services
from guidance_agent.advisor.turn import Turn
from guidance_agent.core.text import is_storable
from guidance_agent.core.types import AdvisorProfile, CustomerProfile, HistoryEntry, Outcome
from guidance_agent.errors import ConfigurationError, InputError, TurnEndedError, TurnInProgressError

if TYPE_CHECKING:
    from guidance_agent.advisor.judgements import EarlierCorrections
    from guidance_agent.advisor.turn_plan import TurnPlan
    from guidance_agent.advisor.turn_run import TurnRun
    from guidance_agent.compliance.verdict import Verdict
    from guidance_agent.settings import Settings

__all__ = ["AdvisorAgent"]


_PLANNED_AT_ONCE = 8


class AdvisorAgent:
    """Streams pension guidance; an async context manager that owns its turns.

    Args:
        profile: The adviser persona; None is `AdvisorProfile.default()`.
        enable_prompt_caching: None takes the setting.
        connection_string: Database URL; None takes the setting.
        model: Author model such as `anthropic/claude-sonnet-5-5`; None takes the setting.
        reasoning_model: Fast model for private notes; None takes the setting.
        settings: None loads them from file and environment.
        runtime: Services to share with other advisors; they stay open when this one closes. The arguments that only
            matter for opening services (`connection_string`, `settings`) cannot be combined with it.

    Raises:
        ConfigurationError: on entering, when the settings cannot work.
        StorageError: on entering, when the database cannot be used.
    """

    def __init__(
        self,
        profile: AdvisorProfile | None = None,
        *,
        enable_prompt_caching: bool | None = None,
        connection_string: str | None = None,
        model: str | None = None,
        reasoning_model: str | None = None,
        settings: Settings | None = None,
        runtime: AdvisorServices | None = None,
    ) -> None:
        if runtime is not None and (settings is not None or connection_string is not None):
            raise ConfigurationError("runtime brings its own settings and database. Pass one or the other.")
        self.profile = profile or AdvisorProfile.default()
        self._model = model
        self._reasoning_model = reasoning_model
        self._use_cache = enable_prompt_caching
        self._connection_string = connection_string
        self._settings = settings
        self._given = runtime
        self._services: AdvisorServices | None = None
        self._exit: contextlib.AsyncExitStack | None = None
        self._runs: dict[asyncio.Task[None], TurnRun] = {}
        self._asked: set[str] = set()
        # Protects running streams from a burst of beginning turns, whose planning is the loop's longest work.
        self._planning = asyncio.Semaphore(_PLANNED_AT_ONCE)

    async def __aenter__(self) -> AdvisorAgent:
        if self._services is not None:
            raise ConfigurationError("This advisor is already open. Make another, or share its runtime.")
        async with contextlib.AsyncExitStack() as stack:
            if self._given is not None:
                if not self._given.is_open:
                    raise ConfigurationError("The runtime is not open. Enter it with `async with` before its advisors.")
                self._services = self._given
            else:
                self._services = await stack.enter_async_context(open_default_services(self._load_settings()))
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for run in self._runs.values():
                run.request_close()
            if self._runs:
                await asyncio.shield(asyncio.wait(set(self._runs)))
        finally:
            exit_stack, self._exit, self._services = self._exit, None, None
            if exit_stack is not None:
                await exit_stack.aclose()

    async def provide_guidance_stream(
        self,
        customer: CustomerProfile | Mapping[str, Any],
        conversation_history: Sequence[HistoryEntry] | None = None,
        use_reasoning: bool = True,
        *,
        consultation_id: str | None = None,
    ) -> AsyncGenerator[str, None]:
        """Yield the answer's text as it is released.

        Stopping early, in whatever way, closes the provider's connection and records what was delivered.

        Raises:
            InputError, ConfigurationError, StorageError: before anything is sent, as `consult`.
            ModelError: when the answer fails; what was yielded before stays recorded.
            JournalError: when text could not be recorded; it was not yielded.
            IdleConsumerError: when the iterator was kept but not asked for too long.
        """
        # Without the corrections of earlier turns: who receives text alone would never see them.
        turn = Turn(
            lambda: self._open_run(customer, conversation_history, use_reasoning, consultation_id), self.verdict
        )
        async with turn:
            async for event in turn:
                if type(event) is TextDelta:
                    yield event.text
            if turn.exception is not None:
                raise turn.exception

    def consult(
        self,
        customer: CustomerProfile | Mapping[str, Any],
        conversation_history: Sequence[HistoryEntry] | None = None,
        use_reasoning: bool = True,
        *,
        consultation_id: str | None = None,
    ) -> Turn:
        """Return one turn, to be entered with `async with` and iterated for typed events.

        Args:
            customer: The customer's profile, or its values as a mapping.
            conversation_history: Entries of `role` and `content`, as they were delivered. If the last one is the
                customer's, it is the question; otherwise `customer.presenting_question` is. None with a
                `consultation_id` takes the recorded conversation.
            use_reasoning: Whether private notes are made before the answer.
            consultation_id: The consultation to continue or begin; None finds the one that the history continues.
        """
        return Turn(
            lambda: self._open_run(customer, conversation_history, use_reasoning, consultation_id),
            self.verdict,
            self._earlier_corrections,
        )

    async def start_turn(
        self,
        customer: CustomerProfile | Mapping[str, Any],
        conversation_history: Sequence[HistoryEntry] | None = None,
        use_reasoning: bool = True,
        *,
        consultation_id: str | None = None,
    ) -> str:
        """Begin a turn that runs to its end whether or not anybody listens, and return its id.

        For answers that must survive their connection: clients follow it with `events`, leave and come back. What is in
        the journal counts as delivered. The turn belongs to this advisor and is closed with it, or by `stop_turn`.

        Args and errors are those of `consult`; when this returns, the turn is on record.
        """
        run = await self._open_run(customer, conversation_history, use_reasoning, consultation_id)
        try:
            started = await run.next_event()
        except BaseException:
            await run.close()
            raise
        if started is None:
            raise TurnEndedError("The advisor was closed before the turn began. Ask an advisor that is open.")
        run.play_out()
        return run.plan.turn_id

    async def stop_turn(self, turn_id: str, *, customer_id: str | None = None) -> bool:
        """End a turn of this advisor as if its caller had left.

        Args:
            turn_id: The turn.
            customer_id: Whose turn it must be; None does not look.

        Returns:
            Whether it was running here and was this customer's.
        """
        run = next((run for run in self._runs.values() if run.plan.turn_id == turn_id), None)
        if run is None or customer_id not in (None, run.plan.customer_id):
            return False
        await run.close()
        return True

    async def events(
        self, turn_id: str, *, after: int = -1, customer_id: str | None = None, until_judged: bool = False
    ) -> AsyncGenerator[PublicEvent, None]:
        """Yield a turn's public events again from the journal, then the live rest; the model is not asked anew.

        Works for any turn in the records: one that has ended, one that this advisor runs, one of another process. Ends
        when the turn has ended; the last event is `Completed` or `Failed`, or neither when the turn was stopped
        early, and then `Judged` and its `Corrected` if there is a verdict already. Leaving this iteration does not stop
        the turn.

        Args:
            turn_id: The id that `TurnStarted` told, or `start_turn` returned.
            after: The sequence number of the last event received; -1 for all.
            customer_id: Whose turn it must be; None does not look. A correction that is yielded to a named customer
                counts as received.
            until_judged: Whether to go on until the turn has its verdict, whoever judges it.

        Raises:
            UnknownTurnError: when there is no such turn, or it is another customer's.
            InputError: when `after` is not a sequence number.
            StorageError: when the records cannot be read.
        """
        from guidance_agent.advisor.resume import follow_turn

        follower = follow_turn(
            self._open_services, turn_id, after=after, customer_id=customer_id, until_judged=until_judged
        )
        async with contextlib.aclosing(follower):
            async for event in follower:
                yield event

    async def verdict(self, turn_id: str, *, timeout: float | None = 30.0) -> Verdict | None:
        """Wait for the verdict on what a turn delivered, whichever process judges it, and return it.

        Args:
            turn_id: The turn.
            timeout: How long to wait for the turn's end and its verdict, in seconds; None waits for ever.

        Returns:
            The verdict, or None when there is none: it did not come in time, the turn delivered nothing, or it could
            not be judged and waits for a person. No verdict never means that the text passed.

        Raises:
            UnknownTurnError: when there is no such turn.
            StorageError: when the records cannot be read.
        """
        from guidance_agent.advisor.judgements import wait_for_verdict

        return await wait_for_verdict(self._open_services, turn_id, timeout=timeout)

    async def provide_guidance(
        self,
        customer: CustomerProfile | Mapping[str, Any],
        conversation_history: Sequence[HistoryEntry] | None = None,
        use_reasoning: bool = True,
        *,
        consultation_id: str | None = None,
    ) -> str:
        """Return the whole answer once it has passed its checks, written again with what failed until it does.

        Nothing is delivered before that: a caller that leaves meanwhile has received nothing.

        Raises:
            InputError, ConfigurationError, StorageError: before anything is sent, as `consult`.
            ModelError: when the answer fails, or the judge cannot be asked; nothing of it is returned.
            GuidanceNotCompliantError: when no version passed (`refinement.rounds`), unless `refinement.never_passes`
                says otherwise.
        """
        turn = Turn(
            lambda: self._open_run(customer, conversation_history, use_reasoning, consultation_id, is_refined=True),
            self.verdict,
        )
        async with turn:
            pieces = [event.text async for event in turn if type(event) is TextDelta]
            if turn.exception is not None:
                raise turn.exception
        return "".join(pieces)

    def stream_sync(
        self,
        customer: CustomerProfile | Mapping[str, Any],
        conversation_history: Sequence[HistoryEntry] | None = None,
        use_reasoning: bool = True,
        *,
        consultation_id: str | None = None,
    ) -> Iterator[str]:
        """Yield what `provide_guidance_stream` yields, for scripts and notebooks without `await`.

        The advisor must not be entered with `async with`: it is opened in a thread of its own for this call.
        """
        from guidance_agent.core.loop_thread import iterate_in_thread

        self._check_not_open()
        return iterate_in_thread(
            self,
            lambda: self.provide_guidance_stream(
                customer, conversation_history, use_reasoning, consultation_id=consultation_id
            ),
        )

    def provide_guidance_sync(
        self,
        customer: CustomerProfile | Mapping[str, Any],
        conversation_history: Sequence[HistoryEntry] | None = None,
        use_reasoning: bool = True,
        *,
        consultation_id: str | None = None,
    ) -> str:
        """Return what `provide_guidance` returns, as `stream_sync`."""
        from guidance_agent.core.loop_thread import iterate_in_thread

        async def whole() -> AsyncGenerator[str, None]:
            yield await self.provide_guidance(
                customer, conversation_history, use_reasoning, consultation_id=consultation_id
            )

        self._check_not_open()
        return "".join(iterate_in_thread(self, whole))

    async def record_outcome(self, consultation_id: str, outcome: Outcome, *, reason: str) -> None:
        """Record what became of a consultation, as its caller knows it: `passed`, `failed` or `open` again.

        Raises:
            InputError: when the outcome is none of these, or the reason is no text that can be stored.
            UnknownConsultationError: when there is no consultation with this id.
        """
        if outcome not in get_args(Outcome):
            raise InputError(f"{outcome!r} is no outcome. Use one of {', '.join(get_args(Outcome))}.")
        if not isinstance(reason, str) or not is_storable(reason):
            raise InputError("The reason of an outcome is a text without NUL characters and lone surrogates.")
        await self._open_services.records.set_outcome(consultation_id, outcome, reason=reason, source="caller")

    # One turn

    async def _open_run(
        self,
        customer: CustomerProfile | Mapping[str, Any],
        history: Sequence[HistoryEntry] | None,
        use_reasoning: bool,
        consultation_id: str | None,
        *,
        is_refined: bool = False,
    ) -> TurnRun:
        from guidance_agent.advisor.turn_trace import TurnTrace

        services = self._open_services
        trace = TurnTrace(services.tracing)
        with trace.planning():
            plan = await self._planned(services, customer, history, use_reasoning, consultation_id)
            run = self._run_class(is_refined=is_refined)(plan, services, trace)
        self._asked.add(plan.consultation_id)
        task = run.start()
        self._runs[task] = run
        task.add_done_callback(self._forget)
        return run

    async def _planned(
        self,
        services: AdvisorServices,
        customer: CustomerProfile | Mapping[str, Any],
        history: Sequence[HistoryEntry] | None,
        use_reasoning: bool,
        consultation_id: str | None,
    ) -> TurnPlan:
        from guidance_agent.advisor.planning import TurnOptions, plan_turn

        if not isinstance(customer, CustomerProfile):
            customer = CustomerProfile.parse(customer)
        options = TurnOptions(
            use_reasoning=use_reasoning,
            consultation_id=consultation_id,
            model=self._model or services.model,
            reasoning_model=self._reasoning_model or services.reasoning_model,
            use_cache=services.settings.enable_prompt_caching if self._use_cache is None else self._use_cache,
        )
        async with self._planning:
            plan = await plan_turn(services, self.profile, customer, history, options)
            while consultation_id is None and plan.consultation_id in self._asked:
                # Two questions that continue the same history: the second one gets a consultation of its own.
                options = replace(options, busy=frozenset(self._asked))
                plan = await plan_turn(services, self.profile, customer, history, options)
        if self._services is not services:
            raise ConfigurationError("The advisor was closed while the turn was planned. Ask an advisor that is open.")
        if plan.consultation_id in self._asked:
            raise TurnInProgressError(
                f"Consultation {plan.consultation_id!r} still streams its last turn. Close or finish that turn first."
            )
        return plan

    @staticmethod
    def _run_class(*, is_refined: bool) -> type[TurnRun]:
        if is_refined:
            # It knows the verdicts, which no text waits for that is streamed.
            from guidance_agent.advisor.refined_run import RefinedRun

            return RefinedRun
        from guidance_agent.advisor.turn_run import TurnRun

        return TurnRun

    def _earlier_corrections(self, run: TurnRun) -> EarlierCorrections:
        from guidance_agent.advisor.judgements import EarlierCorrections

        plan = run.plan
        return EarlierCorrections(self._open_services, consultation_id=plan.consultation_id, turn_id=plan.turn_id)

    def _forget(self, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(task)
        self._asked.discard(run.plan.consultation_id)
        if self._services is not None:
            self._services.turn_ended(run.plan.found.memories)

    @property
    def _open_services(self) -> AdvisorServices:
        if self._services is None:
            raise ConfigurationError(
                "The advisor is not open. Use it inside `async with AdvisorAgent(...) as advisor`."
            )
        return self._services

    def _check_not_open(self) -> None:
        if self._services is not None or self._given is not None:
            raise ConfigurationError(
                "The synchronous calls open the advisor themselves. Use them on one that is not entered and has no "
                "runtime, or use the async calls."
            )

    def _load_settings(self) -> Settings:
        from guidance_agent.settings import Settings

        given = {
            "model": self._model,
            "reasoning_model": self._reasoning_model,
            "database_url": self._connection_string,
        }
        overrides = {name: value for name, value in given.items() if value is not None}
        if self._settings is None:
            return Settings.load(**overrides)
        return self._settings.model_copy(update=overrides)
