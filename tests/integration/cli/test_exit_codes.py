"""A user's mistake ends in one message that names it, a meaningful exit status, and no stack trace."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def check(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.count("Error: ") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "words"),
    [
        (["ask", ""], {}, 2, ["empty"]),
        (["ask", "--nonsense"], {}, 2, ["--nonsense", "guidance-agent ask --help"]),
        (["ask", "--persona", "jannet"], {}, 2, ["'jannet'", "'janet'"]),
        (["ask", "--customer", "/no/such.json"], {}, 2, ["/no/such.json"]),
        (["ask"], {"GUIDANCE_TRANSPORT": "pigeon"}, 3, ["transport"]),
        (["ask", "--model", "sonet-9"], {}, 3, ["'sonet-9'"]),
        (["ask", "--model", "openai/gpt-6-luna"], {}, 3, ["OPENAI_API_KEY"]),
        (
            ["ask", "-q"],
            {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "GUIDANCE_RETRY__MAX_ATTEMPTS": "1"},
            4,
            ["127.0.0.1:9"],
        ),
    ],
)
def test_a_mistake_is_told_in_one_message(
    run: Run, arguments: list[str], environment: dict[str, str], status: int, words: list[str]
) -> None:
    check(run(*arguments, **environment), status, *words)


def test_a_binary_customer_file_is_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "customer.json"
    file.write_bytes(b"\x89PNG\r\n\x1a\n\xff")
    check(run("ask", "--customer", str(file)), 2, str(file), "UTF-8")


def test_a_wrong_field_of_a_customer_file_is_named(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "customer.json"
    file.write_text('{"customer_id": "c1", "age": "old"}')
    check(run("ask", "--customer", str(file)), 2, str(file), "age")


def test_records_that_cannot_be_written_are_a_storage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    check(run("ask", GUIDANCE_DATABASE_URL=f"sqlite:///{tmp_path}/file/guidance.db"), 5, str(tmp_path))


def test_records_of_a_newer_version_are_left_alone(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "guidance.db"
    connection = sqlite3.connect(file)
    connection.execute("create table alembic_version (version_num varchar(32) not null)")
    connection.execute("insert into alembic_version values ('9999')")
    connection.commit()
    connection.close()
    check(run("ask", GUIDANCE_DATABASE_URL=f"sqlite:///{file}"), 5, "'9999'")
