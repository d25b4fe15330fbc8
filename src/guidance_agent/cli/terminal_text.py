"""Text from customers and models as a terminal, or a file that a person reads, may have it."""

from __future__ import annotations

import re
import textwrap
from datetime import datetime

__all__ = ["moment", "on_one_line", "plain", "wrapped"]

# What a terminal would obey rather than show.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WIDTH = 100


def plain(text: str) -> str:
    """Return the text without anything that a terminal would obey."""
    return _COMMANDS.sub("\ufffd", text)


def on_one_line(text: str, longest: int = 80) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(plain(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def wrapped(text: str, indent: str = "  ") -> str:
    """Return the text in lines that can be read, each indented."""
    wrap = textwrap.TextWrapper(
        _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(part for line in plain(text).splitlines() for part in wrap.wrap(line) or [""])


def moment(at: datetime | str | None) -> str:
    """Return a time in UTC to the millisecond, and say so; a dash for none."""
    if at is None:
        return "-"
    time = datetime.fromisoformat(at) if isinstance(at, str) else at
    return f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03d} UTC"
