"""Requests and tokens per minute: calls queue for them instead of failing.

A model has a queue where the settings limit it, and from the first refusal (429) on where they do not; any other call
passes with one look into a dictionary. What is left of a limit is kept in a `LimitStore`: the one of this module
belongs to the process, `core.limit_store` shares one through the database.

- Calls that a person waits for go before the others; of five calls that go while both wait, one is of the others, so
  that nothing waits for ever. Within a kind the first to come is the first to go.
- The others leave a quarter of each bucket to the calls of people, whichever process makes those.
- A call's tokens are estimated before it is sent and settled with the reported usage after it.
- What the provider's headers tell wins where it is less than what the settings say, and where others use the account.
- A wait ends at once when the caller is cancelled. One that would outlast the call's deadline is not begun.

Nothing sleeps with a lock or a transaction open: a store changes its state in one go, and the waiting is done here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple, Protocol, TypeVar

from guidance_agent.core.clock import Clock
from guidance_agent.errors import LimitWaitError, RateLimitedError, StorageError
from guidance_agent.llm.limits_grant import CallSize, Grant, Learned
from guidance_agent.llm.limits_state import NOTHING, Amounts, Bounds, LimitState, Reserved
from guidance_agent.llm.transports.rate_headers import read_rate_headers

__all__ = ["LimitQueue", "LimitStore", "LocalLimitStore", "Priority", "QueueStatus"]

T = TypeVar("T")
Priority = Literal["chat", "background"]
Change = Callable[[LimitState, float], T]

_HEADROOM: Mapping[Priority, float] = {"chat": 0.0, "background": 0.25}
_CHAT_IN_A_ROW = 4
_AT_ONCE = 16
"""Calls that one look into the store may let go."""
_LONGEST_SLEEP = 5.0
_STORE_PAUSE = 30.0
_REMEMBERED = 4_096
_TELLING = 20
_SHORTEST_WINDOW = 5.0
"""A guess at an untold limit rests on so many of the last calls, in no less than so many seconds."""

_logger = logging.getLogger("guidance_agent.limits")


class LimitStore(Protocol):
    """Keeps what was taken from limits, for one process or for several.

    `apply` runs `change` on the state of `scope` and keeps what it made of it, as one step that nothing else comes
    between. `change` gets the state and the time on the store's clock, in seconds, and may be run again on a fresh
    state. `StorageError`s are the caller's to handle.
    """

    async def apply(self, scope: str, change: Change[T]) -> T: ...


class LocalLimitStore:
    """The limits of this process alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._states: dict[str, LimitState] = {}

    async def apply(self, scope: str, change: Change[T]) -> T:
        return change(self._states.setdefault(scope, LimitState()), self._clock.monotonic())


class QueueStatus(NamedTuple):
    """How a model's queue stands in this process."""

    chat: int
    background: int
    granted: int
    waited_seconds: float


class _Waiter:
    __slots__ = ("amounts", "future", "priority", "until")

    def __init__(self, amounts: Amounts, priority: Priority, until: float) -> None:
        self.amounts = amounts
        self.priority: Priority = priority
        self.until = until
        self.future: asyncio.Future[Reserved] = asyncio.get_running_loop().create_future()


