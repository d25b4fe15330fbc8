"""One turn as its caller sees it.

The handle can be iterated, closed, left or forgotten. Forgetting it ends the turn, because the running turn keeps no
reference to its handle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from guidance_agent.advisor.events import Event, TurnStarted
from guidance_agent.core.types import TurnState
from guidance_agent.errors import GuidanceAgentError, TurnEndedError

if TYPE_CHECKING:
    from guidance_agent.advisor.judgements import EarlierCorrections
    from guidance_agent.advisor.turn_run import TurnRun
    from guidance_agent.compliance.verdict import Verdict

__all__ = ["Turn"]


class _VerdictWaiter(Protocol):
    async def __call__(self, turn_id: str, *, timeout: float | None) -> Verdict | None: ...


class Turn:
    """An async context manager that is iterated for the events of one turn.

    Entering reads the input and begins the turn. Leaving, closing or forgetting it ends it: the provider's socket is
    closed, and what was delivered is recorded and judged.

    Corrections of earlier turns of the consultation that the customer has not received come right after `TurnStarted`.
    They carry the id of the turn that they correct, and the number of their event there.

    Raises:
        InputError: on entering, when the question, the history or the customer cannot be answered.
        ConfigurationError: on entering, when the model or its key is missing or unknown.
        StorageError: on entering, when the records cannot be read; while iterating, when the journal cannot be written.
        IdleConsumerError: while iterating, when no event was asked for longer than `timeouts.idle_consumer`.
    """

    def __init__(
        self,
        open_run: Callable[[], Awaitable[TurnRun]],
        verdict: _VerdictWaiter,
        corrections: Callable[[TurnRun], EarlierCorrections] | None = None,
    ) -> None:
        self._open_run: Callable[[], Awaitable[TurnRun]] | None = open_run
        self._run: TurnRun | None = None
        self._verdict = verdict
        self._corrections = corrections
        self._earlier: EarlierCorrections | None = None

    @property
    def turn_id(self) -> str:
        return self._entered.plan.turn_id

    @property
    def consultation_id(self) -> str:
        return self._entered.plan.consultation_id

    @property
    def state(self) -> TurnState:
        return self._entered.state

    @property
    def exception(self) -> GuidanceAgentError | None:
        """What ended the turn, once its iteration has ended with `Failed`."""
        return self._entered.exception

    async def __aenter__(self) -> Turn:
        if self._open_run is None:
            raise TurnEndedError("A turn can be entered once. Call `consult` again for another.")
        open_run, self._open_run = self._open_run, None
        self._run = await open_run()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(cancelled=kind is not None and issubclass(kind, asyncio.CancelledError))

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        run = self._entered
        if self._earlier is not None:
            correction = await self._earlier.next()
            if correction is not None:
                return correction
            self._earlier = None
        event = await run.next_event()
        if event is None:
            raise StopAsyncIteration
        if type(event) is TurnStarted and self._corrections is not None and run.plan.continues is not None:
            self._earlier = self._corrections(run)
        return event

    async def verdict(self, *, timeout: float | None = 30.0) -> Verdict | None:
        """Wait for the verdict on what was delivered, and return it; as `AdvisorAgent.verdict`.

        Ask when the iteration has ended, or after leaving the turn: one that still waits for its caller has not ended.
        """
        return await self._verdict(self.turn_id, timeout=timeout)

    async def aclose(self) -> None:
        """End the turn if it still runs; returns when its end is recorded."""
        await self._close(cancelled=False)

    async def _close(self, *, cancelled: bool) -> None:
        if self._run is not None:
            await self._run.close(cancelled=cancelled)
        if self._earlier is not None:
            await self._earlier.note_delivery()

    def __del__(self) -> None:
        if self._run is not None:
            self._run.abandon()

    @property
    def _entered(self) -> TurnRun:
        if self._run is None:
            raise TurnEndedError("The turn has not begun. Use `async with advisor.consult(...) as turn`.")
        return self._run
