"""The Phoenix server's own environment: made from a list of pinned packages, whole or not there.

The folder's name says which list and which Python it is for. A stamp is written into it last, and a folder without one
is no environment: whatever ends an installation early, what it leaves is removed by the next one. A new list means a
new folder, so nothing is ever half of one version and half of another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict, ValidationError

from guidance_agent.errors import PhoenixError
from guidance_agent.phoenix.local import local_phoenix, phoenix_folder

__all__ = ["Environment", "EnvironmentState", "PinnedList", "install_phoenix", "pinned_list"]

Tell = Callable[[str], None]

_STAMP = "guidance-agent.json"
_LOG = "install.log"
_NEEDED_BYTES = 2_000_000_000
_TOLD_EVERY = 20
_TAIL = 15


class _Stamp(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    requirements: str
    version: str


@dataclass(frozen=True)
class PinnedList:
    """The packages of the server, each with its version and the hashes of its files."""

    path: Path

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the list."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def packages(self) -> int:
        return len(re.findall(r"^[\w.-]+==", self.path.read_text(encoding="utf-8"), re.MULTILINE))

    @cached_property
    def version(self) -> str:
        """The version of Phoenix in it."""
        found = re.search(r"^arize-phoenix==(\S+)", self.path.read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            raise PhoenixError(f"The list {str(self.path)!r} does not name Phoenix. Install guidance-agent again.")
        return found[1]


def pinned_list() -> PinnedList:
    """Return the list that comes with this package."""
    return PinnedList(Path(str(files("guidance_agent.phoenix") / "requirements.txt")))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentState:
    """Whether the environment can be used. `other_version` is of an installation that is of another list."""

    ready: bool
    other_version: str | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment that a data folder has, or is to have, for a list."""

    data_folder: Path
    pinned: PinnedList

    @classmethod
    def of(cls, data_folder: Path) -> Environment:
        """Return the environment of a data folder for the list of this package."""
        return cls(data_folder, pinned_list())

    @property
    def all_folders(self) -> Path:
        return phoenix_folder(self.data_folder) / "environments"

    @property
    def folder(self) -> Path:
        major, minor = sys.version_info[:2]
        return self.all_folders / f"{self.pinned.digest[:16]}-{major}.{minor}"

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def state(self) -> EnvironmentState:
        """Look whether it is there as a whole."""
        stamp = _stamp_in(self.folder)
        if stamp is not None and stamp.requirements == self.pinned.digest and self.python.exists():
            return EnvironmentState(ready=True)
        others = [found.version for folder in self._folders() if (found := _stamp_in(folder)) is not None]
        return EnvironmentState(ready=False, other_version=others[0] if others else None)

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.all_folders.glob("*") if path.is_dir())

    def remove_others(self) -> None:
        """Remove what other lists, and installations that did not end, have left."""
        for folder in self._folders():
            if folder != self.folder:
                shutil.rmtree(folder)


def _stamp_in(folder: Path) -> _Stamp | None:
    try:
        return _Stamp.model_validate_json((folder / _STAMP).read_bytes())
    except (OSError, ValidationError):
        return None


def install_phoenix(data_folder: Path, *, pinned: PinnedList | None = None, tell: Tell) -> bool:
    """Make the server's environment, unless it is there.

    Args:
        data_folder: Where it belongs; see `Settings.data_dir`.
        pinned: The list; None is the one of this package.
        tell: Takes lines about the progress.

    Returns:
        Whether there was anything to do.

    Raises:
        PhoenixError: when it cannot be made; then nothing that looks like an environment is left.
    """
    environment = Environment(data_folder, pinned or pinned_list())
    if environment.state().ready:
        return False
    environment.all_folders.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _one_at_a_time(environment.all_folders / ".lock", tell):
        if environment.state().ready:
            return False
        if local_phoenix(data_folder) is not None:
            raise PhoenixError(
                "Phoenix is running from another installation. Stop it first: guidance-agent phoenix --stop"
            )
        _check_space(environment.all_folders)
        _make(environment, tell)
        environment.remove_others()
    return True


@contextlib.contextmanager
def _one_at_a_time(path: Path, tell: Tell) -> Iterator[None]:
    import fcntl

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("Another process is installing Phoenix; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _NEEDED_BYTES:
        raise PhoenixError(
            f"Phoenix needs about {_NEEDED_BYTES / 1e9:g} GB while it is installed, and {str(folder)!r} has "
            f"{free / 1e9:.1f} GB. Free some space, or choose another folder with --data-dir."
        )


def _make(environment: Environment, tell: Tell) -> None:
    folder = environment.folder
    if folder.exists():
        shutil.rmtree(folder)
    log = phoenix_folder(environment.data_folder) / _LOG
    try:
        with log.open("w", encoding="utf-8") as written:
            tell(f"Making an environment in {folder}")
            _run([sys.executable, "-m", "venv", str(folder)], written, lambda _line: None)
            pip = [str(environment.python), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
            # The list is complete, so nothing that it does not name is to be looked for. What the server imports is
            # compiled at its first start, which is much less than all.
            pinned = ["install", "--require-hashes", "--no-deps", "--no-compile", "--progress-bar", "off"]
            packages = environment.pinned.packages
            _run([*pip, *pinned, "-r", str(environment.pinned.path)], written, _Progress(packages, tell))
            _run([*pip, "check"], written, lambda _line: None)
        stamp = _Stamp(requirements=environment.pinned.digest, version=environment.pinned.version)
        _write_through(folder / _STAMP, stamp.model_dump_json())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_through(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


class _Progress:
    """Tells from the lines of pip how far it is."""

    def __init__(self, packages: int, tell: Tell) -> None:
        self._packages = packages
        self._tell = tell
        self._collected = 0

    def __call__(self, line: str) -> None:
        if line.startswith(("Collecting ", "Processing ")):
            self._collected += 1
            if self._collected % _TOLD_EVERY == 0:
                # Some packages of the list are for other systems, so the number is an upper bound.
                self._tell(f"Fetched {self._collected} of up to {self._packages} packages")
        elif line.startswith("Installing collected packages"):
            self._tell(f"Fetched all {self._collected} packages; unpacking them, which may take a minute")


def _run(command: list[str], log: TextIO, seen: Callable[[str], None]) -> None:
    """Run a command to its end, with its output in the log; it ends with the block that waits for it."""
    with subprocess.Popen(  # noqa: S603 - our own interpreter, and pip of the environment that it made
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        tail: list[str] = []
        try:
            for line in process.stdout or ():
                log.write(line)
                seen(line)
                tail = [*tail[1 - _TAIL :], line.rstrip()]
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise PhoenixError(_failed(command, process.returncode, tail, log.name))


def _failed(command: list[str], code: int, tail: list[str], log: str) -> str:
    what = " ".join(command[:5])
    step = (
        "Install the package python3-venv (on Debian and Ubuntu), and try again."
        if "venv" in command
        else "Look whether the package index can be reached and pip is configured for it, and try again."
    )
    return f"`{what} …` failed with status {code}:\n" + "\n".join(tail) + f"\nThe whole log is {log!r}. {step}"
