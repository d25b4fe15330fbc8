"""A stream in a file: whole under its name or not there at all, and no text lost whatever interrupts the writing."""

# ruff: noqa: ASYNC240 - the tests look at small files, and nothing else waits for the loop
from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guidance_agent.errors import FileWriteError, MidStreamError
from guidance_agent.llm.streaming import partial_text, to_file
from guidance_agent.llm.streaming.ordered_thread import OrderedThread
from guidance_agent.llm.streaming.part_file import PartFile


class Source:
    """Yields its steps; an exception is raised, an event is waited for."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)
        self.asked = 0
        self.closed = False

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> str:
        self.asked += 1
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
                continue
            return str(step)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "answer.txt"


@pytest.fixture
def part(target: Path) -> Path:
    return target.with_name("answer.txt.part")


async def reads(source: Source, count: int) -> None:
    async with asyncio.timeout(5):
        while source.asked < count:  # noqa: ASYNC110 - what the source was asked for is what is polled
            await asyncio.sleep(0.001)


async def test_the_whole_text_is_in_the_file_and_the_part_is_gone(target: Path, part: Path) -> None:
    source = Source("From 55.\r\n", "A quarter is £1,000 – tax-free.\n", "\U0001f600")
    written = await to_file(source, target)
    text = "From 55.\r\nA quarter is £1,000 – tax-free.\n\U0001f600"
    assert target.read_bytes() == text.encode()
    assert (written.path, written.characters, written.size) == (target, len(text), len(text.encode()))
    assert written.call is None
    assert not part.exists()
    assert source.closed


@given(chunks=st.lists(st.text(max_size=9), max_size=9))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_however_it_was_cut(target: Path, chunks: list[str]) -> None:
    written = asyncio.run(to_file(Source(*chunks), target))
    assert target.read_bytes().decode() == "".join(chunks)
    assert written.size == target.stat().st_size


async def test_the_file_is_its_owners_alone_unless_another_mode_is_given(target: Path) -> None:
    await to_file(Source("a"), target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    await to_file(Source("a"), target, mode=0o644)
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


async def test_the_old_file_stands_until_the_new_one_is_whole(target: Path, part: Path) -> None:
    target.write_text("old")
    more = asyncio.Event()
    source = Source("new", more, "er")
    task = asyncio.create_task(to_file(source, target))
    await reads(source, 2)
    assert target.read_text() == "old"
    assert part.exists()
    more.set()
    await task
    assert target.read_text() == "newer"


async def test_text_that_came_is_on_its_way_to_the_disk_within_a_second(target: Path, part: Path) -> None:
    more = asyncio.Event()
    task = asyncio.create_task(to_file(Source("one ", "two ", "three", more), target))
    async with asyncio.timeout(2):
        while not part.exists() or part.read_text() != "one two three":  # noqa: ASYNC110 - polled on purpose
            await asyncio.sleep(0.01)
    more.set()
    await task


@pytest.mark.parametrize("chunks", [["one ", "two"], ["x" * 70_000, "y" * 70_000, "z"]], ids=["short", "long"])
async def test_what_came_before_an_error_stays_in_the_part_and_the_error_says_so(
    target: Path, part: Path, chunks: list[str]
) -> None:
    target.write_text("old")
    source = Source(*chunks, MidStreamError("broken"))
    with pytest.raises(MidStreamError, match="broken") as caught:
        await to_file(source, target)
    assert str(part) in "".join(caught.value.__notes__)
    assert await partial_text(target) == part.read_text() == "".join(chunks)
    assert target.read_text() == "old"
    assert source.closed


async def test_what_came_before_a_cancel_stays_in_the_part_and_the_cancel_says_so(target: Path, part: Path) -> None:
    source = Source("one ", "two ", "three", asyncio.Event())
    task = asyncio.create_task(to_file(source, target))
    await reads(source, 4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert str(part) in "".join(caught.value.__notes__)
    assert part.read_text() == "one two three"
    assert not target.exists()
    assert source.closed


@pytest.mark.parametrize("after", range(0, 40, 3))
async def test_a_cancel_at_any_moment_leaves_all_that_came_in_one_of_the_two_files(
    target: Path, part: Path, after: int
) -> None:
    given_out: list[str] = []

    async def source() -> AsyncIterator[str]:
        for number in range(30):
            await asyncio.sleep(0)
            given_out.append(f"{number} " * 5_000)
            yield given_out[-1]

    task = asyncio.create_task(to_file(source(), target))
    for _ in range(after):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = (target if target.exists() else part).read_text() if given_out else ""
    assert found == "".join(given_out)


async def test_a_second_cancel_while_the_rest_is_kept_loses_nothing(target: Path, part: Path) -> None:
    source = Source("one ", "two", asyncio.Event())
    task = asyncio.create_task(to_file(source, target))
    await reads(source, 3)
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        while part.read_text() != "one two":  # noqa: ASYNC110 - the thread goes on by itself
            await asyncio.sleep(0.005)


async def test_work_that_waits_for_its_thread_is_done_although_its_caller_is_cancelled() -> None:
    goes_on, done = threading.Event(), []

    def wait() -> None:
        goes_on.wait(5)

    with OrderedThread() as thread:
        running = [asyncio.create_task(thread.run(work)) for work in (wait, lambda: done.append("write"))]
        await asyncio.sleep(0)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        goes_on.set()
        await thread.run(done.append, "keep")
    assert done == ["write", "keep"]


async def test_no_text_leaves_no_part(target: Path, part: Path) -> None:
    with pytest.raises(MidStreamError) as caught:
        await to_file(Source(MidStreamError("broken")), target)
    assert not part.exists()
    assert not hasattr(caught.value, "__notes__")


async def test_an_empty_stream_is_an_empty_file(target: Path, part: Path) -> None:
    assert (await to_file(Source(), target)).size == 0
    assert target.read_bytes() == b""
    assert not part.exists()


# Another attempt


async def test_a_rerun_drops_what_was_left_unless_it_is_to_be_continued(target: Path, part: Path) -> None:
    part.write_text("one tw")
    await to_file(Source("all of it"), target)
    assert target.read_text() == "all of it"
    part.write_text("one – tw")
    begun = await partial_text(target)
    assert begun == "one – tw"
    written = await to_file(Source("o"), target, resume=True)
    assert target.read_text() == "one – two"
    assert (written.characters, written.size) == (9, 11)
    assert await partial_text(target) == ""


async def test_half_a_character_at_the_end_of_a_part_is_written_anew(target: Path, part: Path) -> None:
    part.write_bytes("£1 – ".encode()[:-2])
    begun = await partial_text(target)
    assert begun == "£1 "
    await to_file(Source("– and more"), target, resume=True)
    assert target.read_text() == "£1 – and more"


async def test_an_attempt_that_fails_again_keeps_both_texts(target: Path, part: Path) -> None:
    part.write_text("one ")
    with pytest.raises(MidStreamError):
        await to_file(Source("two ", MidStreamError("broken")), target, resume=True)
    assert part.read_text() == "one two "


async def test_a_part_that_is_no_text_is_refused_and_left_alone(target: Path, part: Path) -> None:
    part.write_bytes(b"\xff\xfe picture")
    source = Source("a")
    for attempt in (partial_text(target), to_file(source, target, resume=True)):
        with pytest.raises(FileWriteError, match="not UTF-8"):
            await attempt
    assert part.read_bytes() == b"\xff\xfe picture"
    assert source.asked == 0
    assert source.closed


async def test_two_writers_of_one_file_exclude_each_other(target: Path, part: Path) -> None:
    more = asyncio.Event()
    first = Source("first", more, " writer")
    task = asyncio.create_task(to_file(first, target))
    await reads(first, 2)
    second = Source("second")
    with pytest.raises(FileWriteError, match="Another program writes"):
        await to_file(second, target)
    assert second.asked == 0
    more.set()
    await task
    assert target.read_text() == "first writer"


def test_a_part_that_gets_its_name_while_another_waits_for_it_stays_whole(
    target: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (PartFile(target, resume=False, mode=0o600) for _ in range(2))
    first.open()
    first.write("first")
    lock = fcntl.flock

    def first_ends_before(file: int, how: int) -> None:
        monkeypatch.undo()
        first.finish()
        lock(file, how)

    monkeypatch.setattr("guidance_agent.llm.streaming.part_file.fcntl.flock", first_ends_before)
    with pytest.raises(FileWriteError, match="Another program writes"):
        second.open()
    assert target.read_text() == "first"
    assert not part.exists()


async def test_many_writers_leave_one_whole_text(target: Path) -> None:
    async def write(number: int) -> bool:
        try:
            await to_file(Source(*[f"{number} "] * 50), target)
        except FileWriteError:
            return False
        return True

    assert any(await asyncio.gather(*(write(number) for number in range(20))))
    assert len(set(target.read_text().split())) == 1
    assert len(target.read_text().split()) == 50


# What cannot be written


def wrong_targets(folder: Path) -> Iterator[tuple[Path | str, str]]:
    (folder / "file").write_text("")
    os.mkfifo(folder / "pipe")
    yield folder, "is a folder"
    yield "", "is a folder"
    yield folder / "missing" / "a.txt", "does not exist"
    yield folder / "file" / "a.txt", "does not exist|cannot be written"
    yield folder / "a\0b", "no name of a file"
    yield folder / ("x" * 300), "cannot be written"
    yield folder / "pipe", "device or a pipe"
    yield "/dev/null", "device or a pipe"


async def test_a_name_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for path, said in wrong_targets(tmp_path):
        source = Source("a")
        with pytest.raises(FileWriteError, match=said) as caught:
            await to_file(source, path)
        assert caught.value.partial is None
        assert source.asked == 0
        assert source.closed
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


async def test_a_link_is_followed_and_stays_a_link(tmp_path: Path, target: Path) -> None:
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    written = await to_file(Source("a"), link)
    assert link.is_symlink()
    assert (written.path, target.read_text()) == (target, "a")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size`, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


async def test_a_full_disk_is_a_typed_error_and_keeps_what_fitted(target: Path, part: Path) -> None:
    target.write_text("old")
    source = Source(*["x" * 50_000] * 8)
    with room_for(120_000), pytest.raises(FileWriteError) as caught:
        await to_file(source, target)
    assert caught.value.partial == part
    assert str(part) in str(caught.value)
    assert part.read_text() == "x" * 120_000
    assert target.read_text() == "old"
    assert source.closed
    await to_file(Source("y"), target, resume=True)
    assert len(target.read_text()) == 120_001


async def test_halves_of_a_character_are_joined_and_what_is_none_is_replaced(target: Path) -> None:
    await to_file(Source("a\ud83d", "\ude00b\ud83d", "c"), target)
    assert target.read_text() == "a\U0001f600b\ufffdc"


async def test_writing_never_blocks_the_event_loop(target: Path) -> None:
    with blockbuster_ctx():
        await to_file(Source(*["x" * 70_000] * 5), target)
        with pytest.raises(MidStreamError):
            await to_file(Source("a", MidStreamError("broken")), target)
        await partial_text(target)


async def test_no_thread_is_left_behind(target: Path) -> None:
    await to_file(Source("a"), target)
    async with asyncio.timeout(5):
        while any(thread.name.startswith("stream-file") for thread in threading.enumerate()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_the_text_is_on_disk_before_the_file_has_its_name(
    target: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(file: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else f"{os.fstat(file).st_size} bytes")
        fsync(file)

    def watched_replace(old: Path, new: Path) -> None:
        done.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    await to_file(Source("one ", "two"), target)
    assert done == ["7 bytes", "name", "folder"]


def test_a_killed_process_leaves_the_text_and_no_lock(target: Path, part: Path) -> None:
    program = f"""
import asyncio, sys
from guidance_agent.llm import to_file

async def endless():
    yield "one "
    yield "two"
    await asyncio.Event().wait()

asyncio.run(to_file(endless(), {str(target)!r}))
"""
    with subprocess.Popen([sys.executable, "-c", program]) as child:
        deadline = threading.Event()
        for _ in range(2_000):
            if part.exists() and part.read_text() == "one two":
                break
            deadline.wait(0.005)
        child.kill()
    assert part.read_text() == "one two"
    written = asyncio.run(to_file(Source(" three"), target, resume=True))
    assert target.read_text() == "one two three"
    assert written.characters == 13
