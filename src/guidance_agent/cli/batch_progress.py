"""How far a run of the jobs is: a bar on a terminal, and elsewhere a line when something has changed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guidance_agent.cli.margin import Margin
    from guidance_agent.core.batch_jobs import JobProgress

__all__ = ["shown_progress"]


@contextlib.contextmanager
def shown_progress(margin: Margin) -> Iterator[Callable[[JobProgress], None] | None]:
    """Show progress on standard error while the block runs; yields what has to be told, None where nobody looks."""
    if not margin.notes:
        yield None
    elif sys.stderr.isatty():
        with _bar() as told:
            yield told
    else:
        yield _lines(margin)


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[JobProgress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("beginning", total=None)

        def told(progress: JobProgress) -> None:
            bar.update(shown, completed=progress.answered, total=progress.items or None, description=progress.doing)

        yield told


def _lines(margin: Margin) -> Callable[[JobProgress], None]:
    last = ""

    def told(progress: JobProgress) -> None:
        nonlocal last
        line = f"{progress.doing}; {progress.answered} of {progress.items} items answered"
        # A run that waits tells this many times an hour, and a log needs it once.
        if progress.doing.startswith("waiting") and line != last:
            last = line
            margin.note(line)

    return told
