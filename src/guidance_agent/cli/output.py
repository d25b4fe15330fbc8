"""Standard output as answers need it: every piece leaves at once, and a reader who has gone is no accident."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

from guidance_agent.errors import GuidanceAgentError

__all__ = ["OutputClosed", "json_line", "prepare_streams", "write_output"]


class OutputClosed(Exception):
    """Raised when the reader of standard output has gone, as `| head` does."""


def prepare_streams() -> None:
    """Make standard output and error take every character, whatever the locale; a closed one takes it nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  it lives as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A consumer of JSON expects UTF-8; a terminal with another encoding still gets text it can show.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def json_line(values: Any) -> str:
    """Return values as JSON on one line, in the characters that they have."""
    return json.dumps(values, ensure_ascii=False) + "\n"


def write_output(text: str) -> None:
    """Write to standard output and flush.

    Raises:
        OutputClosed: when nobody reads it any more.
        GuidanceAgentError: when it cannot be written, as on a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError as error:
        _give_up_output()
        raise OutputClosed from error
    except OSError as error:
        _give_up_output()
        raise GuidanceAgentError(
            f"The output cannot be written: {error.strerror}. Free some space, or send it elsewhere."
        ) from error


def _give_up_output() -> None:
    # What is still in the buffer would fail again when the interpreter flushes it at its end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
