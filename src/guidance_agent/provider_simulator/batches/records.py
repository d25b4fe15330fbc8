"""Batches and their items in the database."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

from guidance_agent.provider_simulator.batches.files import delete_file
from guidance_agent.provider_simulator.draws import draw
from guidance_agent.provider_simulator.models import Wire

__all__ = [
    "ENDED",
    "NEVER",
    "WAVES",
    "Batch",
    "Item",
    "Outcome",
    "Status",
    "add_batch",
    "batch_named",
    "delete_batch",
    "listed_batches",
    "live_batches",
    "save_batch",
    "wave_of",
]

Status = Literal[
    "receiving", "validating", "in_progress", "finalizing", "cancelling", "completed", "failed", "expired", "cancelled"
]
"""Of both wires; Anthropic shows the last four as `ended`. A batch that is being received cannot be seen yet."""

Outcome = Literal["completed", "failed", "expired", "cancelled", "lost"]
ENDED: frozenset[Status] = frozenset({"completed", "failed", "expired", "cancelled"})
WAVES = 64
"""The requests of a batch are answered in so many waves; those of one wave are under way at once."""
NEVER = 1_000_000
"""The wave of an item that is not reached within the window."""


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch. `starts_at` is when its first wave begins, `duration` how long the waves take together.

    `doomed` is why it fails as a whole, on request; `ending` what finalizing leads to; `read_to` and `lines` how much
    of the input file has been checked; `enqueued` an estimate of its input tokens. The figures after `total` count
    items, tokens and US dollars.
    """

    number: int = 0
    id: str
    wire: Wire
    workspace: str
    status: Status
    created_at: float
    expires_at: float
    duration: float
    endpoint: str = ""
    model: str | None = None
    input_file: int | None = None
    input_name: str = ""
    metadata: str | None = None
    output_life: float | None = None
    doomed: str | None = None
    ending: Status | None = None
    starts_at: float | None = None
    finalizing_at: float | None = None
    ended_at: float | None = None
    cancelling_at: float | None = None
    deleted_at: float | None = None
    read_to: int = 0
    lines: int = 0
    errors: str = "[]"
    enqueued: int = 0
    total: int = 0
    completed: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0
    output_file: int | None = None
    error_file: int | None = None
    uncached: int = 0
    read: int = 0
    written_5m: int = 0
    written_1h: int = 0
    output: int = 0
    reasoning: int = 0
    usd: float = 0.0
    interactive_usd: float = 0.0
    unpriced: int = 0

    @property
    def waiting(self) -> int:
        return self.total - self.completed - self.failed - self.expired - self.cancelled

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    def wave_start(self, wave: int) -> float:
        """When a wave begins; the endless future for items that are never reached."""
        if self.starts_at is None or wave >= NEVER:
            return float("inf")
        return self.starts_at + wave / WAVES * self.duration

    def last_wave_before(self, moment: float) -> int:
        """The last wave that has begun at `moment`; -1 when none has."""
        if self.starts_at is None or moment < self.starts_at:
            return -1
        # Compared with the beginnings themselves: a wave that wakes the clock at its beginning is due then.
        return bisect_right(range(WAVES), moment, key=self.wave_start) - 1


@dataclass(frozen=True, slots=True)
class Item:
    """One request of a batch that waits to be answered."""

    line: int
    wave: int
    custom_id: str
    request: str


_NAMES = [field.name for field in fields(Batch)]
_COLUMNS = ", ".join(_NAMES)
_INSERT = f"INSERT INTO batches ({_COLUMNS}) VALUES (NULL, {', '.join(':' + n for n in _NAMES[1:])})"  # noqa: S608
_UPDATE = f"UPDATE batches SET {', '.join(f'{n} = :{n}' for n in _NAMES[1:])} WHERE number = :number"  # noqa: S608
_SELECT = f"SELECT {_COLUMNS} FROM batches"  # noqa: S608
_UNENDED = ", ".join(f"'{status}'" for status in get_args(Status) if status not in ENDED and status != "receiving")


def wave_of(seed: int, custom_id: str, line: int) -> int:
    """When an item's turn comes. The first line's comes last: no order of results is ever that of the requests."""
    return WAVES - 1 if line == 1 else int(draw(seed, "wave", custom_id) * WAVES)


def add_batch(connection: sqlite3.Connection, batch: Batch) -> Batch:
    batch.number = int(connection.execute(_INSERT, asdict(batch)).lastrowid or 0)
    return batch


def save_batch(connection: sqlite3.Connection, batch: Batch) -> None:
    connection.execute(_UPDATE, asdict(batch))


def _batches(rows: Iterable[sqlite3.Row]) -> list[Batch]:
    return [Batch(**dict(row)) for row in rows]


def live_batches(connection: sqlite3.Connection) -> list[Batch]:
    """The batches of all workspaces that have not ended, oldest first."""
    return _batches(
        connection.execute(f"{_SELECT} WHERE status IN ({_UNENDED}) AND deleted_at IS NULL ORDER BY number")
    )


def batch_named(
    connection: sqlite3.Connection, name: str, *, workspace: str | None = None, wire: Wire | None = None
) -> Batch | None:
    """A batch that can be seen: in a workspace, or in any."""
    found = _batches(
        connection.execute(
            f"{_SELECT} WHERE id = ? AND coalesce(workspace = ?, 1) AND coalesce(wire = ?, 1) "
            "AND status != 'receiving' AND deleted_at IS NULL",
            (name, workspace, wire),
        )
    )
    return found[0] if found else None


def listed_batches(
    connection: sqlite3.Connection,
    *,
    workspace: str | None = None,
    wire: Wire | None = None,
    created_by: float | None = None,
    older_than: int | None = None,
    newer_than: int | None = None,
    limit: int = -1,
) -> list[Batch]:
    """Up to `limit` batches, newest first; with `newer_than`, those next to it."""
    order = "ASC" if newer_than is not None else "DESC"
    rows = connection.execute(
        f"{_SELECT} WHERE coalesce(workspace = ?, 1) AND coalesce(wire = ?, 1) AND coalesce(created_at <= ?, 1) "
        "AND coalesce(number < ?, 1) AND coalesce(number > ?, 1) AND status != 'receiving' AND deleted_at IS NULL "
        f"ORDER BY number {order} LIMIT ?",
        (workspace, wire, created_by, older_than, newer_than, limit),
    )
    found = _batches(rows)
    return found[::-1] if newer_than is not None else found


def delete_batch(connection: sqlite3.Connection, batch: Batch, now: float) -> None:
    """Take a batch and its results away; which custom ids it held stays known."""
    batch.deleted_at = now
    save_batch(connection, batch)
    connection.execute("UPDATE items SET request = NULL WHERE batch = ?", (batch.number,))
    for file in (batch.output_file, batch.error_file):
        if file is not None:
            delete_file(connection, file)
