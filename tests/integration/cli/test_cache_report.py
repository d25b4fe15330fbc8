"""`guidance-agent cache report`, as a process, over records that real turns have filled."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Rows = Callable[[str], list[dict[str, Any]]]

AUTHOR, FAST = "anthropic/claude-sonnet-5-5", "anthropic/claude-haiku-5-5"
DOLLARS_PER_MILLION = {AUTHOR: (2.0, 0.10, 2.50, 4.0), FAST: (0.10, 0.01, 0.125, 0.20)}
"""Input, cache read, 5 m write, 1 h write."""


@pytest.fixture(scope="module")
def asked(run: Run) -> Run:
    """The command line, after two customers have asked."""
    for persona in ("janet", "dev"):
        assert run("ask", "--persona", persona, "-q").returncode == 0
    return run


def report(run: Run, *arguments: str) -> dict[str, Any]:
    result = run("cache", "report", "--json", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def changed_copy(data_dir: Path, folder: Path, statement: str) -> str:
    """Copy the records, change the copy, and return its folder."""
    with sqlite3.connect(data_dir / "guidance.db") as source, sqlite3.connect(folder / "guidance.db") as copy:
        source.backup(copy)
        copy.execute(statement)
    source.close()
    copy.close()
    return str(folder)


def test_no_records_are_told_with_the_next_step_and_not_made(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    result = run("cache", "report", "--data-dir", str(folder))
    assert (result.returncode, result.stderr) == (0, "")
    assert "guidance-agent ask" in result.stdout and str(folder) in result.stdout
    assert report(run, "--data-dir", str(folder)) == {"since": None, "until": None, "sections": []}
    assert not folder.exists()


def test_the_second_customer_reads_what_the_first_one_wrote(asked: Run) -> None:
    (section,) = report(asked, "--by", "part")["sections"]
    assert section["simulated"] is True
    assert section["total"]["outcomes"] == {"first_write": 2, "hit": 2}
    parts = section["by"]["part"]
    assert list(parts) == ["conduct", "requirements", "customer"]
    assert parts["requirements"] == {
        "calls": 4,
        "read": 2,
        "extended": 0,
        "written": 2,
        "uncached": 0,
        "changed": 0,
    }
    assert (parts["customer"]["read"], parts["customer"]["written"]) == (0, 4)


def test_tokens_are_those_of_the_records_and_money_follows_from_the_price_list(asked: Run, rows: Rows) -> None:
    (section,) = report(asked, "--by", "model")["sections"]
    recorded = {
        row["model"]: row
        for row in rows(
            "select model, sum(input_tokens) i, sum(cache_read_tokens) r, sum(cache_write_5m_tokens) s,"
            " sum(cache_write_1h_tokens) l from model_calls group by model"
        )
    }
    lines = section["by"]["model"]
    assert set(lines) == set(recorded) == {AUTHOR, FAST}
    for model, line in lines.items():
        uncached, read, short, long = (recorded[model][column] for column in "irsl")
        tokens = [line[name] for name in ("input_tokens", "read_tokens", "written_5m_tokens", "written_1h_tokens")]
        assert tokens == [uncached, read, short, long]
        assert read > 2_000 and long > 2_000
        price_in, price_read, price_short, price_long = DOLLARS_PER_MILLION[model]
        paid = (uncached * price_in + read * price_read + short * price_short + long * price_long) / 1e6
        plain = (uncached + read + short + long) * price_in / 1e6
        assert line["paid_usd"] == pytest.approx(paid)
        assert line["uncached_usd"] == pytest.approx(plain)
        assert line["saved_usd"] == pytest.approx(plain - paid)
    assert section["total"]["saved_usd"] == pytest.approx(sum(line["saved_usd"] for line in lines.values()))


def test_the_shape_of_the_json_is_kept(asked: Run) -> None:
    found = report(asked, "--since", "2026-01-01", "--until", "2100-01-01T00:00", "--by", "day", "--by", "operation")
    assert (found["since"], found["until"]) == ("2026-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00")
    (section,) = found["sections"]
    assert set(section) == {"simulated", "total", "by"}
    assert list(section["by"]) == ["day", "operation"]
    assert set(section["by"]["operation"]) == {"guidance", "reasoning"}
    assert set(section["total"]) == {
        "calls",
        "hits",
        "input_tokens",
        "read_tokens",
        "written_5m_tokens",
        "written_1h_tokens",
        "total_input_tokens",
        "read_share",
        "without_usage",
        "estimated",
        "without_price",
        "paid_usd",
        "uncached_usd",
        "saved_usd",
        "outcomes",
    }


def test_the_tables_say_that_calls_are_simulated_and_fit_a_file(asked: Run) -> None:
    result = asked("cache", "report")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Nobody paid" in result.stdout and "Real calls" not in result.stdout
    for told in ("requirements", AUTHOR, FAST, "first_write", "read share"):
        assert told in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 140
    assert "\x1b" not in result.stdout


def test_real_and_simulated_calls_are_reported_apart(asked: Run, data_dir: Path, tmp_path: Path) -> None:
    folder = changed_copy(data_dir, tmp_path, "update model_calls set simulated = 0 where operation = 'reasoning'")
    sections = report(asked, "--data-dir", folder, "--by", "model")["sections"]
    assert [(section["simulated"], list(section["by"]["model"])) for section in sections] == [
        (False, [FAST]),
        (True, [AUTHOR]),
    ]
    text = asked("cache", "report", "--data-dir", folder).stdout
    assert text.index("Real calls") < text.index(FAST) < text.index("Nobody paid") < text.index(AUTHOR)


def test_what_is_not_known_is_shown_as_unknown(asked: Run, data_dir: Path, tmp_path: Path) -> None:
    folder = changed_copy(data_dir, tmp_path, "update model_calls set cost_usd = null, usage_estimated = 1")
    (section,) = report(asked, "--data-dir", folder)["sections"]
    total = section["total"]
    assert (total["paid_usd"], total["saved_usd"], total["without_price"], total["estimated"]) == (None, None, 4, 4)
    text = asked("cache", "report", "--data-dir", folder).stdout
    assert "unknown" in text and "$" not in text
    assert "≈" in text and "GUIDANCE_PRICES_FILE" in text


@pytest.mark.parametrize("choice", [("--since", "2100-01-01"), ("--until", "2020-01-01"), ("--model", "nobody/x")])
def test_a_choice_that_fits_nothing_names_what_is_there(asked: Run, choice: tuple[str, str]) -> None:
    result = asked("cache", "report", *choice)
    assert result.returncode == 0
    assert choice[0] in result.stdout and AUTHOR in result.stdout
    assert report(asked, *choice)["sections"] == []


def test_a_moment_that_is_none_is_a_usage_error(asked: Run) -> None:
    result = asked("cache", "report", "--since", "yesterday")
    assert result.returncode == 2
    assert "'yesterday'" in result.stderr and "7d" in result.stderr and "Traceback" not in result.stderr


def test_a_damaged_database_is_a_storage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "guidance.db").write_bytes(b"this is no database" * 100)
    result = run("cache", "report", "--data-dir", str(tmp_path))
    assert result.returncode == 5 and "Traceback" not in result.stderr


def test_without_a_command_the_commands_are_shown(run: Run) -> None:
    result = run("cache")
    assert result.returncode == 0 and "report" in result.stdout
