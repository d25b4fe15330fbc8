"""Files that a command is asked to write: each is whole, or as it was before."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from guidance_agent.errors import FileWriteError

__all__ = ["write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all; whoever reads it meanwhile reads what it held before.

    Raises:
        FileWriteError: when that failed, as in a folder that is missing or on a full disk.
    """
    draft: str | None = None
    try:
        # Its name is short, so that it fits wherever the file's own does.
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".")
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError as error:
        _remove(draft)
        raise FileWriteError(
            f"{str(path)!r} cannot be written: {error.strerror}. Name a file in a folder that is there, can be written "
            "and has room for it."
        ) from error
    except BaseException:
        _remove(draft)
        raise


def _remove(draft: str | None) -> None:
    if draft is not None:
        with contextlib.suppress(OSError):
            os.unlink(draft)
