"""Making the server's environment, with a tiny package in place of Phoenix: whole or not there."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import zipfile
from pathlib import Path

import pytest

from guidance_agent.errors import PhoenixError
from guidance_agent.phoenix import environment as environment_module
from guidance_agent.phoenix.environment import Environment, PinnedList, install_phoenix, pinned_list
from guidance_agent.phoenix.launch import PhoenixServer
from guidance_agent.phoenix.ports import choose_ports
from tests.fake_phoenix import fake_environment

pytestmark = pytest.mark.timeout(300)


def wheel(folder: Path, version: str) -> Path:
    """Make a wheel of a package that is called like Phoenix and holds one line."""
    path = folder / f"arize_phoenix-{version}-py3-none-any.whl"
    about = f"arize_phoenix-{version}.dist-info"
    contents = {
        "tiny_phoenix.py": "VALUE = 1\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: arize-phoenix\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {
        name: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        for name, text in contents.items()
    }
    record = "".join(f"{name},sha256={hashes[name]},{len(text.encode())}\n" for name, text in contents.items())
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, text)
        archive.writestr(f"{about}/RECORD", f"{record}{about}/RECORD,,\n")
    return path


def listing(folder: Path, version: str, *, digest: str | None = None) -> PinnedList:
    made = wheel(folder, version)
    path = folder / f"list-{version}-{digest}.txt"
    path.write_text(
        f"arize-phoenix=={version} \\\n    --hash=sha256:{digest or hashlib.sha256(made.read_bytes()).hexdigest()}\n"
    )
    return PinnedList(path)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip may look in."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def nobody(line: str) -> None:
    """Take a line about the progress, and forget it."""


def test_an_installation_is_made_once_and_replaced_when_its_list_changes(index: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = listing(index, "1.0")
    left = Environment(data, first).folder
    (left / "lib").mkdir(parents=True)
    (left / "lib" / "half.py").write_text("what a killed installation left")
    assert not Environment(data, first).state().ready

    told: list[str] = []
    assert install_phoenix(data, pinned=first, tell=told.append)
    assert Environment(data, first).state().ready
    assert not (left / "lib" / "half.py").exists()
    assert any("Fetched all 1 packages" in line for line in told)
    assert list(left.rglob("tiny_phoenix.py"))
    assert not install_phoenix(data, pinned=first, tell=pytest.fail)

    second = listing(index, "2.0")
    assert Environment(data, second).state().other_version == "1.0"
    assert install_phoenix(data, pinned=second, tell=nobody)
    assert Environment(data, second).state().ready
    assert not left.exists()


@pytest.mark.parametrize("fault", ["wrong_hash", "interrupted"])
def test_an_installation_that_does_not_end_leaves_nothing_that_looks_done(
    index: Path, tmp_path: Path, fault: str
) -> None:
    data = tmp_path / "data"
    pinned = listing(index, "1.0", digest="0" * 64 if fault == "wrong_hash" else None)

    def interrupt(line: str) -> None:
        if fault == "interrupted" and line.startswith("Fetched all"):
            raise KeyboardInterrupt

    expected = KeyboardInterrupt if fault == "interrupted" else PhoenixError
    with pytest.raises(expected) as caught:
        install_phoenix(data, pinned=pinned, tell=interrupt)
    assert fault != "wrong_hash" or "THESE PACKAGES DO NOT MATCH THE HASHES" in str(caught.value)
    assert not Environment(data, pinned).state().ready
    assert not Environment(data, pinned).folder.exists()


def test_a_stamp_of_another_list_or_a_missing_interpreter_is_no_installation(tmp_path: Path) -> None:
    environment = fake_environment(tmp_path)
    stamp = environment.folder / "guidance-agent.json"
    whole = stamp.read_text()
    assert environment.state().ready
    for damaged in ("", "{}", whole.replace(environment.pinned.digest, "0" * 64)):
        stamp.write_text(damaged)
        assert not environment.state().ready
    stamp.write_text(whole)
    environment.python.unlink()
    assert not environment.state().ready


def test_an_environment_is_not_replaced_under_a_running_server(index: Path, tmp_path: Path) -> None:
    old = fake_environment(tmp_path, pinned=listing(index, "1.0"))
    with (
        PhoenixServer(tmp_path, choose_ports(0, 0), environment=old) as server,
        pytest.raises(PhoenixError, match="--stop"),
    ):
        install_phoenix(tmp_path, pinned=listing(index, "2.0"), tell=nobody)
    assert old.state().ready
    assert server.local.version == "1.0"


def test_a_second_installation_waits_for_the_first(tmp_path: Path) -> None:
    environment = Environment.of(tmp_path)
    environment.all_folders.mkdir(parents=True)
    told: list[str] = []

    def finish_the_first(line: str) -> None:
        told.append(line)
        fake_environment(tmp_path)
        fcntl.flock(first, fcntl.LOCK_UN)

    with (environment.all_folders / ".lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        assert not install_phoenix(tmp_path, tell=finish_the_first)
    assert len(told) == 1 and "waiting" in told[0]


def test_too_little_space_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_module, "_NEEDED_BYTES", 1 << 62)
    with pytest.raises(PhoenixError, match="Free some space"):
        install_phoenix(tmp_path, tell=nobody)
    assert not Environment.of(tmp_path).folder.exists()


def test_the_list_of_the_package_pins_one_phoenix() -> None:
    pinned = pinned_list()
    wanted = pinned.path.with_suffix(".in").read_text(encoding="utf-8").split()
    assert wanted == [f"arize-phoenix=={pinned.version}"]
    assert pinned.packages > 100
