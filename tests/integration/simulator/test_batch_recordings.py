"""The simulator's batches beside recorded ones: all fields that were recorded are there, the states come in order."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.integration.simulator.batching import BatchClient, lines, requests

OPENAI = "scenarios/curator_openai_basic_batch_completion.json"
ANTHROPIC = "scenarios/curator_anthropic_failed_request_batch_resume.json"


def steps(recordings: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((recordings / name).read_text())["steps"]
    return found


def bodies(recorded: list[dict[str, Any]], path: str) -> list[Any]:
    found = [step["body"] for step in recorded if path in step["path"]]
    return [json.loads(body) if isinstance(body, str) else body for body in found if "custom_id" not in str(body)[:200]]


def fields(value: Any, where: str = "") -> set[str]:
    """The paths of all fields in an object."""
    if isinstance(value, list):
        return {path for item in value for path in fields(item, where)}
    if not isinstance(value, dict):
        return set()
    return {f"{where}{key}" for key in value} | {
        path for key, item in value.items() if key != "metadata" for path in fields(item, f"{where}{key}.")
    }


def results(recorded: list[dict[str, Any]], suffix: str) -> list[dict[str, Any]]:
    (step,) = [step for step in recorded if step["path"].endswith(suffix)]
    return [json.loads(row) for row in step["body"].splitlines() if row.endswith("}")]


async def test_openai_objects_have_the_recorded_fields(batches: BatchClient, recordings: Path) -> None:
    recorded = steps(recordings, OPENAI)
    batch = await batches.submit(lines(3), metadata={"request_file": "x"})
    ended = await batches.until(batch)
    file = await batches.upload(lines(1))
    files = [body for body in bodies(recorded, "/v1/files") if body.get("object") == "file"]
    assert all(fields(body) <= fields(file) for body in files)
    assert all(fields(body) <= fields(ended) for body in bodies(recorded, "/v1/batches"))
    rows = await batches.rows(ended)
    assert all(fields(row) <= fields(rows) for row in results(recorded, "/content"))


async def test_openai_states_come_in_the_recorded_order(
    timed_batches: BatchClient, manual_clock: Any, recordings: Path
) -> None:
    recorded = [body["status"] for body in bodies(steps(recordings, OPENAI), "/v1/batches")]
    batch = await timed_batches.submit(lines(3))
    seen = [batch["status"]]
    for _ in range(70):
        manual_clock.advance(10)
        seen.append((await timed_batches.look(batch))["status"])
    assert [state for state, _ in groupby(seen)] == [state for state, _ in groupby(recorded)]


async def test_anthropic_objects_have_the_recorded_fields(batches: BatchClient, recordings: Path) -> None:
    recorded = steps(recordings, ANTHROPIC)
    ended = await batches.until(await batches.submit_messages(requests(2)))
    assert {frozenset(fields(body)) for body in bodies(recorded, "/v1/messages/batches")} == {frozenset(fields(ended))}
    rows = await batches.rows(ended)
    assert all(fields(row) <= fields(rows) for row in results(recorded, "/results"))


@pytest.mark.parametrize("name", [OPENAI, ANTHROPIC])
async def test_times_are_written_as_recorded(batches: BatchClient, recordings: Path, name: str) -> None:
    ours = await batches.until(
        await (batches.submit(lines(1)) if name == OPENAI else batches.submit_messages(requests(1)))
    )
    theirs = next(body for body in bodies(steps(recordings, name), "batches") if body["created_at"])
    assert type(ours["created_at"]) is type(theirs["created_at"])
    if isinstance(theirs["created_at"], str):
        assert len(ours["created_at"]) == len(theirs["created_at"])
        assert ours["created_at"][-6:] == theirs["created_at"][-6:]
