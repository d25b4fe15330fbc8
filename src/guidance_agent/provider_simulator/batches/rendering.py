"""Files and batches as the two providers show them."""

from __future__ import annotations

import json
import math
import sqlite3
from datetime import UTC, datetime
from typing import Any

from guidance_agent.provider_simulator.batches.files import StoredFile, file_number
from guidance_agent.provider_simulator.batches.records import Batch

__all__ = ["RESULTS_LIFE", "file_object", "message_batch_object", "openai_batch_object"]

RESULTS_LIFE = 29 * 86_400.0
"""Seconds from its creation that the results of a message batch are kept."""


def file_object(file: StoredFile) -> dict[str, Any]:
    return {
        "object": "file",
        "id": file.id,
        "purpose": file.purpose,
        "filename": file.filename,
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": _second(file.expires_at),
        "status": "processed",
        "status_details": None,
    }


def _second(moment: float | None) -> int | None:
    return None if moment is None else math.floor(moment)


def _shown_file(connection: sqlite3.Connection, batch: Batch, number: int | None) -> str | None:
    """The name of a file of results, once the batch has ended."""
    if number is None or not batch.has_ended:
        return None
    file = file_number(connection, number)
    return None if file is None else file.id


def openai_batch_object(connection: sqlite3.Connection, batch: Batch) -> dict[str, Any]:
    """A batch as OpenAI shows it; totals are 0 and the model unknown until the file has been checked."""
    checked = batch.starts_at is not None and batch.status != "failed"
    errors = json.loads(batch.errors)
    ended = {batch.status: _second(batch.ended_at)} if batch.has_ended else {}
    usage_of = batch if batch.has_ended else None
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model if checked else None,
        "errors": {"object": "list", "data": errors} if batch.status == "failed" else None,
        "input_file_id": batch.input_name,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": _shown_file(connection, batch, batch.output_file),
        "error_file_id": _shown_file(connection, batch, batch.error_file),
        "created_at": int(batch.created_at),
        "in_progress_at": _second(batch.starts_at) if checked else None,
        "expires_at": _second(batch.expires_at),
        "finalizing_at": _second(batch.finalizing_at),
        "completed_at": ended.get("completed"),
        "failed_at": ended.get("failed"),
        "expired_at": ended.get("expired"),
        "cancelling_at": _second(batch.cancelling_at),
        "cancelled_at": ended.get("cancelled"),
        "request_counts": {
            "total": batch.total if checked else 0,
            "completed": batch.completed,
            "failed": batch.failed + batch.expired + batch.cancelled,
        },
        "usage": {
            "input_tokens": 0 if usage_of is None else batch.uncached + batch.read + batch.written_5m,
            "input_tokens_details": {"cached_tokens": 0 if usage_of is None else batch.read},
            "output_tokens": 0 if usage_of is None else batch.output,
            "output_tokens_details": {"reasoning_tokens": 0 if usage_of is None else batch.reasoning},
            "total_tokens": (0 if usage_of is None else batch.uncached + batch.read + batch.written_5m + batch.output),
        },
        "metadata": None if batch.metadata is None else json.loads(batch.metadata),
    }


def _moment(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")


def message_batch_object(batch: Batch, base_url: str, now: float) -> dict[str, Any]:
    """A batch as Anthropic shows it: everything counts as processing until all of it has ended."""
    ended = batch.has_ended
    archived_at = batch.created_at + RESULTS_LIFE
    archived = ended and now >= archived_at
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if ended else "canceling" if batch.status == "cancelling" else "in_progress",
        "request_counts": {
            "processing": 0 if ended else batch.total,
            "succeeded": batch.completed if ended else 0,
            "errored": batch.failed if ended else 0,
            "canceled": batch.cancelled if ended else 0,
            "expired": batch.expired if ended else 0,
        },
        "ended_at": _moment(batch.ended_at),
        "created_at": _moment(batch.created_at),
        "expires_at": _moment(batch.expires_at),
        "archived_at": _moment(archived_at) if archived else None,
        "cancel_initiated_at": _moment(batch.cancelling_at),
        "results_url": f"{base_url}/v1/messages/batches/{batch.id}/results" if ended and not archived else None,
    }
