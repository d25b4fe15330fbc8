"""Which consultation a turn belongs to, and the rows that put the turn on record."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from guidance_agent.advisor.conversation import Entry
from guidance_agent.core.transcript import transcript_hash
from guidance_agent.core.types import CustomerProfile, HistoryEntry, JsonObject
from guidance_agent.errors import HistoryMismatch, TurnInProgressError, UnknownConsultationError

if TYPE_CHECKING:
    from guidance_agent.core.clock import Clock
    from guidance_agent.core.records import ConsultationRecord, Records

__all__ = ["ID_LIMIT", "OpenConsultation", "find_consultation", "profile_changes", "recorded_history"]

ID_LIMIT = 64
"""Longest id of a consultation that the records hold, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConsultation:
    """The consultation that a turn continues or begins.

    Attributes:
        profile: The customer's values as they stood when the consultation opened.
        transcript: Fingerprint of what was said before this turn.
        ordinal: Number of the turn in its consultation, from 1.
        is_new: Whether its row has yet to be written.
        has_memories: Whether anything of the customer may be remembered.
    """

    id: str
    profile: JsonObject
    transcript: str
    ordinal: int
    is_new: bool
    has_memories: bool = True

    def row(self, customer: CustomerProfile, *, advisor_id: str, clock: Clock, simulated: bool) -> dict[str, Any]:
        """Return the row of `consultations` for a new one."""
        return {
            "id": self.id,
            "customer_id": customer.customer_id,
            "advisor_id": advisor_id,
            "opened_at": clock.now(),
            "profile": self.profile,
            "transcript_hash": self.transcript,
            "turn_count": self.ordinal,
            "outcome": "open",
            "simulated": simulated,
        }


async def find_consultation(
    records: Records,
    clock: Clock,
    customer: CustomerProfile,
    history: Sequence[Entry],
    consultation_id: str | None,
    *,
    busy: Collection[str] = (),
) -> OpenConsultation:
    """Return the consultation that `history` continues, or a new one.

    Without an id it is the customer's open consultation whose recorded turns equal the history, roles and texts as
    delivered, unless it is `busy` with another question. With an id it is that one, or a new one with that id.

    Raises:
        HistoryMismatch: when the history contradicts the recorded turns of the given id.
        UnknownConsultationError: when the given id belongs to another customer, or cannot be an id.
        TurnInProgressError: when the given consultation still streams a turn.
    """
    fingerprint = transcript_hash(history)
    has_memories = True
    if consultation_id is None:
        record, has_memories = await records.known_customer(customer.customer_id, fingerprint)
        if record is not None and record.id in busy:
            record = None
    else:
        _check_id(consultation_id)
        record = await records.consultation(consultation_id)
        if record is not None:
            await _check_given(records, record, customer, fingerprint)
    if record is None:
        return OpenConsultation(
            id=clock.new_id("cons") if consultation_id is None else consultation_id,
            profile=customer.prompt_values(),
            transcript=fingerprint,
            ordinal=1,
            is_new=True,
            has_memories=has_memories,
        )
    return OpenConsultation(
        id=record.id,
        profile=record.profile,
        transcript=record.transcript_hash,
        ordinal=record.turn_count + 1,
        is_new=False,
        has_memories=has_memories,
    )


def _check_id(consultation_id: object) -> None:
    if not isinstance(consultation_id, str):
        raise UnknownConsultationError(
            f"{type(consultation_id).__name__} cannot be the id of a consultation. Use a text, or None."
        )
    if not (0 < len(consultation_id) <= ID_LIMIT and consultation_id.isprintable()):
        raise UnknownConsultationError(
            f"{consultation_id[:80]!r} cannot be the id of a consultation. Use 1 to {ID_LIMIT} printable characters, "
            "or None."
        )


def _check_owner(record: ConsultationRecord, customer: CustomerProfile) -> None:
    if record.customer_id != customer.customer_id:
        raise UnknownConsultationError(
            f"The customer {customer.customer_id!r} has no consultation {record.id!r}. Use another id, or none."
        )


async def _check_given(
    records: Records, record: ConsultationRecord, customer: CustomerProfile, fingerprint: str
) -> None:
    _check_owner(record, customer)
    if record.streaming:
        raise TurnInProgressError(
            f"Consultation {record.id!r} still streams its last turn. Close or finish that turn before the next."
        )
    if record.transcript_hash == fingerprint:
        return
    # What was said elsewhere before the consultation began is in the fingerprint and not in the records.
    if transcript_hash(await records.transcript(record.id)) != fingerprint:
        raise HistoryMismatch(
            f"The history contradicts the recorded turns of consultation {record.id!r}. Pass the texts exactly as they "
            "were delivered, pass None to use the record, or leave the consultation_id out."
        )


async def recorded_history(
    records: Records, customer: CustomerProfile, consultation_id: str
) -> tuple[HistoryEntry, ...]:
    """Return the recorded conversation of the customer's consultation in the form of a caller's history.

    Raises:
        UnknownConsultationError: when the id belongs to another customer, or cannot be an id.
    """
    _check_id(consultation_id)
    record = await records.consultation(consultation_id)
    if record is not None:
        _check_owner(record, customer)
    return tuple({"role": entry.role, "content": entry.content} for entry in await records.transcript(consultation_id))


def profile_changes(opened: JsonObject, current: JsonObject) -> tuple[str, ...]:
    """Return one line per value that changed since the consultation opened, in the profile's order."""
    names = [*current, *(name for name in opened if name not in current)]
    return tuple(
        f"{name.replace('_', ' ')}: now {_shown(current.get(name))}, was {_shown(opened.get(name))}"
        for name in names
        if _shown(opened.get(name)) != _shown(current.get(name))
    )


def _shown(value: object) -> str:
    if value in (None, [], ""):
        return "not known"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
