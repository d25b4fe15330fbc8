"""A process that is meant is ended, and no other that has its number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from guidance_agent.phoenix.processes import end_process, process_mark

SLEEPS = "import sys, time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"

Child = subprocess.Popen[str]


def started(program: str) -> Child:
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    return child


@pytest.fixture(params=[SLEEPS, DEAF], ids=["polite", "deaf"])
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    with started(request.param) as process:
        yield process
        process.kill()


@pytest.fixture(params=["linux", "ps"], autouse=True)
def way_to_tell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks as on Linux, and as elsewhere, where there is no handle to a process either."""
    if request.param == "ps":
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    elif sys.platform != "linux":
        pytest.skip("needs /proc")


def test_the_meant_process_is_ended_even_when_it_does_not_listen(child: Child) -> None:
    mark = process_mark(child.pid)
    assert mark is not None
    assert end_process(child.pid, mark, within=0.5)
    assert child.wait(10) in (-signal.SIGTERM, -signal.SIGKILL)


def test_a_process_that_has_the_number_of_another_is_left_alone(child: Child) -> None:
    mark = process_mark(child.pid)
    assert not end_process(child.pid, f"{mark} of another time", within=5)
    assert child.poll() is None
    assert process_mark(child.pid) == mark


def test_a_process_that_has_gone_has_no_mark_and_a_zombie_counts_as_gone(child: Child) -> None:
    mark = process_mark(child.pid)
    assert mark is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_mark(child.pid) is None
    assert not end_process(child.pid, mark, within=5)
    child.wait()
    assert process_mark(child.pid) is None
    assert not end_process(child.pid, mark, within=5)


def test_the_mark_stays_the_same_and_differs_between_processes(child: Child) -> None:
    assert process_mark(child.pid) == process_mark(child.pid)
    if sys.platform == "linux":
        assert process_mark(child.pid) != process_mark(os.getpid())
