"""A file that a command writes is whole, or as it was; why it cannot be written is told."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guidance_agent.cli.files import write_whole
from guidance_agent.errors import FileWriteError


@contextmanager
def no_room_beyond(octets: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_replaced_by_the_whole_text_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    file = tmp_path / ("ü" * 120)
    file.write_text("before", encoding="utf-8")
    write_whole(file, "£ after\n")
    assert file.read_bytes() == "£ after\n".encode()
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_stays_as_it_was_where_the_text_has_no_room(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("before", encoding="utf-8")
    with no_room_beyond(1_000), pytest.raises(FileWriteError, match=r"cannot be written: File too large\. Name a file"):
        write_whole(file, "x" * 100_000)
    assert file.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_text_that_is_none_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "\ud800")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no such folder/page.html", "No such file or directory"),
        ("file/page.html", "Not a directory"),
        ("folder", "Is a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_where_no_file_can_be_is_told_by_its_name(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileWriteError, match=f"{name}' cannot be written: {reason}"):
        write_whole(tmp_path / name, "text")
    assert {each.name for each in tmp_path.iterdir()} == {"file", "folder"}
