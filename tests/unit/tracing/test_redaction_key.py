"""One key for an installation, made once; the same short code for the same customer."""

from __future__ import annotations

import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from guidance_agent.errors import ConfigurationError
from guidance_agent.tracing.redaction import Redactor
from guidance_agent.tracing.redaction_key import KEY_FILE, load_key, pseudonym

KEY = b"0123456789abcdef"
ASK = (
    "import sys; from pathlib import Path; from guidance_agent.tracing.redaction_key import load_key; "
    "sys.stdin.readline(); print(load_key(Path(sys.argv[1])).hex())"
)


def test_a_customer_has_one_short_code_that_depends_on_the_key() -> None:
    code = pseudonym("janet-56", KEY)
    assert code == pseudonym("janet-56", KEY)
    assert len(code) == 17 and code[0] == "c" and int(code, 16)
    assert code != pseudonym("janet-57", KEY)
    assert code != pseudonym("janet-56", b"another key of 16")
    assert "janet" not in code


def test_no_code_is_taken_for_personal_data() -> None:
    redactor = Redactor()
    codes = [pseudonym(f"customer-{number}", KEY) for number in range(2_000)]
    assert [code for code in codes if redactor.redact(code) != code] == []


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    key = load_key(folder)
    assert len(key) == 32 and load_key(folder) == key
    assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [KEY_FILE]


def test_processes_that_begin_together_have_one_key(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(tmp_path / "data")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("now\n")
        process.stdin.flush()
    keys = {process.communicate(timeout=50)[0] for process in processes}
    assert len(keys) == 1 and len(keys.pop().strip()) == 64


def test_without_a_folder_to_write_in_the_key_is_of_this_process_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert len(load_key(tmp_path / "file" / "data")) == 32
    assert "Customers' codes in traces are of this process alone" in caplog.text


def test_a_configured_key_is_used_and_a_short_one_refused(tmp_path: Path) -> None:
    assert load_key(tmp_path, "sixteen letters!") == b"sixteen letters!"
    assert not (tmp_path / KEY_FILE).exists()
    with pytest.raises(ConfigurationError, match="needs at least 16"):
        load_key(tmp_path, "short")


def test_a_key_file_without_a_key_is_named(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("nothing")
    with pytest.raises(ConfigurationError, match="holds no key"):
        load_key(tmp_path)


def test_a_key_file_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    key = load_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    assert load_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
