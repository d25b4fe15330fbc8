"""Delivering annotations to Phoenix, from the background and for as long as it takes.

    look ── rows that are due ── taken for a while ── redacted ── posted ── sent
        a span is missing there       that row again, later and later
        away, or the key is wrong     a pause of this process, then all rows again
        no such route there           a long pause, without noise

What waits stands in the records, so nothing is lost with a process, and a pause is a process's own: it holds nobody
else up. Personal data is taken out here, where texts leave, and not in the records. Where Phoenix is, is asked at every
look: one that is started later, or elsewhere, gets what waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, assert_never

from guidance_agent.core.annotations import AnnotationBacklog, DueAnnotation, Undelivered
from guidance_agent.core.clock import Clock
from guidance_agent.core.types import JsonObject
from guidance_agent.errors import StorageError

if TYPE_CHECKING:
    import aiohttp

    from guidance_agent.core.phoenix_address import PhoenixAddress
    from guidance_agent.core.phoenix_rest import Reply

__all__ = ["LOOK_SECONDS", "AnnotationDelivery", "Delivered", "Redact"]

LOOK_SECONDS = 5.0
"""How often it is looked for what another process left, or what is due again."""

LEASE_SECONDS = 60.0
_BATCH = 100
_REQUESTS_PER_LOOK = 20
_SPAN_FIRST, _SPAN_LONGEST = 1.0, 600.0
_EARLY_ATTEMPTS = 6
_LAST_SECONDS, _LAST_WAIT = 1.0, 0.1
_PAUSE_FIRST, _PAUSE_LONGEST = 1.0, 60.0
_NO_ROUTE_PAUSE = 600.0
_REJECTED_FIRST, _REJECTED_LONGEST = 60.0, 21_600.0

Redact = Callable[[str, str, tuple[str, ...]], str]
"""Takes personal data out of a text: what it is called, the text, and the customer's own names."""

_logger = logging.getLogger("guidance_agent.annotations")


class Delivered(NamedTuple):
    """How many annotations this process has sent, and how many still wait."""

    sent: int
    waiting: int


@dataclass(slots=True)
class _Look:
    """What a look has done so far, and what it may still do."""

    session: aiohttp.ClientSession
    address: PhoenixAddress
    requests: int = _REQUESTS_PER_LOOK
    sent: list[DueAnnotation] = field(default_factory=list)
    undelivered: list[Undelivered] = field(default_factory=list)
    early: set[str] = field(default_factory=set)
    stopped: bool = False


