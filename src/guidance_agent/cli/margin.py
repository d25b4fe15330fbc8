"""What stands beside an answer, on standard error: headings, figures, notices and errors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Margin", "show_error"]

SIMULATED = "Simulated: no language model is behind this answer. A local simulator composed it from the built-in facts."
HOW_TO_BE_REAL = (
    "For a real model set a key (export ANTHROPIC_API_KEY=… or export OPENAI_API_KEY=…), or name a model that runs "
    "here (--model ollama/…)."
)


class Margin:
    """Writes beside the answer.

    Args:
        notes: Whether headings, figures and hints are wanted. Notices that concern the truth of an answer are always
            written.
    """

    def __init__(self, *, notes: bool) -> None:
        self.notes = notes
        self._console: Console | None = None
        self._said_simulated = False

    def note(self, text: str = "") -> None:
        """Write a quiet line, if such lines are wanted."""
        if self.notes:
            self.say(text)

    def say(self, text: str) -> None:
        """Write a quiet line that was asked for."""
        self._write(text, style="dim")

    def piece(self, text: str) -> None:
        """Write a piece of a quiet passage that was asked for."""
        self._write(text, style="dim italic", end="")

    def notice(self, text: str) -> None:
        """Write a line that the reader must not miss."""
        self._write(text, style="yellow")

    def simulated(self) -> None:
        """Say once that answers are simulated, and how to get real ones."""
        if not self._said_simulated:
            self._said_simulated = True
            self.notice(SIMULATED)
            self.notice(HOW_TO_BE_REAL)

    def _write(self, text: str, *, style: str, end: str = "\n") -> None:
        if self._console is None:
            if not sys.stderr.isatty():
                sys.stderr.write(text + end)
                sys.stderr.flush()
                return
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._console.print(text, style=style, end=end)


def show_error(message: str) -> None:
    """Write an error message to standard error."""
    import typer

    typer.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)
