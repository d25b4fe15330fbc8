"""Reads an OpenAI batch's input file line by line, and fails the batch for what is wrong in it."""

from __future__ import annotations

import json
import sqlite3
import time

from guidance_agent.provider_simulator.batches.files import StoredFile, file_number, read_lines
from guidance_agent.provider_simulator.batches.input_file import (
    MOST_BYTES,
    MOST_REQUESTS,
    check_line,
    file_error,
    line_error,
)
from guidance_agent.provider_simulator.batches.records import Batch, live_batches, wave_of
from guidance_agent.provider_simulator.settings import SimulatorSettings

__all__ = ["validate_some"]

_MOST_ERRORS = 100
_BYTES_PER_TOKEN = 4


def validate_some(connection: sqlite3.Connection, batch: Batch, settings: SimulatorSettings, deadline: float) -> bool:
    """Check lines until time is up; returns whether the whole file has been checked.

    How far it came is kept with the batch: another process may go on.
    """
    errors = json.loads(batch.errors)
    file = None if batch.input_file is None else file_number(connection, batch.input_file)
    finished = True
    if batch.doomed is not None:
        errors.append(file_error("invalid_request", batch.doomed or "The batch could not be validated."))
    elif file is None:
        errors.append(file_error("invalid_request", "The input file of the batch is not there any more."))
    elif file.bytes > (settings.batch_most_bytes or MOST_BYTES):
        errors.append(_too_large(file, settings.batch_most_bytes or MOST_BYTES))
    else:
        finished = _check_lines(connection, batch, file, errors, settings, deadline)
        if finished:
            errors.extend(_of_the_whole(connection, batch, file, settings, bool(errors)))
    batch.errors = json.dumps(errors)
    return finished


def _too_large(file: StoredFile, most: int) -> dict[str, object]:
    # The provider's words are known, its code for them is not.
    return file_error(
        None, f"The batch input file is larger than the {most} maximum. Please try again with a smaller batch."
    )


def _check_lines(
    connection: sqlite3.Connection,
    batch: Batch,
    file: StoredFile,
    errors: list[dict[str, object]],
    settings: SimulatorSettings,
    deadline: float,
) -> bool:
    most = settings.batch_most_requests or MOST_REQUESTS
    for raw, reached in read_lines(connection, file.number, batch.read_to):
        batch.read_to = reached
        batch.lines += 1
        if batch.lines > most:
            message = f"The batch input file has more requests than the maximum of {most} per batch."
            errors.append(file_error("too_many_tasks", message))
            return True
        checked = check_line(raw, batch.lines, endpoint=batch.endpoint, model=batch.model, settings=settings)
        errors.extend(checked.errors)
        if not checked.errors:
            batch.model = batch.model or checked.model
            _keep(connection, batch, checked.custom_id, raw, errors, settings)
        if len(errors) >= _MOST_ERRORS:
            return True
        if time.perf_counter() > deadline:
            return batch.read_to >= file.bytes
    return True


def _keep(
    connection: sqlite3.Connection,
    batch: Batch,
    custom_id: str,
    raw: bytes,
    errors: list[dict[str, object]],
    settings: SimulatorSettings,
) -> None:
    wave = wave_of(settings.seed, custom_id, batch.lines)
    kept = connection.execute(
        "INSERT OR IGNORE INTO items (batch, line, wave, custom_id, request) VALUES (?, ?, ?, ?, ?)",
        (batch.number, batch.lines, wave, custom_id, raw.decode("utf-8", "replace")),
    )
    if kept.rowcount == 0:
        message = (
            f"The custom_id '{custom_id}' for this request is a duplicate of another request. The custom_id parameter "
            "must be unique for each request in a batch."
        )
        errors.append(line_error("duplicate_custom_id", message, batch.lines, "custom_id"))
    else:
        batch.total += 1


def _of_the_whole(
    connection: sqlite3.Connection, batch: Batch, file: StoredFile, settings: SimulatorSettings, failed: bool
) -> list[dict[str, object]]:
    if failed:
        return []
    if batch.total == 0:
        message = "The input file is empty. Please ensure that the batch contains at least one request."
        return [file_error("empty_file", message)]
    batch.enqueued = file.bytes // _BYTES_PER_TOKEN
    limit = settings.batch_enqueued_tokens
    others = sum(
        other.enqueued
        for other in live_batches(connection)
        if other.number != batch.number and other.workspace == batch.workspace and other.model == batch.model
    )
    if limit is None or others + batch.enqueued <= limit:
        return []
    message = (
        f"Enqueued token limit reached for {batch.model} in organization org-simulated. Limit: {limit:,} enqueued "
        "tokens. Please try again once some in_progress batches have been completed."
    )
    return [file_error("token_limit_exceeded", message)]
