"""Measure the figures of `specs/performance.md`: `make bench`, or `python -m benchmarks.run [--only NAME] [--quick]`.

Every table stands beside the floor of the same run (raw aiohttp, the bare interpreter, one numpy product), because the
machine decides about absolute times. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import advisor_path, latency, model_door, retrieval, startup

GROUPS: dict[str, Callable[..., Sequence[Any]]] = {
    "startup": startup.run,
    "model_door": model_door.run,
    "advisor_path": advisor_path.run,
    "retrieval": retrieval.run,
    "latency": latency.run,
}
RESULTS = Path(__file__).parent / "results"


def _table(rows: Sequence[Any]) -> str:
    lines = ["| what | measured | floor | ratio | target |", "|---|---|---|---|---|"]
    for item in rows:
        floor = "" if item.get("floor") is None else f"{item['floor']:g} {item['unit']}"
        ratio = "" if item.get("ratio") is None else f"{item['ratio']:g}"
        target = item.get("target") or ""
        lines.append(f"| {item['name']} | {item['value']:g} {item['unit']} | {floor} | {ratio} | {target} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the figures of specs/performance.md.")
    parser.add_argument("--only", action="append", choices=sorted(GROUPS), help="measure this group; may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for name in options.only or GROUPS:
        load = os.getloadavg()[0]
        began = time.perf_counter()
        rows = list(GROUPS[name](quick=options.quick))
        took = time.perf_counter() - began
        print(f"\n## {name} (Python {platform.python_version()}, load {load:.1f} before, {took:.0f} s)\n")
        print(_table(rows))
        (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
