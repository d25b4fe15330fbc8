"""Moves batches on, as far as the clock has come.

What becomes of an item follows from the moment at which its wave begins, not from when this program gets round to it: a
batch that nobody worked off while no simulator ran is worked off afterwards as if one had.

    OpenAI     validating -> failed | in_progress -> finalizing -> completed | expired
    Anthropic  in_progress -> completed | expired                (both shown as `ended`)
    both       ... -> cancelling -> cancelled
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from typing import assert_never

from guidance_agent.provider_simulator.batches.files import append_bytes, new_file, publish_file
from guidance_agent.provider_simulator.batches.item_answers import ItemAnswer, ItemAnswers, unanswered_row
from guidance_agent.provider_simulator.batches.prefixes import forget_expired
from guidance_agent.provider_simulator.batches.records import (
    NEVER,
    WAVES,
    Batch,
    Item,
    Outcome,
    Status,
    live_batches,
    save_batch,
)
from guidance_agent.provider_simulator.batches.validation import validate_some
from guidance_agent.provider_simulator.faults import seeded
from guidance_agent.provider_simulator.settings import SimulatorSettings

__all__ = ["Progress"]

_SLICE = 0.03
_AT_ONCE = 32
_ROWS_AT_ONCE = 2_000
_NEVER = float("inf")
_CANCELLING_SHARE = 1 / 16
_FINALIZING_SHARE = 1 / 32


class Progress:
    """Does what is due, a slice at a time."""

    def __init__(self, settings: SimulatorSettings, answers: ItemAnswers) -> None:
        self._settings = settings
        self._answers = answers

    def advance(self, connection: sqlite3.Connection, now: float) -> float:
        """Work for a few hundredths of a second; returns when there is more to do, a moment in the past for at once."""
        batches = live_batches(connection)
        share = _SLICE / max(1, len(batches))
        return min((self._advance(connection, batch, now, share) for batch in batches), default=_NEVER)

    def _advance(self, connection: sqlite3.Connection, batch: Batch, now: float, share: float) -> float:
        deadline = time.perf_counter() + share
        found = replace(batch)
        moment = now
        while not batch.has_ended:
            before = batch.status
            moment = self._step(connection, batch, now, deadline)
            if batch.status == before:
                break
        if batch != found:
            save_batch(connection, batch)
        return _NEVER if batch.has_ended else moment

    def _step(self, connection: sqlite3.Connection, batch: Batch, now: float, deadline: float) -> float:
        match batch.status:
            case "validating":
                return self._validate(connection, batch, now, deadline)
            case "in_progress" | "cancelling":
                return self._answer(connection, batch, now, deadline)
            case "finalizing":
                return self._finish(connection, batch, now)
            case "receiving" | "completed" | "failed" | "expired" | "cancelled":
                return _NEVER
            case _:
                assert_never(batch.status)

    def _validate(self, connection: sqlite3.Connection, batch: Batch, now: float, deadline: float) -> float:
        begins = batch.created_at + batch.duration * _FINALIZING_SHARE
        if now < begins:
            return begins
        if validate_some(connection, batch, self._settings, deadline):
            batch.starts_at = begins
            batch.status = "in_progress" if batch.errors == "[]" else "failed"
            if batch.status == "failed":
                batch.ended_at = begins
                connection.execute("DELETE FROM items WHERE batch = ?", (batch.number,))
                batch.total = 0
        return now

    def _answer(self, connection: sqlite3.Connection, batch: Batch, now: float, deadline: float) -> float:
        horizon = min(now, batch.expires_at, batch.cancelling_at or _NEVER)
        next_wave = self._work(connection, batch, batch.last_wave_before(horizon), deadline)
        if next_wave is None:
            return now
        if batch.status == "cancelling" and batch.cancelling_at is not None:
            stops = batch.cancelling_at + self._settings.batch_takes * _CANCELLING_SHARE
            if now < stops:
                return stops
            self._give_up_rest(connection, batch, "cancelled")
            self._end(connection, batch, "cancelled", stops)
        elif batch.waiting == 0:
            self._all_reached(connection, batch, "completed", batch.wave_start(self._last_wave(connection, batch)))
        elif now >= batch.expires_at:
            self._give_up_rest(connection, batch, "expired")
            self._all_reached(connection, batch, "expired", batch.expires_at)
        else:
            return min(batch.wave_start(next_wave), batch.expires_at)
        return now

    def _last_wave(self, connection: sqlite3.Connection, batch: Batch) -> int:
        row = connection.execute(
            "SELECT max(wave) FROM items WHERE batch = ? AND wave < ?", (batch.number, WAVES)
        ).fetchone()
        return int(row[0] or 0)

    def _all_reached(self, connection: sqlite3.Connection, batch: Batch, ending: Status, moment: float) -> None:
        if batch.wire == "anthropic":
            self._end(connection, batch, ending, moment)
        else:
            batch.status, batch.ending, batch.finalizing_at = "finalizing", ending, moment

    def _finish(self, connection: sqlite3.Connection, batch: Batch, now: float) -> float:
        done = (batch.finalizing_at or now) + batch.duration * _FINALIZING_SHARE
        if batch.ending == "expired" or self._settings.batch_takes == 0:
            done = batch.finalizing_at or now
        if now < done:
            return done
        self._end(connection, batch, batch.ending or "completed", done)
        return now

    def _end(self, connection: sqlite3.Connection, batch: Batch, status: Status, moment: float) -> None:
        batch.status, batch.ended_at = status, moment
        if batch.wire == "openai":
            life = 30 * 86_400.0 if batch.output_life is None else batch.output_life
            for file in (batch.output_file, batch.error_file):
                if file is not None:
                    publish_file(connection, file, now=moment, life=life)
        forget_expired(connection, moment)

    def _work(self, connection: sqlite3.Connection, batch: Batch, last_wave: int, deadline: float) -> int | None:
        """Answer what is due up to a wave; returns the wave of the next item, None when time was up before."""
        while True:
            rows = connection.execute(
                "SELECT line, wave, custom_id, request FROM items WHERE batch = ? AND outcome IS NULL "
                "ORDER BY wave, line DESC LIMIT ?",
                (batch.number, _AT_ONCE),
            ).fetchall()
            due = [Item(*row) for row in rows if row["wave"] <= last_wave]
            if not due:
                return rows[0]["wave"] if rows else NEVER
            if self._answer_some(connection, batch, due, deadline) or time.perf_counter() > deadline:
                return None

    def _answer_some(self, connection: sqlite3.Connection, batch: Batch, due: list[Item], deadline: float) -> bool:
        """Answer items until time is up; returns whether it was up before the last."""
        good, bad = bytearray(), bytearray()
        answered = 0
        for item in due:
            answer = self._answers.answer(connection, batch, item)
            answered += 1
            if answer.outcome is None:
                connection.execute(
                    "UPDATE items SET wave = ? WHERE batch = ? AND line = ?", (NEVER, batch.number, item.line)
                )
            else:
                _book(batch, answer)
                connection.execute(
                    "UPDATE items SET outcome = ?, request = NULL WHERE batch = ? AND line = ?",
                    (answer.outcome, batch.number, item.line),
                )
                # Anthropic has one file for both kinds.
                (bad if answer.outcome == "failed" and batch.wire == "openai" else good).extend(answer.row)
            if time.perf_counter() > deadline:
                break
        _add_rows(connection, batch, bytes(good), bytes(bad))
        return answered < len(due)

    def _give_up_rest(self, connection: sqlite3.Connection, batch: Batch, outcome: Outcome) -> None:
        """Give every item that waits the row that says why it was not answered."""
        rng = seeded(self._settings.seed, outcome, batch.id)
        last = -1
        while rows := connection.execute(
            "SELECT line, custom_id FROM items WHERE batch = ? AND outcome IS NULL AND line > ? ORDER BY line LIMIT ?",
            (batch.number, last, _ROWS_AT_ONCE),
        ).fetchall():
            last = rows[-1]["line"]
            told = b"".join(unanswered_row(batch, row["custom_id"], outcome, rng) for row in reversed(rows))
            _add_rows(connection, batch, *((told, b"") if batch.wire == "anthropic" else (b"", told)))
            if outcome == "expired":
                batch.expired += len(rows)
            else:
                batch.cancelled += len(rows)
        connection.execute(
            "UPDATE items SET outcome = ?, request = NULL WHERE batch = ? AND outcome IS NULL", (outcome, batch.number)
        )


def _book(batch: Batch, answer: ItemAnswer) -> None:
    batch.failed += answer.outcome == "failed"
    batch.completed += answer.outcome != "failed"
    if answer.use is None:
        return
    batch.uncached += answer.use.uncached
    batch.read += answer.use.read
    batch.written_5m += answer.use.written_5m
    batch.written_1h += answer.use.written_1h
    batch.output += answer.output
    batch.reasoning += answer.reasoning
    batch.usd += answer.batch_usd or 0.0
    batch.interactive_usd += answer.usd or 0.0
    batch.unpriced += answer.usd is None


def _add_rows(connection: sqlite3.Connection, batch: Batch, good: bytes, bad: bytes) -> None:
    """Add rows to the files of results, which nobody sees before the end."""
    if good and batch.output_file is None:
        batch.output_file = _results_file(connection, batch, "output")
    if bad and batch.error_file is None:
        batch.error_file = _results_file(connection, batch, "error")
    if good and batch.output_file is not None:
        append_bytes(connection, batch.output_file, good)
    if bad and batch.error_file is not None:
        append_bytes(connection, batch.error_file, bad)


def _results_file(connection: sqlite3.Connection, batch: Batch, kind: str) -> int:
    return new_file(
        connection,
        workspace=batch.workspace,
        purpose="batch_output",
        filename=f"{batch.id}_{kind}.jsonl",
        now=batch.created_at,
        life=None,
    )
