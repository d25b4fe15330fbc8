"""Measure the figures of `specs/performance.md`: `make bench`, or `python -m benchmarks.run [--only NAME] [--quick]`.

Every table stands beside the floor of the same run (raw aiohttp, the bare interpreter, one numpy product), because the
machine decides about absolute times. Nothing else should run meanwhile. `--write` puts the tables of a group on the
pages that keep a place for them (`benchmarks/pages.py`). The exit status is 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import (
    advisor_path,
    batch_kills,
    batches,
    caching,
    concurrent,
    gate,
    journal,
    judging,
    kills,
    latency,
    limits,
    model_door,
    pages,
    peers,
    reflection,
    resume,
    retrieval,
    startup,
    stream_tools,
    tracing,
    vectors,
)

GROUPS: dict[str, Callable[..., Sequence[Any]]] = {
    "startup": startup.run,
    "model_door": model_door.run,
    "advisor_path": advisor_path.run,
    "journal": journal.run,
    "retrieval": retrieval.run,
    "vectors": vectors.run,
    "latency": latency.run,
    "limits": limits.run,
    "caching": caching.run,
    "peers": peers.run,
    "kills": kills.run,
    "resume": resume.run,
    "stream_tools": stream_tools.run,
    "gate": gate.run,
    "judging": judging.run,
    "concurrent": concurrent.run,
    "tracing": tracing.run,
    "batches": batches.run,
    "batch_kills": batch_kills.run,
    "reflection": reflection.run,
}
NOTES: dict[str, Callable[[], str]] = {
    "peers": peers.versions,
    "kills": kills.conditions,
    "batch_kills": batch_kills.conditions,
}
"""What belongs under the tables of a group on its page, besides when and where they were measured."""

RESULTS = Path(__file__).parent / "results"


def _conditions(name: str, *, quick: bool, load: float) -> str:
    command = f'make bench ARGS="--only {name}{" --quick" if quick else ""}"'
    measured = f"{datetime.now(UTC):%d %B %Y}, {os.cpu_count()} cores, Python {platform.python_version()}"
    note = f" {NOTES[name]()}" if name in NOTES else ""
    return f"`{command}`; {measured}, load {load:.1f} before.{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the figures of specs/performance.md.")
    parser.add_argument("--only", action="append", choices=sorted(GROUPS), help="measure this group; may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--write", action="store_true", help="put the tables on the pages that keep a place for them")
    options = parser.parse_args()
    if options.write and not options.only:
        parser.error("--write needs --only NAME: not every group has a place on a page")
    RESULTS.mkdir(exist_ok=True)
    broken: list[str] = []
    for name in options.only or GROUPS:
        load = os.getloadavg()[0]
        began = time.perf_counter()
        rows = list(GROUPS[name](quick=options.quick))
        took = time.perf_counter() - began
        print(f"\n## {name} (Python {platform.python_version()}, load {load:.1f} before, {took:.0f} s)\n")
        text = pages.tables(rows)
        print(text)
        (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
        if options.write:
            pages.write(name, f"{text}\n\n{_conditions(name, quick=options.quick, load=load)}")
        broken += [f"{row['name']}: {row['value']:g} {row['unit']}" for row in rows if row.get("broken")]
    if broken:
        sys.exit("promises broken:\n" + "\n".join(broken))


if __name__ == "__main__":
    main()
