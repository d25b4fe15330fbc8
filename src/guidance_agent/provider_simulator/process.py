"""The simulator as a child process, for tests and benchmarks that must not share its event loop."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from guidance_agent.provider_simulator.faults import Fault

__all__ = ["ProviderSimulatorProcess"]

_READY_WITHIN = 30.0
_END_WITHIN = 5.0


class ProviderSimulatorProcess:
    """A simulator in a process of its own, ended by its process id when the block is left.

    Works as `with` and as `async with`; starting takes under a second and blocks. `arguments` are those of the
    command line, such as `["--instant", "--seed", "7"]`.
    """

    def __init__(
        self, arguments: Sequence[str] = ("--instant",), *, environment: Mapping[str, str] | None = None
    ) -> None:
        self._arguments = tuple(arguments)
        self._environment = None if environment is None else dict(environment)
        self._process: subprocess.Popen[str] | None = None
        self._base_url: str | None = None

    @property
    def base_url(self) -> str:
        """Address without a path, such as `http://127.0.0.1:40001`."""
        if self._base_url is None:
            raise RuntimeError("the simulator process is not running; enter its `with` block first")
        return self._base_url

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the simulator process is not running; enter its `with` block first")
        return self._process.pid

    def start(self) -> Self:
        """Start the process and wait until it serves."""
        command = [sys.executable, "-m", "guidance_agent.provider_simulator", *self._arguments]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self._environment,
            cwd=Path.cwd(),
        )
        try:
            self._base_url = self._first_line()
        except BaseException:
            self.stop()
            raise
        return self

    def _first_line(self) -> str:
        process = self._process
        if process is None or process.stdout is None:
            raise RuntimeError("the simulator process was not started with a pipe; call start() once")
        ready, _, _ = select.select([process.stdout], [], [], _READY_WITHIN)
        line = process.stdout.readline().strip() if ready else ""
        if not line.startswith("http://"):
            raise RuntimeError(
                f"the simulator process did not become ready within {_READY_WITHIN:g} s with arguments "
                f"{self._arguments!r} (exit code {process.poll()}); run `python -m guidance_agent.provider_simulator` "
                "by hand to see why"
            )
        return line

    def stop(self) -> int | None:
        """End the process in an orderly way, by force if it does not follow; returns its exit code."""
        process, self._process, self._base_url = self._process, None, None
        if process is None:
            return None
        process.terminate()
        try:
            process.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return process.returncode

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """Call the control plane, for example `control("GET", "requests")`; returns the decoded JSON (blocking)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - always our own http address
            f"{self.base_url}/_simulator/{path.lstrip('/')}",
            data=data,
            method=method,
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return json.load(response)

    def requests(self, *, after: int = 0) -> list[dict[str, Any]]:
        """The request log, oldest first, from the request with number `after` + 1 on."""
        found: list[dict[str, Any]] = self.control("GET", f"requests?after={after}")["requests"]
        return found

    def wait_for(self, count: int, *, within: float = 5.0) -> list[dict[str, Any]]:
        """The request log once it holds `count` requests that have ended; raises TimeoutError when it does not."""
        deadline = time.monotonic() + within
        while True:
            ended = [record for record in self.requests() if record["ended_at"] is not None]
            if len(ended) >= count:
                return ended
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(ended)} of {count!r} requests ended within {within:g} s; see the log")
            time.sleep(0.01)

    def add_faults(self, *faults: Fault) -> None:
        self.control("POST", "faults", [fault.model_dump(mode="json") for fault in faults])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
