"""What a turn has to say: from the model's text to numbered events, through the journal, to the caller.

The outbox is the turn's side of the journal. Text that waits for the same commit becomes one `TextDelta`, so numbers
are given when the journal takes what waits, and the caller gets an event only after the journal has said that it is
on disk. Events that are not public are never written; they keep their place among the others.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from guidance_agent.advisor.events import Completed, Event, TextDelta, event_to_json
from guidance_agent.core.clock import Clock
from guidance_agent.core.journal import Journal, JournalWrite, Row
from guidance_agent.errors import GuidanceAgentError, JournalError

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["READ_AHEAD", "Outbox"]

READ_AHEAD = 64 * 1024
"""Characters of text that may wait for the journal or the caller before the turn stops reading from the model."""

_MakeEvent = Callable[[int], Event]


class _Waiting(NamedTuple):
    make: _MakeEvent
    public: bool


class _WaitingRow(NamedTuple):
    table: sa.Table
    make: Callable[[int], Row]


class Outbox:
    """The events of one turn on their way to the caller. Every method runs on the event loop.

    Attributes:
        text_length: Released text that the journal has taken, in code points.
        delivered_length: Text that the caller has received, in code points.
        last_sequence: Number of the newest public event; -1 before the first.
        first_text_at: Monotonic time at which the first text could be handed out.
        error: The first failure of the journal; the turn ends with it.
    """

    def __init__(self, turn_id: str, consultation_id: str, journal: Journal, clock: Clock) -> None:
        self.turn_id = turn_id
        self.consultation_id = consultation_id
        self.text_length = 0
        self.delivered_length = 0
        self.last_sequence = -1
        self.first_text_at: float | None = None
        self.error: JournalError | None = None
        self.on_error: Callable[[], None] | None = None
        self._journal = journal
        self._clock = clock
        self._delivered_hash = hashlib.sha256()
        self._text = ""
        self._waiting: list[str | _Waiting | _WaitingRow] = []
        self._write = JournalWrite()
        self._in_flight: list[Event] = []
        self._sent = False
        self._failures = 0
        self._flying = False
        self._ready: deque[Event] = deque()
        self._unread = 0
        self._ended = False
        self._end_error: GuidanceAgentError | None = None
        self._discarding = False
        self._unattended = False
        self._committed = (0, -1)
        self._changed: set[asyncio.Future[None]] = set()

    # The turn's side

    def add_text(self, text: str) -> None:
        """Release a piece of text to the journal."""
        self._waiting.append(text)
        self._unread += len(text)
        self._journal.notify(self)

    def add(self, make: _MakeEvent) -> None:
        """Queue a public event; `make` gets its number."""
        self._waiting.append(_Waiting(make, public=True))
        self._journal.notify(self)

    def add_row(self, table: sa.Table, make: Callable[[int], Row]) -> None:
        """Have a row written with the text and the events that are added next; `make` gets where that text begins."""
        self._waiting.append(_WaitingRow(table, make))
        self._journal.notify(self)

    def add_private(self, make: _MakeEvent) -> None:
        """Queue an event that is not public; it carries the number of the public event before it."""
        if self._waiting or self._flying:
            self._waiting.append(_Waiting(make, public=False))
        else:
            self._ready.append(make(self.last_sequence))
            self._wake()

    def change(self) -> JournalWrite:
        """Return the write that goes with the next commit, to be added to before `send`."""
        return self._write

    def send(self) -> None:
        """Have the changes of `change` written even if no event waits."""
        self._sent = True
        self._journal.notify(self)

    @property
    def text(self) -> str:
        return self._text

    @property
    def released_text(self) -> str:
        """All text that was released, what the journal has not taken yet included."""
        return "".join([self._text, *(item for item in self._waiting if isinstance(item, str))])

    @property
    def delivered_hash(self) -> str:
        return self._delivered_hash.hexdigest()

    async def room(self) -> None:
        """Wait until less than `READ_AHEAD` characters wait for the caller."""
        while not self.has_room and self.error is None:
            await self._change()

    @property
    def has_room(self) -> bool:
        return self._unread < READ_AHEAD

    async def written(self) -> bool:
        """Have everything that waits written, and return whether it was."""
        failures = self._failures
        self.send()
        while self._waiting or self._sent or self._flying:
            await self._change()
        return self._failures == failures

    async def landed(self) -> None:
        """Wait for the commit that is under way, if there is one."""
        while self._flying:
            await self._change()

    async def drained(self) -> None:
        """Wait until the caller has received everything that could be written."""
        while self._waiting or self._flying or self._ready:
            await self._change()

    def end(self, error: GuidanceAgentError | None = None) -> None:
        """Say that nothing follows: after what is ready the caller's iteration ends, or raises `error`."""
        if not self._ended:
            self._ended, self._end_error = True, error
            self._wake()

    # The caller's side

    async def next_event(self) -> Event | None:
        """Return the next event; None at the end. Raises what the turn ended with if no event could tell it."""
        while not self._ready:
            if self._ended:
                if self._end_error is not None:
                    raise self._end_error
                return None
            await self._change()
        event = self._ready.popleft()
        self._note_delivery(event)
        if not self._ready or self.has_room:
            self._wake()
        return event

    def play_out(self) -> None:
        """Count everything as received as soon as it is on disk: from there, anyone may read it."""
        self._unattended = True
        while self._ready:
            self._note_delivery(self._ready.popleft())
        self._wake()

    def _note_delivery(self, event: Event) -> None:
        if type(event) is TextDelta:
            self.delivered_length = event.end
            self._delivered_hash.update(event.text.encode())
            self._unread -= len(event.text)

    def discard(self, *, unwritten: bool) -> None:
        """Forget what the caller will not ask for any more, and what need not be written for it."""
        self._ready.clear()
        if unwritten:
            self._waiting.clear()
        self._discarding = True
        self._wake()

    # The journal's side

    def take(self) -> JournalWrite:
        write, self._write = self._write, JournalWrite()
        waiting, self._waiting = self._waiting, []
        now = self._clock.now()
        pieces: list[str] = []
        for item in waiting:
            if isinstance(item, str):
                pieces.append(item)
                continue
            if isinstance(item, _WaitingRow):
                write.closing.append((item.table, item.make(self.text_length + sum(map(len, pieces)))))
                continue
            self._number_text(pieces, write, now)
            if item.public:
                self.last_sequence += 1
            event = item.make(self.last_sequence)
            if item.public:
                write.events.append(self._row(event, None, now))
            self._in_flight.append(event)
        self._number_text(pieces, write, now)
        self._sent, self._flying = False, True
        return write

    def committed(self) -> None:
        self._flying = False
        self._committed = (self.text_length, self.last_sequence)
        landed, self._in_flight = self._in_flight, []
        # What is not public needs no commit of its own: it lands with the one that it waited behind.
        while self._waiting and isinstance(item := self._waiting[0], _Waiting) and not item.public:
            landed.append(item.make(self.last_sequence))
            self._waiting.pop(0)
        if self._discarding and not self._unattended:
            landed = []
        if self.first_text_at is None and any(type(event) is TextDelta for event in landed):
            self.first_text_at = self._clock.monotonic()
        self._ready.extend(landed)
        if self._unattended:
            self.play_out()
        self._wake()

    def failed(self, error: JournalError) -> None:
        self._failures += 1
        self._flying = False
        self._in_flight.clear()
        self._waiting.clear()
        self.text_length, self.last_sequence = self._committed
        self._text = self._text[: self.text_length]
        if self.error is None:
            self.error = error
            if self.on_error is not None:
                self.on_error()
        self._wake()

    def _number_text(self, pieces: list[str], write: JournalWrite, now: Any) -> None:
        if not pieces:
            return
        text = "".join(pieces)
        pieces.clear()
        start = self.text_length
        self.text_length += len(text)
        self.last_sequence += 1
        event = TextDelta(
            turn_id=self.turn_id, sequence=self.last_sequence, text=text, start=start, end=self.text_length
        )
        self._keep(text)
        write.events.append(self._row(event, text, now))
        self._in_flight.append(event)

    def _keep(self, text: str) -> None:
        # As the only reference to it, a string grows in place: a long answer is never held twice.
        whole, self._text = self._text, ""
        whole += text
        self._text = whole

    def _row(self, event: Event, text: str | None, now: Any) -> dict[str, Any]:
        payload = event_to_json(event)
        if text is not None or type(event) is Completed:
            # The text has a column, or rows, of its own: it is not stored twice.
            del payload["text"]
        return {
            "turn_id": self.turn_id,
            "sequence": event.sequence,
            "type": payload["type"],
            "text": text,
            "payload": payload,
            "created_at": now,
        }

    # Waiting

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed.add(future)
        try:
            await future
        finally:
            self._changed.discard(future)

    def _wake(self) -> None:
        for future in self._changed:
            if not future.done():
                future.set_result(None)
