"""What a test asks about batches under `/_simulator/`: what was accepted, how often, and what all of it would cost."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from functools import partial
from typing import Any

from aiohttp import web

from guidance_agent.provider_simulator.batches.records import Batch, listed_batches
from guidance_agent.provider_simulator.batches.removal import remove_named
from guidance_agent.provider_simulator.state import STATE

__all__ = ["routes"]

_MOST_REPEATED = 1_000
_HIDDEN = ("number", "doomed", "errors", "read_to", "lines", "input_file", "output_file", "error_file", "output_life")


def _shown(batch: Batch) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(batch).items() if name not in _HIDDEN}
    return {**fields, "saved_usd": batch.interactive_usd - batch.usd}


async def _batches(request: web.Request) -> web.Response:
    found = await request.app[STATE].batches.read(listed_batches)
    return web.json_response({"batches": [_shown(batch) for batch in found]})


async def _remove(request: web.Request) -> web.Response:
    state = request.app[STATE]
    name = request.match_info["name"]
    removed = await state.batches.write(partial(remove_named, name=name, now=state.clock.now()))
    return web.json_response({"removed": removed}, status=200 if removed else 404)


def _seen_once(connection: sqlite3.Connection, custom_id: str) -> dict[str, Any]:
    rows = connection.execute(
        "SELECT batches.id, items.outcome FROM items JOIN batches ON batches.number = items.batch "
        "WHERE items.custom_id = ? AND batches.status != 'receiving' ORDER BY batches.number",
        (custom_id,),
    ).fetchall()
    return {
        "custom_id": custom_id,
        "count": len(rows),
        "batches": [{"id": row["id"], "outcome": row["outcome"]} for row in rows],
    }


def _seen(connection: sqlite3.Connection) -> dict[str, Any]:
    accepted = "FROM items JOIN batches ON batches.number = items.batch WHERE batches.status != 'receiving'"
    total, distinct = connection.execute(f"SELECT count(*), count(DISTINCT custom_id) {accepted}").fetchone()
    repeated = connection.execute(
        f"SELECT custom_id, count(*) AS times {accepted} GROUP BY custom_id HAVING times > 1 "
        "ORDER BY times DESC, custom_id LIMIT ?",
        (_MOST_REPEATED,),
    )
    return {"requests": total, "distinct": distinct, "repeated": {row[0]: row[1] for row in repeated}}


async def _seen_ids(request: web.Request) -> web.Response:
    custom_id = request.query.get("custom_id")
    job = _seen if custom_id is None else partial(_seen_once, custom_id=custom_id)
    return web.json_response(await request.app[STATE].batches.read(job))


def _batch_costs(connection: sqlite3.Connection) -> dict[str, Any]:
    row = connection.execute(
        "SELECT count(*) AS batches, total(completed) AS answered, total(uncached) AS uncached, total(read) AS read, "
        "total(written_5m) AS written_5m, total(written_1h) AS written_1h, total(output) AS output, total(usd) AS usd, "
        "total(interactive_usd) AS interactive_usd, total(unpriced) AS unpriced "
        "FROM batches WHERE status != 'receiving'"
    ).fetchone()
    money = {"usd", "interactive_usd"}
    return {name: row[name] if name in money else int(row[name]) for name in row.keys()}  # noqa: SIM118


async def _costs(request: web.Request) -> web.Response:
    state = request.app[STATE]
    batch = await state.batches.read(_batch_costs)
    return web.json_response(
        {
            "interactive": state.ledger.as_json(),
            "interactive_usd": state.ledger.usd,
            "batch": {**batch, "saved_usd": batch["interactive_usd"] - batch["usd"]},
            "usd": state.ledger.usd + batch["usd"],
        }
    )


routes = (
    web.get("/_simulator/batches", _batches),
    web.delete("/_simulator/batches/{name}", _remove),
    web.delete("/_simulator/files/{name}", _remove),
    web.get("/_simulator/seen", _seen_ids),
    web.get("/_simulator/costs", _costs),
)