class LimitQueue:
    """The calls of one model that wait for its limits.

    Args:
        model: With its provider; what messages name, and under what the store keeps the limit.
        bounds: Of the settings.
        store: Where the limit is kept.
        clock: Measures waits.
        own: Runs the queue's own work as a task that closing the gateway waits for.
    """

    def __init__(
        self,
        model: str,
        bounds: Bounds,
        *,
        store: LimitStore,
        clock: Clock,
        own: Callable[..., asyncio.Task[object]],
    ) -> None:
        self.model = model
        self.bounds = bounds
        self.learned = Learned()
        self._store = store
        self._fallback = LocalLimitStore(clock)
        self._fallback_until = 0.0
        self._clock = clock
        self._own = own
        self._waiting: dict[Priority, deque[_Waiter]] = {"chat": deque(), "background": deque()}
        self._chat_in_a_row = 0
        self._changes: list[Change[None]] = []
        self._urgent = False
        self._pump: asyncio.Task[object] | None = None
        self._changed = asyncio.Event()
        self._rates = NOTHING
        self._granted = 0
        self._waited = 0.0
        self._recent: deque[tuple[float, Amounts]] = deque(maxlen=_REMEMBERED)

    @property
    def status(self) -> QueueStatus:
        chat, background = (len(self._waiting[kind]) for kind in ("chat", "background"))
        return QueueStatus(chat, background, self._granted, self._waited)

    async def enter(self, size: CallSize, priority: Priority, within: float) -> Grant:
        """Return once the call may be sent.

        Args:
            size: What the call is estimated to take.
            priority: Whether somebody waits for the call.
            within: Seconds that it may wait.

        Raises:
            LimitWaitError: the call would have to wait longer than `within`.
        """
        began = self._clock.monotonic()
        amounts = self.learned.expected(size)
        if not self._is_waited_for:
            attempt = partial(_reserve_if_free, amounts=amounts, bounds=self.bounds, headroom=_HEADROOM[priority])
            reserved, self._rates = await self._apply(attempt)
            if reserved is not None:
                return self._grant(size, amounts, reserved, began, queued=False)
        self._check_deadline(amounts, priority, within)
        waiter = _Waiter(amounts, priority, began + within)
        self._waiting[priority].append(waiter)
        self._wake()
        try:
            async with asyncio.timeout(within):
                reserved = await waiter.future
        except TimeoutError:
            self._leave(waiter)
            raise self._too_long(within, within) from None
        except asyncio.CancelledError:
            self._leave(waiter)
            raise
        return self._grant(size, amounts, reserved, began, queued=True)

    def change(self, change: Change[None], *, urgent: bool = False) -> None:
        """Have the store's state changed: with the next look into it, or at once."""
        self._changes.append(change)
        if urgent:
            self._urgent = True
            self._wake()

    def refused(self, error: RateLimitedError, *, respect_retry_after: bool = True) -> None:
        """Note that the provider refused a call with a 429.

        Where it does not say for how long, or is not to be listened to, only the rate changes.
        """
        told = read_rate_headers(error.rate_headers)
        retry_after = (error.retry_after if error.retry_after is not None else told.reset) or 0.0
        refuse = partial(
            LimitState.refuse,
            bounds=self.bounds,
            retry_after=retry_after if respect_retry_after else 0.0,
            told=told.limits,
            reached=self._reached(),
        )
        self.change(lambda state, now: refuse(state, now=now), urgent=True)

    def _reached(self) -> Amounts:
        """Return what a minute had lately; nothing where that says little."""
        now = self._clock.monotonic()
        lately = [(at, amounts) for at, amounts in self._recent if now - at < 60]
        if len(lately) < _TELLING:
            return NOTHING
        share = 60 / max(_SHORTEST_WINDOW, now - lately[0][0])
        return Amounts(*(sum(each) * share for each in zip(*(amounts for _, amounts in lately), strict=True)))

    async def aclose(self) -> None:
        """Let nobody wait any longer: who does is told that the gateway was closed."""
        for waiters in self._waiting.values():
            while waiters:
                waiter = waiters.popleft()
                if not waiter.future.done():
                    waiter.future.set_exception(
                        LimitWaitError(
                            f"The gateway was closed while a call waited for the rate limit of {self.model!r}. Close "
                            "what asks models before the gateway.",
                            provider=self.model.partition("/")[0],
                            model=self.model,
                        )
                    )
        pump, self._pump = self._pump, None
        if pump is not None:
            self._changed.set()
            await asyncio.wait([pump])
        # The next call may come on another event loop.
        self._changed = asyncio.Event()

    @property
    def _is_waited_for(self) -> bool:
        return self._pump is not None and any(self._waiting.values())

    def _grant(self, size: CallSize, amounts: Amounts, reserved: Reserved, began: float, *, queued: bool) -> Grant:
        now = self._clock.monotonic()
        waited = now - began if queued else 0.0
        self._granted += 1
        self._waited += waited
        self._recent.append((now, amounts))
        return Grant(self, size, amounts, reserved, waited=waited)

    def _check_deadline(self, amounts: Amounts, priority: Priority, within: float) -> None:
        """Refuse a wait that is known to be too long: everything before it in the queue takes its time."""
        kinds: tuple[Priority, ...] = ("chat",) if priority == "chat" else ("chat", "background")
        before = [waiter.amounts for kind in kinds for waiter in self._waiting[kind]]
        total = [sum(each) for each in zip(amounts, *before, strict=True)]
        wait = max((amount * 60 / rate for amount, rate in zip(total, self._rates, strict=True) if rate), default=0.0)
        # A full bucket is saved up at best, and spent before anybody waits; a refill of it is not certain.
        if before and wait > within:
            raise self._too_long(wait, within)

    def _too_long(self, wait: float, within: float) -> LimitWaitError:
        return LimitWaitError(
            f"A call of {self.model!r} would wait about {wait:.0f} s for its rate limit, and may wait {within:.0f} s: "
            "nothing was sent. Ask again later, raise the limit under 'providers', or raise 'retry.deadline'.",
            provider=self.model.partition("/")[0],
            model=self.model,
            retry_after=wait,
        )

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiting[waiter.priority]:
            self._waiting[waiter.priority].remove(waiter)
            # It may be the one for which the queue sleeps.
            self._wake()
        elif waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
            self.change(_adds(-waiter.amounts), urgent=True)

    def _wake(self) -> None:
        self._changed.set()
        if self._pump is None or self._pump.done():
            self._pump = self._own(self._run())

    async def _run(self) -> None:
        try:
            await self._serve()
        except Exception as error:
            # Whoever waits must not wait for a queue that nobody looks after.
            waiting = [waiter for waiters in self._waiting.values() for waiter in waiters if not waiter.future.done()]
            for waiter in waiting:
                waiter.future.set_exception(error)
            for waiters in self._waiting.values():
                waiters.clear()
            if not waiting:
                _logger.exception("The rate limit of %s could not be kept, and no call waits for it.", self.model)

    async def _serve(self) -> None:
        while self._urgent or any(self._waiting.values()):
            self._changed.clear()
            self._urgent = False
            wanted = self._next(_AT_ONCE)
            reserved, self._rates = await self._apply(partial(_reserve_all, wanted=wanted, bounds=self.bounds))
            for waiter, each in zip(wanted, reserved, strict=False):
                if each.wait > 0:
                    await self._hold(waiter, each)
                else:
                    self._let_go(waiter, each)

    def _next(self, most: int) -> list[_Waiter]:
        """Return who is to go next, in order. Waiters stay in their queues until they go."""
        chat, background = (list(islice(self._waiting[kind], most)) for kind in ("chat", "background"))
        chosen: list[_Waiter] = []
        in_a_row = self._chat_in_a_row
        while len(chosen) < most and (chat or background):
            turn = background if background and (not chat or in_a_row >= _CHAT_IN_A_ROW) else chat
            in_a_row = 0 if turn is background else in_a_row + 1
            chosen.append(turn.pop(0))
        return chosen

    async def _hold(self, waiter: _Waiter, reserved: Reserved) -> None:
        """Sleep until a reservation is due. Whatever changes the queue ends it: the next look begins anew."""
        ends = self._clock.monotonic() + reserved.wait
        if ends > waiter.until and waiter in self._waiting[waiter.priority]:
            self._waiting[waiter.priority].remove(waiter)
            self.change(_adds(-waiter.amounts))
            if not waiter.future.done():
                waiter.future.set_exception(self._too_long(reserved.wait, waiter.until - self._clock.monotonic()))
            return
        while (left := ends - self._clock.monotonic()) > 0:
            if self._is_overtaken(waiter):
                self.change(_adds(-waiter.amounts))
                return
            try:
                async with asyncio.timeout(min(left, _LONGEST_SLEEP)):
                    await self._changed.wait()
                    self._changed.clear()
            except TimeoutError:
                continue
        self._let_go(waiter, reserved)

    def _is_overtaken(self, waiter: _Waiter) -> bool:
        return self._urgent or self._next(1) != [waiter]

    def _let_go(self, waiter: _Waiter, reserved: Reserved) -> None:
        waiters = self._waiting[waiter.priority]
        if waiter not in waiters:
            self.change(_adds(-waiter.amounts))
            return
        waiters.remove(waiter)
        self._chat_in_a_row = self._chat_in_a_row + 1 if waiter.priority == "chat" else 0
        if waiter.future.done():
            self.change(_adds(-waiter.amounts))
        else:
            waiter.future.set_result(reserved)

    async def _apply(self, change: Change[T]) -> T:
        """Run `change` on the state, after the changes that are due."""
        due, self._changes = self._changes, []

        def all_of_it(state: LimitState, now: float) -> T:
            for each in due:
                each(state, now)
            return change(state, now)

        if self._clock.monotonic() < self._fallback_until:
            return await self._fallback.apply(self.model, all_of_it)
        try:
            return await self._store.apply(self.model, all_of_it)
        except StorageError as error:
            # An answer is worth more than a limit that all processes share.
            _logger.warning("The shared rate limit of %s cannot be used: %s Limited by itself.", self.model, error)
            self._fallback_until = self._clock.monotonic() + _STORE_PAUSE
            return await self._fallback.apply(self.model, all_of_it)
        except BaseException:
            self._changes = due + self._changes
            raise


def _adds(amounts: Amounts) -> Change[None]:
    def change(state: LimitState, now: float) -> None:
        state.add(amounts)

    return change


def _reserve_if_free(
    state: LimitState, now: float, *, amounts: Amounts, bounds: Bounds, headroom: float
) -> tuple[Reserved | None, Amounts]:
    free = state.wait_for(amounts, bounds, now, headroom=headroom) <= 0
    return (state.reserve(amounts, bounds, now) if free else None), state.rates(bounds, now)


def _reserve_all(
    state: LimitState, now: float, *, wanted: list[_Waiter], bounds: Bounds
) -> tuple[list[Reserved], Amounts]:
    """Reserve for the first, however long it waits, and for those after it that need not wait."""
    made: list[Reserved] = []
    for waiter in wanted:
        headroom = _HEADROOM[waiter.priority]
        if made and state.wait_for(waiter.amounts, bounds, now, headroom=headroom) > 0:
            break
        made.append(state.reserve(waiter.amounts, bounds, now, headroom=headroom))
        if made[-1].wait > 0:
            break
    return made, state.rates(bounds, now)
