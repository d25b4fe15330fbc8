"""Reading and closing what the journal wrote: consultations, turns, and turns that a dead process left behind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from guidance_agent.core.clock import Clock
from guidance_agent.core.database import Database, SharedWork
from guidance_agent.core.schema import consultations, gate_actions, memories, turn_events, turns
from guidance_agent.core.transcript import extend_transcript, text_hash
from guidance_agent.core.types import ConversationRole, JsonObject, Outcome, TurnState
from guidance_agent.errors import UnknownConsultationError

__all__ = ["ConsultationRecord", "EventRecord", "KnownCustomer", "Records", "TranscriptEntry", "TurnProgress"]


class TranscriptEntry(NamedTuple):
    """One recorded entry of a conversation, as it was delivered."""

    role: ConversationRole
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsultationRecord:
    """A consultation as it stands in the records. `streaming` says that its last turn has not ended."""

    id: str
    customer_id: str
    profile: JsonObject
    transcript_hash: str
    turn_count: int
    outcome: Outcome
    streaming: bool


class KnownCustomer(NamedTuple):
    """What there is of a customer before a turn.

    Attributes:
        consultation: The newest open consultation whose transcript is the conversation so far, without a live turn.
        has_memories: Whether anything is remembered.
    """

    consultation: ConsultationRecord | None
    has_memories: bool


class EventRecord(NamedTuple):
    """A public event of a turn as the journal holds it."""

    sequence: int
    type: str
    text: str | None
    payload: JsonObject


class TurnProgress(NamedTuple):
    """How far a turn has come: its state, whose it is, its lease in seconds since the epoch, and a page of events.

    `is_pending` says that it waits for its verdict.
    """

    state: TurnState
    customer_id: str
    lease_until: float
    is_pending: bool
    events: tuple[EventRecord, ...]


class Records:
    """Queries on the records. Raises `DatabaseUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def consultation(self, consultation_id: str) -> ConsultationRecord | None:
        """Return the consultation with this id, if there is one."""
        parameters = {"id": consultation_id}
        row = await self._database.run(lambda connection: connection.execute(_CONSULTATION, parameters).first())
        return None if row is None else _consultation(row)

    async def known_customer(self, customer_id: str, fingerprint: str) -> KnownCustomer:
        """Return what there is of a customer whose conversation so far has this fingerprint.

        Turns that begin together share one statement.
        """
        return await self._database.run(SharedWork(_known_customers, (customer_id, fingerprint)))

    async def transcript(self, consultation_id: str) -> tuple[TranscriptEntry, ...]:
        """Return the recorded conversation: each question with the text that was delivered for it."""
        query = (
            sa.select(turns.c.question, turns.c.delivered_length, turn_events.c.text)
            .join(turn_events, sa.and_(turn_events.c.turn_id == turns.c.id, turn_events.c.type == "text_delta"))
            .where(turns.c.consultation_id == consultation_id, turns.c.state != "streaming")
            .order_by(turns.c.ordinal, turn_events.c.sequence)
            .add_columns(turns.c.ordinal)
        )
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        entries: list[TranscriptEntry] = []
        texts: dict[int, tuple[str, int, list[str]]] = {}
        for question, delivered, text, ordinal in rows:
            texts.setdefault(ordinal, (question, delivered, []))[2].append(text)
        for question, delivered, pieces in texts.values():
            shown = "".join(pieces)[:delivered]
            if shown:
                entries += [TranscriptEntry("customer", question), TranscriptEntry("advisor", shown)]
        return tuple(entries)

    async def events(self, turn_id: str, *, after: int = -1) -> tuple[EventRecord, ...]:
        """Return the turn's journaled events with a sequence number greater than `after`."""
        query = (
            sa.select(turn_events.c.sequence, turn_events.c.type, turn_events.c.text, turn_events.c.payload)
            .where(turn_events.c.turn_id == turn_id, turn_events.c.sequence > after)
            .order_by(turn_events.c.sequence)
        )
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return tuple(EventRecord(*row) for row in rows)

    async def progress(self, turn_id: str, *, after: int, limit: int) -> TurnProgress | None:
        """Return the turn's state with at most `limit` events after `after`; None when there is no such turn.

        The state is read first: a turn that has ended by then has all its events among those that can be read.
        """
        parameters = {"turn_id": turn_id, "after": after, "page": limit}

        def read(connection: sa.Connection) -> TurnProgress | None:
            turn = connection.execute(_TURN_STATE, parameters).first()
            if turn is None:
                return None
            rows = connection.execute(_EVENTS_AFTER, parameters).all()
            return TurnProgress(
                state=turn.state,
                customer_id=turn.customer_id,
                lease_until=turn.lease_until,
                is_pending=turn.judgement == "pending",
                events=tuple(EventRecord(*row) for row in rows),
            )

        return await self._database.run(read)

    async def text(self, turn_id: str) -> str:
        """Return all text of the turn that the journal holds."""
        query = (
            sa.select(turn_events.c.text)
            .where(turn_events.c.turn_id == turn_id, turn_events.c.text.is_not(None))
            .order_by(turn_events.c.sequence)
        )
        return "".join(await self._database.run(lambda connection: list(connection.execute(query).scalars())))

    async def turn(self, turn_id: str) -> JsonObject | None:
        """Return the turn's row, if there is one."""
        query = sa.select(turns).where(turns.c.id == turn_id)
        row = await self._database.run(lambda connection: connection.execute(query).mappings().first())
        return None if row is None else dict(row)

    async def gate_actions(self, turn_id: str) -> tuple[JsonObject, ...]:
        """Return the rows of what the gate did in a turn, in their order; they hold what no customer may see."""
        query = sa.select(gate_actions).where(gate_actions.c.turn_id == turn_id).order_by(gate_actions.c.number)
        rows = await self._database.run(lambda connection: connection.execute(query).mappings().all())
        return tuple(dict(row) for row in rows)

    async def set_outcome(self, consultation_id: str, outcome: Outcome, *, reason: str, source: str) -> None:
        """Record what became of a consultation; raise `UnknownConsultationError` when there is none with this id."""
        change = (
            sa.update(consultations)
            .where(consultations.c.id == consultation_id)
            .values(outcome=outcome, outcome_reason=reason, outcome_source=source, outcome_at=self._clock.now())
        )
        changed = await self._database.transaction(lambda connection: connection.execute(change).rowcount)
        if changed == 0:
            raise UnknownConsultationError(
                f"There is no consultation {consultation_id!r}. Use the id that the turn's first event told."
            )

    async def close_dead_turns(
        self, terminal_payload: Callable[[str, int], JsonObject], *, alive: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Close live turns whose lease has run out as `process_died` and hand their text to judgement.

        A turn whose owner still renews its lease is never closed.

        Args:
            terminal_payload: Makes the payload of the event that ends a turn from its id and number.
            alive: Turns of this process that run, whatever a step of the clock makes of their leases.

        Returns:
            The ids of the turns that were closed.
        """
        now = self._clock.now()
        dead = (
            sa.select(turns.c.id, turns.c.consultation_id, turns.c.question)
            .where(
                turns.c.state == "streaming",
                turns.c.lease_until < now.timestamp(),
                turns.c.id.not_in(tuple(alive)),
            )
            .with_for_update(skip_locked=True)
        )
        any_dead = dead.with_only_columns(turns.c.id).limit(1)
        if await self._database.run(lambda connection: connection.execute(any_dead).first()) is None:
            return ()

        def close(connection: sa.Connection) -> tuple[str, ...]:
            rows = connection.execute(dead).all()
            for turn_id, consultation_id, question in rows:
                _close_dead(connection, turn_id, consultation_id, question, now, terminal_payload)
            return tuple(row.id for row in rows)

        return await self._database.transaction(close)


def _known_customers(connection: sa.Connection, asked: Sequence[tuple[str, str]]) -> list[KnownCustomer]:
    dialect = connection.dialect.name
    parameters: dict[str, Any] = {"asked": [list(each) for each in asked]}
    if dialect == "postgresql":
        customers, fingerprints = zip(*asked, strict=True)
        parameters = {"customers": list(customers), "fingerprints": list(fingerprints)}
    rows = connection.execute(_known(dialect), parameters)
    return [KnownCustomer(None if row.id is None else _consultation(row), bool(row.has_memories)) for row in rows]


def _consultation(row: sa.Row[Any]) -> ConsultationRecord:
    return ConsultationRecord(
        id=row.id,
        customer_id=row.customer_id,
        profile=row.profile,
        transcript_hash=row.transcript_hash,
        turn_count=row.turn_count,
        outcome=row.outcome,
        streaming=bool(row.streaming),
    )


def _close_dead(
    connection: sa.Connection,
    turn_id: str,
    consultation_id: str,
    question: str,
    now: datetime,
    terminal_payload: Callable[[str, int], JsonObject],
) -> None:
    journaled = (
        connection.execute(
            sa.select(turn_events.c.sequence, turn_events.c.text)
            .where(turn_events.c.turn_id == turn_id)
            .order_by(turn_events.c.sequence)
        )
    ).all()
    text = "".join(row.text for row in journaled if row.text is not None)
    sequence = journaled[-1].sequence + 1 if journaled else 0
    payload = terminal_payload(turn_id, sequence)
    connection.execute(
        sa.insert(turn_events).values(
            turn_id=turn_id, sequence=sequence, type=payload["type"], text=None, payload=payload, created_at=now
        )
    )
    ended: dict[str, Any] = {
        "state": "process_died",
        "ended_at": now,
        "last_sequence": sequence,
        "text_length": len(text),
        "delivered_length": len(text),
        "text_hash": text_hash(text),
        "error": "The process that streamed this turn ended before the turn did.",
        "judgement": "pending" if text else None,
    }
    connection.execute(sa.update(turns).where(turns.c.id == turn_id).values(**ended))
    if text:
        fingerprint = (
            connection.execute(sa.select(consultations.c.transcript_hash).where(consultations.c.id == consultation_id))
        ).scalar_one()
        fingerprint = extend_transcript(fingerprint, "customer", text_hash(question))
        fingerprint = extend_transcript(fingerprint, "advisor", ended["text_hash"])
        connection.execute(
            sa.update(consultations).where(consultations.c.id == consultation_id).values(transcript_hash=fingerprint)
        )


# Built once: these are on the way to the first text, and building a statement costs more than running it.


def _has_live_turn(table: sa.FromClause) -> sa.Exists:
    return sa.exists().where(turns.c.consultation_id == table.c.id, turns.c.state == "streaming")


_CONSULTATION: sa.Select[Any] = sa.select(consultations, _has_live_turn(consultations).label("streaming")).where(
    consultations.c.id == sa.bindparam("id")
)


@functools.cache
def _known(dialect: str) -> sa.Select[Any]:
    """Return the statement for any number of customers, each with a fingerprint, in the order they are named in."""
    customer: sa.ColumnElement[str]
    fingerprint: sa.ColumnElement[str]
    if dialect == "postgresql":
        texts = sa.ARRAY(sa.Text)
        named = sa.func.unnest(sa.bindparam("customers", type_=texts), sa.bindparam("fingerprints", type_=texts))
        asked = named.table_valued("customer", "fingerprint", with_ordinality="place", name="asked").render_derived()
        place, customer, fingerprint = asked.c.place, asked.c.customer, asked.c.fingerprint
    else:
        asked = sa.func.json_each(sa.bindparam("asked", type_=sa.JSON())).table_valued("key", "value", name="asked")
        place = asked.c.key
        customer = sa.func.json_extract(asked.c.value, "$[0]")
        fingerprint = sa.func.json_extract(asked.c.value, "$[1]")
    own, found = consultations.alias("own"), consultations.alias("found")
    newest = (
        sa.select(own.c.id)
        .where(
            own.c.customer_id == customer,
            own.c.outcome == "open",
            own.c.transcript_hash == fingerprint,
            ~_has_live_turn(own),
        )
        .order_by(own.c.opened_at.desc())
        .limit(1)
        .correlate(asked)
        .scalar_subquery()
    )
    has_memories = sa.exists().where(memories.c.customer_id == customer)
    return (
        sa.select(has_memories.label("has_memories"), found, sa.literal(False).label("streaming"))
        .select_from(asked.outerjoin(found, found.c.id == newest))
        .order_by(place)
    )


_TURN_STATE: sa.Select[Any] = (
    sa.select(turns.c.state, consultations.c.customer_id, turns.c.lease_until, turns.c.judgement)
    .join(consultations, consultations.c.id == turns.c.consultation_id)
    .where(turns.c.id == sa.bindparam("turn_id"))
)
_EVENTS_AFTER: sa.Select[Any] = (
    sa.select(turn_events.c.sequence, turn_events.c.type, turn_events.c.text, turn_events.c.payload)
    .where(turn_events.c.turn_id == sa.bindparam("turn_id"), turn_events.c.sequence > sa.bindparam("after"))
    .order_by(turn_events.c.sequence)
    .limit(sa.bindparam("page"))
)
