"""`guidance-agent stats`: the figures of calls for a person and for a program."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.main import run
from guidance_agent.cli.stats import _as_json, _as_text
from guidance_agent.core.call_report import CallFigures, CallReport

LINE = CallFigures(
    provider="anthropic",
    model="anthropic/claude-haiku-5-5",
    simulated=False,
    calls=1_200,
    completed=1_180,
    failed=12,
    retried=40,
    retried_completed=36,
    refused=3,
    waited=100,
    waited_seconds=50.0,
    longest_wait=4.2,
    first_token_seconds=0.42,
    tokens_per_second=151.6,
    cost_usd=1.5,
    cache_saved_usd=None,
    batch_saved_usd=0.75,
)


def test_a_line_says_each_figure_in_words() -> None:
    assert _as_text(LINE).splitlines() == [
        "anthropic/claude-haiku-5-5",
        "  calls             1,200: 1,180 completed, 12 failed, 8 left early",
        "  streams           first token after 0.42 s on average, then 152 tokens a second",
        "  retries           40 calls were sent again, 90% of them with success",
        "  limits            3 refusals (429), 100 calls queued for 0.50 s on average, 4.20 s at most",
        "  cost              $1.5000",
        "  saved by caching  not known",
        "  saved by batches  $0.7500",
    ]


def test_the_json_keeps_what_is_not_known_as_null() -> None:
    since = datetime(2026, 11, 1, tzinfo=UTC)
    document = json.loads(json.dumps(_as_json(CallReport(since=since, until=None, lines=(LINE,)))))
    assert document["since"] == "2026-11-01T00:00:00+00:00"
    assert document["until"] is None
    [model] = document["models"]
    assert model["cache_saved_usd"] is None
    assert model["retry_success_rate"] == 0.9


def test_no_records_are_told_with_the_next_step_and_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUIDANCE_DATA_DIR", str(tmp_path / "new"))
    assert run(["stats"]) == ExitCode.DONE
    assert "guidance-agent ask" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_a_period_that_is_none_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", "--since", "yesterday"]) == ExitCode.USAGE
    assert "'yesterday' is no point in time" in capsys.readouterr().err
