"""An open advisor on an event loop in a thread of its own, and its turns pulled from the main thread.

The main thread reads the keyboard and writes to the terminal, both of which may block for as long as they like; the
advisor's leases, time-outs and background work go on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from guidance_agent import AdvisorAgent, CustomerProfile, Event, GuidanceAgentError, Runtime, Settings, Turn
from guidance_agent.core.types import HistoryEntry, JsonObject

__all__ = ["LiveTurn", "Session"]

Result = TypeVar("Result")


class Session:
    """A context manager that opens the advisor and closes it with everything that still runs.

    Args:
        settings: Settings of the advisor.
        prepare: Called with the services when they are open, before the first turn.

    Raises:
        ConfigurationError, StorageError: on entering, as `AdvisorAgent`.
    """

    def __init__(self, settings: Settings, *, prepare: Callable[[Runtime], None] | None = None) -> None:
        self._settings = settings
        self._prepare = prepare
        self._runtime: Runtime | None = None
        self._opened: Future[AdvisorAgent] = Future()
        self._running = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._holder: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="guidance-agent-session")

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._opened.result()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if self._failure is not None:
            raise self._failure

    def turn(
        self,
        customer: CustomerProfile,
        history: Sequence[HistoryEntry],
        *,
        use_reasoning: bool,
        consultation_id: str | None = None,
    ) -> LiveTurn:
        """Return one turn, to be entered with `with` and iterated for its events."""
        turn = self._opened.result().consult(customer, history, use_reasoning, consultation_id=consultation_id)
        return LiveTurn(turn, self)

    @property
    def judges(self) -> bool:
        """Whether answers are judged in this process."""
        return self._settings.background

    async def told(self, turn_id: str, *, after: int, customer_id: str, timeout: float) -> list[Event]:
        """Return what is told of a turn after its end; nothing when that takes longer than `timeout` seconds."""
        events = self._opened.result().events(turn_id, after=after, customer_id=customer_id, until_judged=True)
        try:
            async with asyncio.timeout(timeout), contextlib.aclosing(events):
                return [event async for event in events]
        except TimeoutError:
            return []

    async def gate_actions(self, turn_id: str) -> tuple[JsonObject, ...]:
        """Return what the gate did in a turn; holds what no customer may see."""
        return () if self._runtime is None else await self._runtime.records.gate_actions(turn_id)

    async def trace_page(self, turn_id: str) -> str | None:
        """Return where Phoenix shows the trace of a turn; None where it does not."""
        runtime = self._runtime
        if runtime is None or not runtime.tracing.is_on:
            return None
        from guidance_agent.cli.trace_report import find_pages
        from guidance_agent.core.evidence import read_turn

        recorded = await read_turn(runtime.database, turn_id)
        return None if recorded is None else (await find_pages(self._settings, recorded)).trace

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run `work` on the session's loop."""
        if self._loop is None:
            work.close()
            raise GuidanceAgentError("The session is not open. Use it inside `with Session(...) as session`.")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _main(self) -> None:
        try:
            asyncio.run(self._hold())
        except asyncio.CancelledError as error:
            if not self._opened.done():
                self._opened.set_exception(error)
        except BaseException as error:
            if self._opened.done():
                self._failure = error
            else:
                self._opened.set_exception(error)
        finally:
            self._running.set()

    async def _hold(self) -> None:
        self._loop, self._holder = asyncio.get_running_loop(), asyncio.current_task()
        self._running.set()
        async with Runtime(self._settings) as runtime, AdvisorAgent(runtime=runtime) as advisor:
            self._runtime = runtime
            if self._prepare is not None:
                self._prepare(runtime)
            self._opened.set_result(advisor)
            await asyncio.Event().wait()

    def _close(self) -> None:
        self._running.wait()
        if self._loop is not None and self._holder is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._holder.cancel)
        self._thread.join()


class LiveTurn:
    """One turn of a session. Leaving the `with` block ends it and waits until its end is recorded."""

    def __init__(self, turn: Turn, session: Session) -> None:
        self._turn = turn
        self._session = session
        self._stopping: Future[None] | None = None

    @property
    def error(self) -> GuidanceAgentError | None:
        """What ended the turn, once its iteration has ended with `Failed`."""
        return self._turn.exception

    def stop(self) -> None:
        """Ask the turn to end; its iteration ends soon after. Returns at once and may be called by a signal."""
        if self._stopping is None:
            self._stopping = self._session.submit(self._turn.aclose())

    def __enter__(self) -> Self:
        self._session.submit(self._turn.__aenter__()).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._stopping is not None:
            self._stopping.result()

    def __iter__(self) -> Iterator[Event]:
        while (event := self._session.submit(self._next()).result()) is not None:
            yield event

    async def _next(self) -> Event | None:
        return await anext(self._turn, None)
