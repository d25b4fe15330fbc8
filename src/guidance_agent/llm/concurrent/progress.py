"""A bar on standard error that grows with a batch, with what failed and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guidance_agent.llm.concurrent.config import BatchProgress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["ProgressBar"]


class ProgressBar:
    """Draws the progress of one batch where standard error is a terminal, and nothing elsewhere.

    Args:
        console: Where to draw; None is standard error.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._drawn: Progress | None = None
        self._task: TaskID | None = None

    def update(self, progress: BatchProgress) -> None:
        """Draw how far the batch is."""
        drawn = self._drawn or self._begin()
        words = f"{progress.failed} failed, ${progress.cost:.4f}" + (" or more" if progress.unpriced else "")
        if self._task is None:
            self._task = drawn.add_task("requests", total=progress.total, words=words)
        drawn.update(self._task, completed=progress.done, words=words)

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._drawn is not None:
            self._drawn.stop()

    def _begin(self) -> Progress:
        # Loaded on first use: most batches draw nothing.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = self._console or Console(stderr=True)
        self._drawn = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._drawn.start()
        return self._drawn
