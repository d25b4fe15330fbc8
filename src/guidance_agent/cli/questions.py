"""Where the questions of a conversation come from: a person at a prompt, or one line of standard input each."""

from __future__ import annotations

import contextlib
import sys
from typing import Protocol

from guidance_agent.cli.interrupts import Terminated
from guidance_agent.errors import InputError

__all__ = ["LineQuestions", "PromptQuestions", "Questions", "open_questions"]


class Questions(Protocol):
    """The lines that a customer types. `interactive` says whether a person waits at the other end."""

    interactive: bool

    def read(self) -> str | None:
        """Return the next line without its end; None when there are no more."""


class LineQuestions:
    """One question per line of standard input."""

    interactive = False

    def read(self) -> str | None:
        line = sys.stdin.buffer.readline()
        if not line:
            return None
        try:
            return line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"A line of standard input is not UTF-8 text: {error}. Pass plain text.") from error


class PromptQuestions:
    """A prompt with line editing. Ctrl-C and Ctrl-D end the conversation."""

    interactive = True

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  importing it gives `input` arrow keys and history

    def read(self) -> str | None:
        try:
            if sys.stdout.isatty():
                return input(self._prompt)
            # `input` would write the prompt between the answers.
            sys.stderr.write(self._prompt)
            sys.stderr.flush()
            return LineQuestions().read()
        except UnicodeDecodeError as error:
            raise InputError(f"That was not text: {error}. Type it again.") from error
        except (EOFError, KeyboardInterrupt) as error:
            if isinstance(error, Terminated):
                raise
            sys.stderr.write("\n")
            return None


def open_questions(prompt: str) -> Questions:
    """Return the questions of standard input, with a prompt if a person types them."""
    return PromptQuestions(prompt) if sys.stdin.isatty() else LineQuestions()