class AnnotationDelivery:
    """The delivery of a process.

    Args:
        backlog: What waits.
        find_phoenix: Where Phoenix is, if there is one; runs in a thread and may read files.
        redact: Takes personal data out of what leaves; runs in a thread. Built when it is first needed.
        timeout: Seconds that a request may take.
    """

    def __init__(
        self,
        backlog: AnnotationBacklog,
        clock: Clock,
        find_phoenix: Callable[[], PhoenixAddress | None],
        redact: Callable[[], Redact],
        *,
        timeout: float | None = None,
    ) -> None:
        self._backlog = backlog
        self._clock = clock
        self._find_phoenix = find_phoenix
        self._make_redact = redact
        self._redact: Redact | None = None
        self._timeout = timeout
        self._place: str | None = None
        self._not_before = 0.0
        self._failures = 0
        self._told: str | None = None
        self._told_rejected = False
        self._sent = 0
        self._unfinished: set[str] = set()
        # Keeps a look that was asked for from running beside the one of the background.
        self._looking = asyncio.Lock()

    async def run(self) -> int:
        """Send what is due, up to a bounded number of requests, and return how many annotations arrived.

        Raises:
            StorageError: when the records cannot be used.
        """
        async with self._looking:
            return await self._look()

    async def drain(self) -> Delivered:
        """Send everything that can be sent now."""
        while await self.run():
            continue
        return Delivered(self._sent, await self._backlog.waiting())

    async def last_look(self, flush: Callable[[], bool]) -> None:
        """Send what this process has judged before it ends, where that takes no more than a moment.

        Args:
            flush: Delivers the spans that wait in this process and says whether they arrived; blocks, in a thread.
        """
        try:
            async with self._looking:
                if self._pauses() or await asyncio.to_thread(self._find_phoenix) is None:
                    return
                if await self._backlog.any_due(self._unfinished) and await asyncio.to_thread(flush):
                    async with asyncio.timeout(_LAST_SECONDS):
                        await self._look(early=True)
                        wait = _LAST_WAIT
                        while self._unfinished and not self._pauses():
                            # Spans are stored a moment after they were taken.
                            await asyncio.sleep(wait)
                            await self._look(early=True)
                            wait += _LAST_WAIT
        except TimeoutError:
            return
        except StorageError as error:
            # What waits stays where it is; the process is about to end, and its end is not to fail for this.
            _logger.warning("Verdicts on answers could not be looked for: %s", error)

    async def _look(self, *, early: bool = False) -> int:
        if self._pauses() and self._place is not None and not await self._has_moved():
            return 0
        also = frozenset(self._unfinished) if early else frozenset()
        if not await self._backlog.any_due(also):
            return 0
        address = await asyncio.to_thread(self._find_phoenix)
        if address is None:
            return 0
        if address.place != self._place:
            self._place, self._not_before, self._failures, self._told = address.place, 0.0, 0, None
        async with contextlib.AsyncExitStack() as stack:
            # Loaded where something is to be sent: nobody's first text waits for it.
            import aiohttp

            session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
            look = _Look(session, address)
            while look.requests and not look.stopped:
                # Of one that did not answer well, a single annotation finds out whether it does now.
                limit = 1 if self._failures else _BATCH
                taken = await self._backlog.take(limit, lease=LEASE_SECONDS, also=also)
                also = frozenset()
                if not taken:
                    break
                await self._deliver(look, taken)
        return len(look.sent)

    def _pauses(self) -> bool:
        return self._clock.monotonic() < self._not_before

    async def _has_moved(self) -> bool:
        address = await asyncio.to_thread(self._find_phoenix)
        return address is not None and address.place != self._place

    async def _deliver(self, look: _Look, taken: Sequence[DueAnnotation]) -> None:
        """Send what was taken, in parts where a part of it is refused, and note what became of each."""
        before = len(look.sent), len(look.undelivered)
        # If this is cancelled, a last look knows what it was at.
        ids = {each.id for each in taken}
        self._unfinished |= ids
        bodies = dict(zip((each.id for each in taken), await asyncio.to_thread(self._bodies, taken), strict=True))
        parts = deque([tuple(taken)])
        while parts:
            part = parts.popleft()
            if look.stopped or not look.requests:
                look.undelivered += (Undelivered(each, 0.0, "not tried in this look") for each in part)
                continue
            look.requests -= 1
            reply = await self._post(look, [bodies[each.id] for each in part])
            parts.extendleft(self._after(look, part, reply))
        await self._backlog.settle(look.sent[before[0] :], look.undelivered[before[1] :])
        self._sent += len(look.sent) - before[0]
        self._unfinished = (self._unfinished - ids) | (look.early & ids)

    async def _post(self, look: _Look, data: Sequence[JsonObject]) -> Reply:
        from guidance_agent.core.phoenix_rest import TIMEOUT_SECONDS, post_annotations

        return await post_annotations(look.session, look.address, data, timeout=self._timeout or TIMEOUT_SECONDS)

    def _after(self, look: _Look, part: tuple[DueAnnotation, ...], reply: Reply) -> Sequence[tuple[DueAnnotation, ...]]:
        """Note what an answer means for the annotations it is about; return those to be sent again at once."""
        from guidance_agent.core import phoenix_rest as post

        match reply:
            case post.Delivered():
                look.sent += part
                self._is_back()
                return ()
            case post.SpansMissing(span_ids):
                self._is_back()
                missing = [each for each in part if each.span_id in span_ids]
                look.undelivered += (
                    Undelivered(each, _later(each.attempts, _SPAN_FIRST, _SPAN_LONGEST), "the span has not arrived")
                    for each in missing
                )
                look.early.update(each.id for each in missing if each.attempts <= _EARLY_ATTEMPTS)
                rest = tuple(each for each in part if each.span_id not in span_ids)
                return (rest,) if rest else ()
            case post.Rejected(problem):
                if len(part) > 1:
                    middle = len(part) // 2
                    return part[middle:], part[:middle]
                self._tell_rejected(look.address.place, part[0], problem)
                after = _later(part[0].attempts, _REJECTED_FIRST, _REJECTED_LONGEST)
                look.undelivered.append(Undelivered(part[0], after, problem))
                return ()
            case post.Refused(status):
                self._stop(look, part, f"refused with status {status}")
                self._tell(
                    logging.WARNING,
                    "refused",
                    f"{look.address.place} refuses the verdicts on answers with status {status}. Set PHOENIX_API_KEY "
                    "to a key that may write there; they are kept until then.",
                )
                return ()
            case post.Away(problem, after):
                self._stop(look, part, problem, after)
                self._tell(
                    logging.WARNING,
                    "away",
                    f"Verdicts on answers cannot be delivered to {look.address.place}: {problem}. They are kept, and "
                    "tried again.",
                )
                return ()
            case post.NoRoute(problem):
                self._stop(look, part, problem, _NO_ROUTE_PAUSE)
                self._tell(
                    logging.INFO,
                    "no route",
                    f"{look.address.place} takes no annotations ({problem}), as tracing backends other than Phoenix. "
                    "Verdicts on answers are kept; GUIDANCE_TRACE__PHOENIX can name another address.",
                )
                return ()
        assert_never(reply)

    def _stop(self, look: _Look, part: Sequence[DueAnnotation], problem: str, after: float = 0.0) -> None:
        """End the look: what was taken is due again, and this process leaves Phoenix alone for a while."""
        look.stopped = True
        look.undelivered += (Undelivered(each, 0.0, problem) for each in part)
        self._failures += 1
        pause = max(after, _later(self._failures, _PAUSE_FIRST, _PAUSE_LONGEST))
        self._not_before = self._clock.monotonic() + pause

    def _is_back(self) -> None:
        if self._told is not None:
            _logger.info("Verdicts on answers are delivered to %s again.", self._place)
        self._failures, self._not_before, self._told = 0, 0.0, None

    def _tell(self, level: int, what: str, message: str) -> None:
        if self._told != what:
            self._told = what
            _logger.log(level, "%s", message)

    def _tell_rejected(self, place: str, annotation: DueAnnotation, problem: str) -> None:
        if not self._told_rejected:
            self._told_rejected = True
            _logger.warning(
                "%s does not take the annotation %r of span %s: %s. It is tried again later; others are not held up.",
                place,
                annotation.name,
                annotation.span_id,
                problem,
            )

    def _bodies(self, taken: Sequence[DueAnnotation]) -> list[JsonObject]:
        if self._redact is None:
            self._redact = self._make_redact()
        return [_body(each, self._redact) for each in taken]


def _later(attempts: int, first: float, longest: float) -> float:
    return float(min(longest, first * 2 ** min(attempts - 1, 30)))


def _body(annotation: DueAnnotation, redact: Redact) -> JsonObject:
    result: JsonObject = {"label": annotation.label, "score": annotation.score}
    if annotation.explanation is not None:
        # The only text that quotes people; everything else is the program's own words, numbers and ids.
        result["explanation"] = redact("annotation.explanation", annotation.explanation, annotation.names)
    return {
        "span_id": annotation.span_id,
        "name": annotation.name,
        "annotator_kind": annotation.annotator_kind,
        "identifier": annotation.identifier,
        "result": result,
        "metadata": annotation.details,
    }
