"""Starts the Phoenix server as a child process, makes sure that only this machine reaches it, and ends it.

The child runs `server_side/confined.py` in the server's own environment. It gets no variable of ours but a few that
every program needs: a provider's key in its environment would be one that any page of its playground could spend. After
the start the launcher looks from outside: every socket of the process that listens must be on loopback, and a request
for another host must be refused. A server that fails either is stopped.

The child ends when its launcher does, however that ends, until `keep` has said that it may stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Self

from guidance_agent.errors import PhoenixError, PhoenixNotInstalledError
from guidance_agent.phoenix.environment import Environment
from guidance_agent.phoenix.local import LocalPhoenix, local_phoenix, phoenix_folder, write_word, written_word
from guidance_agent.phoenix.ports import Ports
from guidance_agent.phoenix.processes import end_process, process_mark
from guidance_agent.phoenix.server_side.confined import is_loopback

__all__ = ["PhoenixServer", "log_file", "stop_phoenix"]

Tell = Callable[[str], None]

_READY_WITHIN = 300.0
_END_WITHIN = 20.0
_POLL = 0.1
_TOLD_EVERY = 10.0
_TAIL_BYTES = 3_000
_FOREIGN_HOST = "phoenix.invalid"

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "USER", "LOGNAME", "SYSTEMROOT")
_CONFINED = {
    "PHOENIX_HOST": "127.0.0.1",
    "PHOENIX_LOG_MIGRATIONS": "false",
    "PHOENIX_TELEMETRY_ENABLED": "false",
    "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
    "PHOENIX_AGENTS_DISABLE_BASH": "true",
    "PHOENIX_AGENTS_DISABLE_WEB_ACCESS": "true",
    "PHOENIX_AGENTS_DISABLE_GITHUB": "true",
    "PHOENIX_ENABLE_MCP_SERVER": "false",
    "PHOENIX_ALLOWED_SANDBOX_PROVIDERS": "NONE",
}


def log_file(data_folder: Path) -> Path:
    """Return the log of the last server that was started for this data folder."""
    return phoenix_folder(data_folder) / "server.log"


class PhoenixServer:
    """A Phoenix server for as long as a `with` block lasts, or, after `keep`, until it is stopped.

    Args:
        data_folder: Its database and its log are in there.
        ports: Where it is to listen.
        environment: Where it is installed; None is the data folder's own.
        tell: Takes lines about the progress.

    Raises:
        PhoenixNotInstalledError: on entering, when its environment is not there.
        PhoenixError: on entering, when it does not start, or could be reached from elsewhere.
    """

    def __init__(
        self, data_folder: Path, ports: Ports, *, environment: Environment | None = None, tell: Tell = lambda _: None
    ) -> None:
        self._data_folder = data_folder
        self._ports = ports
        self._environment = environment or Environment.of(data_folder)
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None
        self._local: LocalPhoenix | None = None

    @property
    def local(self) -> LocalPhoenix:
        """Where it runs."""
        if self._local is None:
            raise RuntimeError("the Phoenix server is not running; enter its `with` block first")
        return self._local

    def __enter__(self) -> Self:
        state = self._environment.state()
        if not state.ready:
            had = f" for this version; {state.other_version} is" if state.other_version else ""
            raise PhoenixNotInstalledError(
                f"Phoenix is not installed{had} in {str(self._environment.all_folders)!r}. "
                "Run `guidance-agent phoenix install`."
            )
        folder = phoenix_folder(self._data_folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _one_start_at_a_time(folder):
            running = local_phoenix(self._data_folder)
            if running is not None:
                raise PhoenixError(
                    f"Phoenix is already running on {running.endpoint} (process {running.pid}). To end it: "
                    "guidance-agent phoenix --stop"
                )
            try:
                self._start(folder)
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self, folder: Path) -> None:
        self._tell(f"Starting Phoenix {self._environment.pinned.version}; this takes some ten seconds or more")
        database = folder / "data"
        database.mkdir(mode=0o700, exist_ok=True)
        program = Path(str(files("guidance_agent.phoenix") / "server_side" / "confined.py"))
        with open(log_file(self._data_folder), "wb", opener=_for_us_only) as log:
            self._process = process = subprocess.Popen(  # noqa: S603 - our own program in its own environment
                [str(self._environment.python), "-I", "-u", str(program)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=database,
                env=self._variables(database),
                umask=0o077,
                # Ctrl-C is for the launcher, which ends the server in an orderly way.
                start_new_session=True,
            )
        mark = process_mark(process.pid)
        if mark is None:
            raise PhoenixError(f"Process {process.pid} cannot be told from others: neither /proc nor `ps` can be used.")
        self._wait_until_it_answers(process)
        self._check_listeners(process)
        self._check_foreign_host()
        self._local = LocalPhoenix(
            pid=process.pid,
            mark=mark,
            port=self._ports.http,
            grpc_port=self._ports.grpc,
            version=self._environment.pinned.version,
            started_at=datetime.now(UTC),
        )
        write_word(self._data_folder, self._local)

    def _variables(self, database: Path) -> dict[str, str]:
        own = {
            "PHOENIX_PORT": str(self._ports.http),
            "PHOENIX_GRPC_PORT": str(self._ports.grpc),
            "PHOENIX_WORKING_DIR": str(database),
        }
        return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _CONFINED | own

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        began = time.monotonic()
        told = began
        while (status := _status(self._ports.http, "127.0.0.1")) != HTTPStatus.OK:
            if process.poll() is not None:
                raise self._ended_early(process)
            now = time.monotonic()
            if now - began > _READY_WITHIN:
                raise PhoenixError(
                    f"Phoenix did not answer on port {self._ports.http} within {_READY_WITHIN:g} s (last status: "
                    f"{status}). {self._tail()}"
                )
            if now - told >= _TOLD_EVERY:
                told = now
                self._tell(f"Still starting ({now - began:.0f} s)")
            time.sleep(_POLL)

    def _check_listeners(self, process: subprocess.Popen[bytes]) -> None:
        found = self._listeners(process.pid)
        if process.poll() is not None:
            raise self._ended_early(process)
        beyond = [f"{host}:{port}" for host, port in found if not is_loopback(host)]
        if beyond:
            raise PhoenixError(
                f"Phoenix listened on {', '.join(beyond)}, which others can reach, and was stopped. Do not use this "
                "installation; run `guidance-agent phoenix install` after an update of guidance-agent."
            )
        missing = {self._ports.http, self._ports.grpc} - {port for _, port in found}
        if missing:
            raise PhoenixError(
                f"Phoenix does not listen on {', '.join(map(str, sorted(missing)))}: another program has the port, or "
                f"took it meanwhile. Try again, or choose other ports with --port and --grpc-port. {self._tail()}"
            )

    def _listeners(self, pid: int) -> list[tuple[str, int]]:
        program = Path(str(files("guidance_agent.phoenix") / "server_side" / "listeners.py"))
        asked = subprocess.run(  # noqa: S603 - our own program in its own environment
            [str(self._environment.python), "-I", str(program), str(pid)], capture_output=True, text=True, check=False
        )
        if asked.returncode != 0:
            raise PhoenixError(
                f"It cannot be told where Phoenix listens, so it was stopped: {asked.stderr.strip()[-500:]!r}. "
                "Run it as the user who may look at its own processes."
            )
        return [(str(host), int(port)) for host, port in json.loads(asked.stdout)]

    def _check_foreign_host(self) -> None:
        status = _status(self._ports.http, _FOREIGN_HOST)
        if status != HTTPStatus.FORBIDDEN:
            raise PhoenixError(
                f"Phoenix answered {status} to a request for the host {_FOREIGN_HOST!r}, so pages of other sites could "
                "read it, and was stopped. Do not use this installation."
            )

    def _ended_early(self, process: subprocess.Popen[bytes]) -> PhoenixError:
        return PhoenixError(f"Phoenix ended with status {process.wait()} while it started. {self._tail()}")

    def _tail(self) -> str:
        path = log_file(self._data_folder)
        text = path.read_bytes()[-_TAIL_BYTES:].decode("utf-8", errors="replace").strip()
        return f"The end of its log, {str(path)!r}:\n{text}" if text else f"Its log, {str(path)!r}, is empty."

    def wait(self) -> None:
        """Wait until the server ends, because somebody stopped it.

        Raises:
            PhoenixError: when it ended for another reason.
        """
        process = self._process
        if process is None:
            raise RuntimeError("the Phoenix server is not running; enter its `with` block first")
        code = process.wait()
        # `--stop` takes its word back; who kills it otherwise does not.
        if code not in (0, -15):
            raise PhoenixError(f"Phoenix ended with status {code}. {self._tail()}")

    def keep(self) -> LocalPhoenix:
        """Let the server run on when the block, and this process, end; return where it runs."""
        process, local = self._process, self.local
        if process is None or process.stdin is None:
            raise RuntimeError("the Phoenix server is not running; enter its `with` block first")
        process.stdin.write(b".")
        process.stdin.close()
        # Nobody here waits for it any more, and Python warns of children that nobody waited for.
        process.returncode = 0
        self._process = None
        return local

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            if process.stdin is not None:
                process.stdin.close()
            if self._local is not None and written_word(self._data_folder) == self._local:
                write_word(self._data_folder, None)


def stop_phoenix(data_folder: Path) -> LocalPhoenix | None:
    """End the server that was started for a data folder, and nothing else; return what was ended, None if none ran.

    Raises:
        PhoenixError: when it does not end.
    """
    word = written_word(data_folder)
    if word is None:
        return None
    ended = end_process(word.pid, word.mark, within=_END_WITHIN)
    if word.alive():
        raise PhoenixError(f"Phoenix (process {word.pid}) does not end. Look what it is waiting for, and end it.")
    if written_word(data_folder) == word:
        write_word(data_folder, None)
    return word if ended else None


@contextlib.contextmanager
def _one_start_at_a_time(folder: Path) -> Iterator[None]:
    with (folder / ".starting").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PhoenixError(
                f"Another process is starting Phoenix for {str(folder.parent)!r}. Wait until it has done so."
            ) from None
        yield


def _status(port: int, host: str) -> int | None:
    """Return the status of a request for the server's health under a host name; None without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz", headers={"Host": f"{host}:{port}"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _for_us_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
