"""Every error of the package has an exit status, and every command a clean help text."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from guidance_agent import errors
from guidance_agent.cli.exit_codes import ExitCode, exit_code_of
from guidance_agent.cli.main import app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NoQuestionError("x"), ExitCode.USAGE),
        (errors.MissingKeyError("x"), ExitCode.CONFIGURATION),
        (errors.KnowledgeError("x"), ExitCode.CONFIGURATION),
        (errors.RateLimitedError("x"), ExitCode.MODEL),
        (errors.SchemaVersionError("x"), ExitCode.STORAGE),
        (errors.LeaseLostError("x"), ExitCode.STORAGE),
        (errors.FileWriteError("x"), ExitCode.STORAGE),
        (errors.PhoenixNotInstalledError("x"), ExitCode.USAGE),
        (errors.PhoenixError("x"), ExitCode.CONFIGURATION),
        (errors.GuidanceAgentError("x"), ExitCode.DEFECT),
    ],
)
def test_an_error_ends_with_its_exit_status(error: errors.GuidanceAgentError, code: ExitCode) -> None:
    assert exit_code_of(error) is code


@pytest.mark.parametrize(
    "command",
    [
        ["audit", "run", "--limit"],
        ["batch", "nightly", "--limit"],
        ["batch", "list", "--limit"],
        ["batch", "status", "--runs"],
        ["review", "list", "--limit"],
        ["rules", "learn", "--limit"],
    ],
)
def test_a_number_that_no_database_counts_to_is_refused(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GUIDANCE_DATA_DIR", str(tmp_path))
    result = CliRunner().invoke(app, [*command, str(2**63)])
    assert result.exit_code == ExitCode.USAGE
    assert "1000000" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command", [[], ["ask"], ["chat"], ["simulator"], ["phoenix"], ["phoenix", "install"], ["doctor"]]
)
def test_help_shows_options_examples_and_exit_statuses(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    for expected in ("Usage: ", "Options:", "  Examples:\n    guidance-agent ", "  Exit status:\n    0    done\n"):
        assert expected in result.output
    assert not {line for line in result.output.splitlines() if "\b" in line}
