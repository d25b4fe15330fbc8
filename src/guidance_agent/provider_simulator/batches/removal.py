"""Takes files and batches away behind their owner's back."""

from __future__ import annotations

import sqlite3

from guidance_agent.provider_simulator.batches.files import delete_file
from guidance_agent.provider_simulator.batches.records import batch_named, delete_batch

__all__ = ["remove_named"]


def remove_named(connection: sqlite3.Connection, name: str, now: float) -> bool:
    """Remove the file or batch of this name, whoever owns it; returns whether there was one."""
    batch = batch_named(connection, name)
    if batch is not None:
        delete_batch(connection, batch, now)
        return True
    row = connection.execute("SELECT number FROM files WHERE id = ? AND ready", (name,)).fetchone()
    if row is not None:
        delete_file(connection, row["number"])
    return row is not None
