"""The command line with its records on PostgreSQL, and migrations by hand."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from guidance_agent.cli.exit_codes import ExitCode
from tests.postgres_server import OutsideServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def url(postgres: OutsideServer) -> Iterator[str]:
    with postgres.database() as found:
        yield found


def test_an_operator_migrates_by_hand_and_answers_go_to_the_server(run: Run, url: str, postgres: OutsideServer) -> None:
    by_hand = {"GUIDANCE_DATABASE_URL": url, "GUIDANCE_AUTO_MIGRATE": "false"}
    refused = run("ask", "Can I take it all?", **by_hand)
    assert refused.returncode == ExitCode.STORAGE
    assert "guidance-agent doctor --migrate" in refused.stderr
    assert run("doctor", "--migrate", **by_hand).returncode == ExitCode.DONE
    answered = run("ask", "Can I take it all?", **by_hand)
    assert answered.returncode == ExitCode.DONE
    name = str(sa.make_url(url).database)
    turn, state, delivered = postgres.execute("SELECT id, state, delivered_length FROM turns", database=name)[0]
    assert (state, delivered) == ("completed", len(answered.stdout) - 1)
    text = f"SELECT string_agg(text, '' ORDER BY sequence) FROM turn_events WHERE turn_id = '{turn}'"  # noqa: S608
    assert postgres.execute(text, database=name) == [(answered.stdout[:-1],)]


def test_the_doctor_says_where_the_records_are_and_hides_the_password(run: Run, url: str) -> None:
    shown = sa.make_url(url).set(password="very-secret").render_as_string(hide_password=False)
    result = run("doctor", "--migrate", "--json", GUIDANCE_DATABASE_URL=shown)
    database = next(check for check in json.loads(result.stdout)["checks"] if check["name"] == "Database")
    assert database["status"] == "ok"
    assert str(sa.make_url(url).database) in database["message"]
    assert "very-secret" not in result.stdout + result.stderr


def test_a_server_that_is_not_there_is_one_line_and_an_exit_status(run: Run) -> None:
    result = run("ask", "Can I take it all?", GUIDANCE_DATABASE_URL="postgresql://u:very-secret@127.0.0.1:1/x")
    assert result.returncode == ExitCode.STORAGE
    assert "refused" in result.stderr
    assert "very-secret" not in result.stderr
    assert "Traceback" not in result.stderr
