"""A text file that is whole under its name, or still being written under another.

What is written stands in `<name>.part`, in the same folder, until all of it is on disk; then that file takes the name
in one step. Two writers of one file exclude each other with a lock on the part, which ends with its process. All
methods block: they are for a thread.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from guidance_agent.errors import FileWriteError

try:
    import fcntl
except ImportError:  # where the platform has no such locks, two writers of one file are the caller's to prevent
    fcntl = None  # type: ignore[assignment]

__all__ = ["PartFile", "part_path", "read_part"]

_BLOCK = 1_048_576


def part_path(target: Path) -> Path:
    """Return the name under which the text for `target` stands until it is whole."""
    return target.with_name(f"{target.name}.part")


def read_part(target: Path) -> str:
    """Return the text that an earlier attempt left in the part; empty when there is none.

    Raises:
        FileWriteError: when it cannot be read, or is not text.
    """
    part = part_path(target)
    try:
        with part.open("rb") as file:
            return "".join(_texts(file.fileno(), part))
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise FileWriteError(f"The file {str(part)!r} cannot be read: {error.strerror}.", partial=part) from error


class PartFile:
    """The part of `target`. Nothing is touched before `open`.

    Attributes:
        target: The file that is to be written; after `open` where a link led.
        characters, size: What is in the part or the file, in code points and bytes.
        whole: Whether the text is whole and has its name.

    Args:
        target: The file that is to be written.
        resume: Whether to write after what an earlier attempt left; otherwise that is dropped.
        mode: Permissions of the file.
    """

    def __init__(self, target: Path, *, resume: bool, mode: int) -> None:
        self.target = target
        self.characters = 0
        self.size = 0
        self.whole = False
        self._resume = resume
        self._mode = mode
        self._file: int | None = None

    @property
    def part(self) -> Path:
        return part_path(self.target)

    def open(self) -> None:
        """Make the part, or take what an earlier attempt left.

        Raises:
            FileWriteError: when that cannot be, or another program writes it at this moment.
        """
        try:
            self.target = _regular_file(self.target)
            self._file = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, self._mode)
            self._begin()
        except OSError as error:
            self._close()
            raise FileWriteError(
                f"The file {str(self.part)!r} cannot be written: {error.strerror}. Choose a folder that can be written."
            ) from error
        except BaseException:
            self._close()
            raise

    def write(self, text: str) -> None:
        """Append `text`.

        Raises:
            FileWriteError: when not all of it could be written; what could stays in the part.
        """
        file = self._opened
        content = memoryview(_encoded(text))
        with self._typed_errors():
            while content:
                written = os.write(file, content)
                content = content[written:]
                self.size += written
        self.characters += len(text)

    def finish(self) -> None:
        """Put the whole text on disk and give it its name.

        Raises:
            FileWriteError: when that failed; the text stays in the part.
        """
        with self._typed_errors():
            os.fsync(self._opened)
            if fcntl is None:
                self._close()
            os.replace(self.part, self.target)
            self.whole = True
            self._close()
            _sync_folder(self.target.parent)

    def keep(self, rest: str) -> None:
        """Put what there is on disk with `rest` after it, and leave it in the part; an empty part is removed.

        Raises:
            FileWriteError: when not all of it could be written.
        """
        if self._file is None:
            return
        try:
            self.write(rest)
            with self._typed_errors():
                os.fsync(self._file)
                if not self.size:
                    os.unlink(self.part)
        finally:
            self._close()

    @property
    def _opened(self) -> int:
        if self._file is None:
            raise FileWriteError(f"The part of {str(self.target)!r} is not open.")
        return self._file

    def _begin(self) -> None:
        file = self._opened
        if not self._lock(file):
            raise FileWriteError(
                f"Another program writes {str(self.part)!r} at this moment. Wait for it, or choose another name.",
                partial=self.part,
            )
        os.chmod(file, self._mode)
        if self._resume:
            self.characters = sum(map(len, _texts(file, self.part)))
            self.size = os.lseek(file, 0, os.SEEK_CUR)
        os.ftruncate(file, self.size)
        os.lseek(file, self.size, os.SEEK_SET)

    def _lock(self, file: int) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A part that was given its name meanwhile holds somebody's whole text, and is no part any more.
            return os.path.samestat(os.fstat(file), os.stat(self.part))
        except (BlockingIOError, FileNotFoundError):
            return False

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            os.close(file)

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = self.target if self.whole else self.part
            raise FileWriteError(
                f"The text for {str(self.target)!r} cannot be written to the end: {error.strerror}. What was written "
                f"is in {str(where)!r}.",
                partial=where,
            ) from error


def _regular_file(target: Path) -> Path:
    """Return where `target` leads; refuse what cannot be replaced by a file of text."""
    try:
        target = Path(os.path.realpath(target))
        kind = target.stat().st_mode if target.exists() else None
    except ValueError as error:
        raise FileWriteError(f"{str(target)!r} is no name of a file: {error}.") from error
    if kind is not None and stat.S_ISDIR(kind):
        raise FileWriteError(f"{str(target)!r} is a folder. Name a file in it.")
    if kind is not None and not stat.S_ISREG(kind):
        raise FileWriteError(f"{str(target)!r} is a device or a pipe, which a file must not replace. Name a file.")
    if not target.parent.is_dir():
        raise FileWriteError(f"The folder {str(target.parent)!r} for {target.name!r} does not exist. Make it first.")
    return target


def _texts(file: int, part: Path) -> Iterator[str]:
    """Yield the text of an open file; half a character at its end is left out, and the position is before it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while content := os.read(file, _BLOCK):
            yield decoder.decode(content)
    except UnicodeDecodeError as error:
        raise FileWriteError(
            f"The file {str(part)!r} is not UTF-8 text, so nothing can be written after it. Delete or rename it.",
            partial=part,
        ) from error
    rest, _ = decoder.getstate()
    os.lseek(file, -len(rest), os.SEEK_CUR)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Halves of a surrogate pair: two that meet are a character, one alone is none.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def _sync_folder(folder: Path) -> None:
    """Put the new name on disk, where the platform lets a folder be opened for that."""
    with contextlib.suppress(PermissionError, IsADirectoryError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
