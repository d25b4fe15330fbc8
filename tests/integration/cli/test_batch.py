"""`guidance-agent batch` and the script that cron starts: what is told, and the exit status that says what to do."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer import TyperException
from typer.testing import CliRunner

from guidance_agent import Settings
from guidance_agent.cli.exit_codes import ExitCode
from guidance_agent.cli.main import app
from guidance_agent.core.clock import SystemClock
from guidance_agent.core.database import Database, database_url
from guidance_agent.core.jobs.lock import JobLock
from guidance_agent.provider_simulator import Fault, ProviderSimulator, SimulatorSettings
from tests.integration.cli.conftest import scrubbed

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "guides" / "nightly-jobs.md"
SCRIPT = ROOT / "scripts" / "batch_jobs.py"

Told = tuple[int, str, str]
Batch = Callable[..., Told]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return scrubbed(tmp_path_factory.mktemp("data"))


@pytest.fixture
def batch(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Batch:
    """Run a command in this process, as `run` would: exit status, standard output, standard error."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run_command(*arguments: str) -> Told:
        result = CliRunner().invoke(app, ["batch", *arguments], standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return int(result.return_value or 0), result.stdout, result.stderr

    return run_command


@pytest.fixture(scope="module")
def answered(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records with an answer that was given and judged, to be audited; returns a copy for a test of its own."""
    ask = [sys.executable, "-m", "guidance_agent.cli.main", "ask", "--persona", "janet", "-q", "Can I take it at 55?"]
    given = environment | {"GUIDANCE_BACKGROUND": "true"}
    subprocess.run(ask, env=given, capture_output=True, check=True, timeout=50)
    return Path(shutil.copytree(environment["GUIDANCE_DATA_DIR"], tmp_path_factory.mktemp("copy") / "data"))


def test_looking_makes_no_records(batch: Batch, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    for command in ("status", "list", "cancel"):
        code, output, _ = batch(command, "--data-dir", str(folder))
        assert (code, output[:20]) == (0, "Nothing is on record")
    for arguments in (("results", "job_x"), ("cancel", "job_x"), ("decide", "batch_x", "--send-again")):
        code, output, errors = batch(*arguments, "--data-dir", str(folder))
        assert (code, output) == (ExitCode.USAGE, "")
        assert arguments[1] in errors
        assert "--data-dir" in errors
    assert not folder.exists()


def test_json_has_its_fields_before_there_are_records(batch: Batch, tmp_path: Path) -> None:
    def asked(command: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(batch(command, "--json", "--data-dir", str(tmp_path / "none"))[1])
        return found

    assert asked("list") == {"jobs": []}
    assert asked("cancel") == {"cancelled": []}
    assert asked("status") == {"running": None, "works": [], "batches": [], "runs": []}


def test_without_anything_to_do_a_run_says_so(batch: Batch, tmp_path: Path) -> None:
    code, output, errors = batch("nightly", "--data-dir", str(tmp_path / "new"))
    assert (code, errors) == (0, "")
    assert "nothing was submitted" in output


@pytest.mark.usefixtures("answered")
def test_a_night_is_reported_listed_and_read(batch: Batch) -> None:
    code, output, errors = batch("nightly", "--wait", "--limit", "5", "--json")
    assert (code, errors) == (0, "")
    report = json.loads(output)
    (audit,) = (work for work in report["works"] if work["name"] == "audit")
    assert audit["opened"] == 1
    assert audit["applied"] >= 1
    assert audit["waiting"] == {}
    assert audit["money"]["saved_share"] >= 0.49
    assert report["money"]["simulated"]

    code, output, _ = batch("status")
    assert code == 0
    assert "nightly    done" in output
    assert "Simulated: nobody paid" in output
    jobs = json.loads(batch("list", "--json")[1])["jobs"]
    assert all(job["state"] == "done" for job in jobs)
    assert jobs[0]["job_key"] in batch("list")[1]
    _, lines, _ = batch("results", jobs[0]["job_key"])
    assert all(json.loads(line)["success"] for line in lines.splitlines())
    assert lines

    assert json.loads(batch("afternoon", "--json")[1])["money"]["cost_usd"] == 0
    assert batch("cancel")[1] == "No job is open.\n"


@pytest.mark.usefixtures("answered")
def test_the_script_works_in_any_folder_and_says_what_is_wrong_with_its_use(
    environment: dict[str, str], tmp_path: Path
) -> None:
    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=50)

    done = script("afternoon", "--json", "--quiet")
    assert (done.returncode, done.stderr, json.loads(done.stdout)["outcome"]) == (0, "", "done")
    wrong = script("evening")
    assert (wrong.returncode, wrong.stdout) == (ExitCode.USAGE, "")
    assert "evening" in wrong.stderr


@pytest.mark.parametrize(
    "arguments", [("nightly", "--limit", "0"), ("decide", "b"), ("decide", "b", "--adopt", "x", "--send-again")]
)
def test_wrong_use_is_told_as_such(batch: Batch, arguments: tuple[str, ...]) -> None:
    with pytest.raises(TyperException) as caught:
        batch(*arguments)
    assert any(option in caught.value.format_message() for option in ("--limit", "--adopt"))


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("arguments", [("results", "nothing"), ("cancel", "nothing"), ("decide", "b", "--send-again")])
def test_a_job_that_is_not_there_is_wrong_use(batch: Batch, arguments: tuple[str, ...]) -> None:
    code, output, errors = batch(*arguments)
    assert (code, output) == (ExitCode.USAGE, "")
    assert errors.startswith("Error: No ")


@pytest.mark.usefixtures("answered")
def test_a_second_run_is_told_to_try_later_and_who_is_at_work(batch: Batch, environment: dict[str, str]) -> None:
    async def take() -> None:
        settings = Settings.load(data_dir=environment["GUIDANCE_DATA_DIR"])
        async with Database(database_url(settings)) as database:
            await JobLock(database, SystemClock(), holder="larder, process 4711").take("run_x")

    async def give_back() -> None:
        settings = Settings.load(data_dir=environment["GUIDANCE_DATA_DIR"])
        async with Database(database_url(settings)) as database:
            await JobLock(database, SystemClock(), holder="").release("run_x")

    asyncio.run(take())
    code, output, errors = batch("afternoon")
    asyncio.run(give_back())
    assert (code, output) == (ExitCode.TRY_LATER, "")
    assert "larder, process 4711" in errors
    assert batch("afternoon")[0] == 0


def test_records_that_are_down_mean_try_later_and_settings_that_cannot_work_wrong_use(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, answered: Path
) -> None:
    monkeypatch.setenv("GUIDANCE_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    code, _, errors = batch("afternoon")
    assert (code, "Traceback" in errors) == (ExitCode.TRY_LATER, False)
    monkeypatch.delenv("GUIDANCE_DATABASE_URL")
    monkeypatch.setenv("GUIDANCE_JUDGE_MODEL", "nobody/knows-this")
    assert batch("afternoon")[0] == ExitCode.USAGE
    monkeypatch.setenv("GUIDANCE_TRANSPORT", "pigeon")
    code, output, errors = batch("afternoon")
    assert (code, output) == (ExitCode.USAGE, "")
    assert "transport" in errors


@pytest.mark.slow
def test_a_run_that_waits_ends_at_sigterm_and_the_next_goes_on(
    environment: dict[str, str], batch: Batch, answered: Path
) -> None:

    async def work() -> tuple[int | None, str]:
        async with ProviderSimulator(SimulatorSettings.instant(seed=3)) as provider:
            provider.faults.add(Fault(kind="slow_batch"))
            given = environment | {
                "GUIDANCE_DATA_DIR": str(answered),
                "OPENAI_API_KEY": "sk-test",
                "OPENAI_BASE_URL": f"{provider.base_url}/v1",
            }
            command = [sys.executable, "-m", "guidance_agent.cli.main"]
            run = await asyncio.create_subprocess_exec(
                *command, "batch", "nightly", "--wait", env=given, stderr=subprocess.PIPE
            )
            assert run.stderr is not None
            async with asyncio.timeout(40):
                line = await run.stderr.readline()
            run.send_signal(signal.SIGTERM)
            return await run.wait(), line.decode()

    code, line = asyncio.run(work())
    assert code == ExitCode.INTERRUPTED
    assert line.startswith("waiting for 1 batches; 0 of 1 items answered")
    found = json.loads(batch("status", "--json", "--data-dir", str(answered))[1])
    assert (found["running"], [run["state"] for run in found["runs"]]) == (None, ["interrupted"])


def blocks(language: str) -> list[str]:
    inside, found = False, []
    for line in GUIDE.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == f"```{language}"
            found += [""] if inside else []
        elif inside:
            found[-1] += f"{line}\n"
    assert found
    return found


def test_the_lines_for_cron_name_times_and_commands_that_exist(batch: Batch) -> None:
    (table,) = blocks("crontab")
    jobs = [line for line in table.splitlines() if not line.split("=")[0].isidentifier()]
    commands = []
    for line in jobs:
        *fields, command = line.split(maxsplit=5)
        Settings.load(jobs={"nightly": " ".join(fields)})
        _, script, *arguments = shlex.split(command)
        assert (ROOT / "scripts" / Path(script).name).exists()
        commands.append(arguments)
    assert [arguments[0] for arguments in commands] == ["nightly", "afternoon"]
    for arguments in commands:
        assert "Usage:" in batch(*arguments, "--help")[1]


def test_the_units_for_systemd_are_valid(tmp_path: Path, batch: Batch) -> None:
    service, timer = blocks("ini")
    (start,) = (line for line in service.splitlines() if line.startswith("ExecStart="))
    _, command, name, *rest = shlex.split(start.partition("=")[2])
    assert (command, name) == ("batch", "%i")
    assert "Usage:" in batch("nightly", *rest, "--help")[1]
    if (analyse := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd is not installed here")
    (calendar,) = (line.partition("=")[2] for line in timer.splitlines() if line.startswith("OnCalendar="))
    subprocess.run([analyse, "calendar", calendar], check=True, capture_output=True)
    (tmp_path / "guidance-batch@.service").write_text(
        service.replace("/srv/guidance/venv/bin/guidance-agent", "/bin/true")
    )
    (tmp_path / "guidance-batch-nightly.timer").write_text(timer)
    verify = [analyse, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / "guidance-batch-nightly.timer")]
    subprocess.run(verify, check=True, capture_output=True, env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:"})


def test_help_names_the_exit_statuses_that_a_schedule_needs(batch: Batch) -> None:
    for command in ((), ("nightly",), ("decide",)):
        help_text = batch(*command, "--help")[1]
        for expected in ("\n    1    something needs a person\n", "\n    75   try later", "\n    130  interrupted\n"):
            assert expected in help_text


def test_settings_of_schedules_are_checked() -> None:
    for wrong, told in (({"nightly": "2 o'clock"}, "no schedule"), ({"time_zone": "Europe/Slough"}, "no time zone")):
        with pytest.raises(Exception, match=told):
            Settings.load(jobs=wrong)
