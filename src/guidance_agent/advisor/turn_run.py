"""The running turn: it reads the model ahead of its caller, and ends the same way however the caller leaves.

How a turn ends:

- *completed*: the model's answer ended and the caller has received all of its text;
- *failed*: the model, a time-out or the journal ended it; what the caller has received stays delivered;
- *closed_early*: the caller left (`break`, `aclose`, leaving the `async with`, cancellation, garbage collection), or
  kept the iterator without asking for longer than the idle time-out.

In every case the provider's socket is closed first, then one commit records how much was delivered and hands that text
to judgement. If that commit fails, the lease runs out and the next sweep closes the turn from what is journaled.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from guidance_agent.advisor.events import (
    AnswerEnd,
    Completed,
    ContextRetrieved,
    Event,
    Failed,
    PublicEvent,
    ReasoningDelta,
    TurnStarted,
    TurnTiming,
)
from guidance_agent.advisor.gated_answer import GatedAnswer
from guidance_agent.advisor.outbox import Outbox
from guidance_agent.core.schema import gate_actions, memories
from guidance_agent.core.text import TextCleaner
from guidance_agent.core.transcript import extend_transcript, text_hash
from guidance_agent.core.types import TurnState
from guidance_agent.errors import (
    GuidanceAgentError,
    IdleConsumerError,
    JournalError,
    LeaseLostError,
    MalformedResponseError,
    ModelError,
    ModelTimeoutError,
    TurnInProgressError,
)
from guidance_agent.llm.messages import ModelCall

if TYPE_CHECKING:
    from guidance_agent.advisor.prompts import CalculationLine
    from guidance_agent.advisor.services import AdvisorServices
    from guidance_agent.advisor.turn_plan import TurnPlan
    from guidance_agent.advisor.turn_trace import TurnTrace
    from guidance_agent.llm.gateway import ModelStream

__all__ = ["TurnRun", "answer_end"]

_logger = logging.getLogger("guidance_agent.advisor")


def answer_end(gated: GatedAnswer, stream: ModelStream) -> AnswerEnd | None:
    """Return why an answer ended; None while it has not."""
    return "stopped_by_gate" if gated.stopped else stream.finish_reason


class TurnRun:
    """The running turn. Owned by the advisor; closes the model's stream and records the end whatever happens."""

    def __init__(self, plan: TurnPlan, services: AdvisorServices, trace: TurnTrace) -> None:
        self.plan = plan
        self.trace = trace
        trace.planned(plan)
        self.outbox = Outbox(plan.turn_id, plan.consultation_id, services.journal, services.clock)
        self.outbox.on_error = self._interrupt
        self._gated = GatedAnswer(plan.gate(), self.outbox, services.clock.now, trace.gate)
        self.exception: GuidanceAgentError | None = None
        self.state: TurnState = "streaming"
        self._services = services
        self._timeouts = services.settings.timeouts
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.Timeout | None = None
        self._began = False
        self._announced = False
        self._finishing = False
        self._caller_left = False
        self._idle = False
        self._asking = 0
        self._last_asked = self._loop.time()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._simulated = plan.simulated
        self._reasoning: list[str] = []
        self._sums: tuple[CalculationLine, ...] = ()
        self._stream: ModelStream | None = None
        self._calls: list[ModelCall] = []
        self._first_token: float | None = None
        self._answer_ended = False

    # The caller's side

    def start(self) -> asyncio.Task[None]:
        """Begin; the returned task ends when the turn's end is recorded."""
        with self.trace.current():
            # The task inherits the turn's span, and nobody else has it.
            self._task = self._loop.create_task(self._run(), name=f"turn {self.plan.turn_id}")
        # A loop that closes may cancel the task before it began; its caller must not wait for ever.
        self._task.add_done_callback(lambda _: self.outbox.end())
        self._task.add_done_callback(lambda _: self.trace.gone())
        self._arm_idle_timer(self._timeouts.idle_consumer)
        return self._task

    async def next_event(self) -> Event | None:
        """Return the next event; None at the end of the turn, or after the caller closed it."""
        if self._idle:
            raise IdleConsumerError(
                f"Turn {self.plan.turn_id!r} was closed because no event was asked for within "
                f"{self._timeouts.idle_consumer:g} s (idle_consumer). What was delivered is recorded; ask again."
            )
        self._asking += 1
        try:
            return await self.outbox.next_event()
        finally:
            self._asking -= 1
            self._last_asked = self._loop.time()

    def play_out(self) -> None:
        """Run to the end without a caller; what is on disk counts as delivered, because it may be read from there."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self.outbox.play_out()

    def request_close(self, *, cancelled: bool = False) -> None:
        """Stop the turn because its caller left, or was `cancelled`; returns at once."""
        if not self._caller_left:
            self.trace.caller_left(cancelled=cancelled)
        self._caller_left = True
        self.outbox.discard(unwritten=not self._finishing)
        self._interrupt()

    async def close(self, *, cancelled: bool = False) -> None:
        """Stop the turn if it still runs, and wait until its end is recorded."""
        if self._task is None or self._task.done():
            return
        self.request_close(cancelled=cancelled)
        await asyncio.shield(asyncio.wait({self._task}))

    def abandon(self) -> None:
        """Stop the turn because its handle was forgotten; may be called from any thread."""
        if self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._close_if_running)

    def _close_if_running(self) -> None:
        if self._task is not None and not self._task.done():
            self.request_close()

    def _interrupt(self) -> None:
        if self._task is not None and self._began and not self._finishing:
            self._task.cancel()

    def _arm_idle_timer(self, delay: float) -> None:
        self._idle_timer = self._loop.call_later(delay, self._check_idle)

    def _check_idle(self) -> None:
        silent = 0.0 if self._asking else self._loop.time() - self._last_asked
        if silent < self._timeouts.idle_consumer:
            self._arm_idle_timer(self._timeouts.idle_consumer - silent)
            return
        self._idle = True
        self._close_if_running()

    # The turn

    async def _run(self) -> None:
        self._began = True
        try:
            if not self._caller_left:
                async with self._gated:
                    await self._produce()
                await self.outbox.drained()
        except asyncio.CancelledError:
            self._caller_left = self._caller_left or self.outbox.error is None
            if self.outbox.error is not None and not self._caller_left:
                await self._hand_out_what_is_written()
        finally:
            self._finishing = True
            if self._idle_timer is not None:
                self._idle_timer.cancel()
            try:
                await self._finish()
            finally:
                self.trace.ended(
                    self,
                    stream=self._stream,
                    finish_reason=self._finish_reason,
                    timing=self._timing(),
                    cost_usd=self._cost(),
                    simulated=self._simulated,
                )

    async def _hand_out_what_is_written(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self.outbox.drained()

    async def _produce(self) -> None:
        """Run the turn up to its last released text, or to its failure."""
        try:
            async with asyncio.timeout(self._timeouts.turn) as self._deadline:
                self._announce()
                await self._answer(await self._prepared())
        except ModelError as error:
            self.exception = error
        except TimeoutError:
            self.exception = ModelTimeoutError(
                f"The turn took longer than {self._timeouts.turn:g} s (timeouts.turn), not counting the caller's own "
                "time. What was said so far is kept; ask again or raise the time-out.",
                phase="turn",
                model=self.plan.model,
            )
        except GuidanceAgentError as error:
            self.exception = error
        except Exception as error:
            _logger.exception("turn failed unexpectedly: turn=%s", self.plan.turn_id)
            self.exception = GuidanceAgentError(f"The turn failed unexpectedly: {type(error).__name__}. See the log.")
            self.exception.__cause__ = error
        self._gated.decide_rest()
        self._gated.add_closing(is_whole=self._is_whole, has_failed=self.exception is not None)

    @property
    def _is_whole(self) -> bool:
        """Whether the answer ended as the model meant it to."""
        return self.exception is None and self._finish_reason == "stop"

    @property
    def _finish_reason(self) -> AnswerEnd | None:
        return None if self._stream is None else answer_end(self._gated, self._stream)

    def _announce(self) -> None:
        plan, outbox = self.plan, self.outbox
        self._announced = True
        change = outbox.change()
        change.opening.extend(plan.opening)
        if plan.continues is not None:
            change.consultation_values["turn_count"] = plan.continues
        outbox.add(
            lambda sequence: TurnStarted(
                turn_id=plan.turn_id,
                sequence=sequence,
                consultation_id=plan.consultation_id,
                model=plan.model,
                simulated=plan.simulated,
            )
        )
        found = plan.found
        outbox.add_private(
            lambda sequence: ContextRetrieved(
                turn_id=plan.turn_id,
                sequence=sequence,
                facts=found.facts,
                cases=found.cases,
                rules=found.rules,
                memories=found.memories,
            )
        )

    async def _prepared(self) -> str | None:
        """Make the private notes, and work sums out meanwhile; returns the notes."""
        if (step := self.plan.sums) is None:
            return await self._reason()
        async with asyncio.TaskGroup() as group:
            notes = group.create_task(self._reason())
            sums = group.create_task(step.run(self._services.gateway, self._services.tracing))
        self._sums, call = sums.result()
        self._calls += [] if call is None else [call]
        if self._sums:
            worked_out = [dataclasses.asdict(line) for line in self._sums]
            self.outbox.change().turn_values["calculations"] = worked_out
        return notes.result()

    async def _reason(self) -> str | None:
        """Stream the private notes; the answer goes on with what has arrived when they fail or take too long."""
        if self.plan.reasoning is None:
            return None
        stream = self._services.gateway.stream(self.plan.reasoning)
        cleaner = TextCleaner()
        try:
            async with stream, asyncio.timeout(self._services.settings.reasoning_deadline):
                while (deltas := await stream.read()) is not None:
                    self._note(cleaner.clean("".join([delta.text for delta in deltas])))
        except (ModelError, TimeoutError) as error:
            _logger.warning("private notes cut short: turn=%s error=%s", self.plan.turn_id, type(error).__name__)
        self._note(cleaner.finish())
        self._keep_call(stream)
        notes = "".join(self._reasoning).strip()
        if not notes:
            return None
        self.outbox.change().turn_values["reasoning"] = notes
        return notes

    def _note(self, text: str) -> None:
        if text:
            self._reasoning.append(text)
            self.outbox.add_private(
                lambda sequence: ReasoningDelta(turn_id=self.plan.turn_id, sequence=sequence, text=text)
            )

    async def _answer(self, notes: str | None) -> None:
        await self._read_answer(self._services.gateway.stream(self.plan.answer(notes, self._sums)), self._gated)
        self._answer_ended = True

    async def _read_answer(self, stream: ModelStream, gated: GatedAnswer) -> None:
        """Read a whole answer through its gate."""
        outbox, cleaner, said = self.outbox, TextCleaner(), False
        try:
            async with stream:
                while not gated.stopped and (deltas := await stream.read()) is not None:
                    text = cleaner.clean("".join([delta.text for delta in deltas]))
                    if not text:
                        continue
                    said = True
                    if self._first_token is None:
                        self._first_token = self._services.clock.monotonic()
                    await gated.pass_through(text)
                    if not outbox.has_room:
                        with self._callers_time():
                            await outbox.room()
        finally:
            self._stream = stream
            self._simulated = self._simulated or stream.simulated
            self._keep_call(stream)
            if held := cleaner.finish():
                gated.feed(held)
        if not said and stream.finish_reason in ("stop", "length"):
            raise MalformedResponseError(
                f"{stream.model} ended its answer without any text for the customer. Ask again, raise "
                "max_answer_tokens if the model reasons at length, or use another model.",
                model=stream.model,
            )
        await gated.finish(ask=stream.finish_reason == "stop")

    def _keep_call(self, stream: ModelStream) -> None:
        if stream.call is not None:
            self._calls.append(stream.call)

    @contextlib.contextmanager
    def _callers_time(self) -> Iterator[None]:
        """Stop the turn's clock while the turn waits for its caller."""
        deadline = self._deadline
        if deadline is None or (when := deadline.when()) is None:
            yield
            return
        left = when - self._loop.time()
        deadline.reschedule(None)
        yield
        deadline.reschedule(self._loop.time() + left)

    # The end

    async def _finish(self) -> None:
        outbox = self.outbox
        await outbox.landed()
        self.state = self._end_state()
        if not self._announced or isinstance(outbox.error, LeaseLostError):
            outbox.end(outbox.error)
            return
        if outbox.error is not None and outbox.last_sequence < 0:
            # Not even its beginning is on record: there is nothing to end there.
            self.exception = self._why_not_begun(outbox.error)
            outbox.end(self.exception)
            return
        timing = self._timing()
        last_sequence = outbox.last_sequence
        if self.state != "closed_early":
            outbox.add(self._terminal_event(timing))
            last_sequence += 1
        change = outbox.change()
        change.turn_values.update(self._turn_values(timing), last_sequence=last_sequence)
        if (never_shown := self._gated.never_shown(outbox.text_length)) is not None:
            change.closing.append((gate_actions, never_shown))
        if outbox.delivered_length:
            change.consultation_values["transcript_hash"] = self._transcript()
            change.closing.append((memories, self.plan.memory_row(self._services.clock.now())))
        change.ends = True
        if await outbox.written():
            outbox.end()
            return
        _logger.error("the end of a turn is not recorded; the sweep will close it: turn=%s", self.plan.turn_id)
        self.exception = self.exception or outbox.error
        outbox.end(outbox.error)

    def _why_not_begun(self, error: JournalError) -> GuidanceAgentError:
        if not error.contradicts_record:
            return error
        return TurnInProgressError(
            f"Consultation {self.plan.consultation_id!r} was asked another question at the same time. Ask this one "
            "when that turn has ended."
        )

    def _end_state(self) -> TurnState:
        if self.exception is not None or (self.outbox.error is not None and not self._caller_left):
            self.exception = self.exception or self.outbox.error
            return "failed"
        whole = self._answer_ended and self.outbox.delivered_length == self.outbox.text_length
        return "completed" if whole else "closed_early"

    def _timing(self) -> TurnTiming:
        started, first_text = self.plan.started, self.outbox.first_text_at
        answer = self._stream.timing if self._stream is not None else None
        return TurnTiming(
            first_token=None if self._first_token is None else self._first_token - started,
            first_text=None if first_text is None else first_text - started,
            total=self._services.clock.monotonic() - started,
            chunks=0 if answer is None else answer.chunks,
            tokens_per_second=None if answer is None else answer.tokens_per_second,
        )

    def _terminal_event(self, timing: TurnTiming) -> Callable[[int], PublicEvent]:
        turn_id, error, answer = self.plan.turn_id, self.exception, self._answer_call
        if error is not None or answer is None:
            name, message = type(error).__name__, str(error)
            return lambda sequence: Failed(turn_id=turn_id, sequence=sequence, error=name, message=message)
        text, cost = self.outbox.text, self._cost()
        return lambda sequence: Completed(
            turn_id=turn_id,
            sequence=sequence,
            text=text,
            finish_reason=self._finish_reason or "other",
            usage=answer.usage,
            timing=timing,
            cost_usd=cost,
            cache_outcome=answer.cache_outcome,
            simulated=self._simulated,
        )

    @property
    def _answer_call(self) -> ModelCall | None:
        return self._stream.call if self._stream is not None else None

    def _cost(self) -> float | None:
        costs = [call.cost for call in self._calls]
        return None if not costs or None in costs else sum(cost.usd for cost in costs if cost is not None)

    def _turn_values(self, timing: TurnTiming) -> dict[str, Any]:
        delivered = self.outbox.delivered_length
        return {
            "state": self.state,
            "ended_at": self._services.clock.now(),
            "text_length": self.outbox.text_length,
            "delivered_length": delivered,
            "text_hash": self.outbox.delivered_hash,
            "finish_reason": self._finish_reason,
            "error": None if self.exception is None else f"{type(self.exception).__name__}: {self.exception}",
            "judgement": "pending" if delivered else None,
            "timing": dataclasses.asdict(timing),
            "simulated": self._simulated,
            "answer_span_id": None if self._stream is None else self._stream.span.span_id,
        }

    def _transcript(self) -> str:
        asked = extend_transcript(self.plan.transcript, "customer", text_hash(self.plan.question))
        return extend_transcript(asked, "advisor", self.outbox.delivered_hash)
