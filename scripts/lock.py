"""Make the hash-pinned lock lists, without index lines or file addresses.

Two come from pyproject.toml; the one of the Phoenix server, which has an environment of its own, from the file beside
it. `python scripts/lock.py NAME ...` makes only the named ones.

Needs `uv` (`pip install uv`), which resolves for Python 3.11 to 3.13 and all platforms at once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PHOENIX = "src/guidance_agent/phoenix"


class LockList(NamedTuple):
    """A list, and what it is resolved from, as `uv pip compile` names it."""

    target: str
    sources: tuple[str, ...]


LISTS = {
    "run": LockList("locks/run.txt", ("pyproject.toml", "--group", "build")),
    "dev": LockList("locks/dev.txt", ("pyproject.toml", "--group", "dev")),
    "phoenix": LockList(f"{PHOENIX}/requirements.txt", (f"{PHOENIX}/requirements.in",)),
}
OPTIONS = (
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-annotate",
    "--no-header",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--quiet",
)


def main(names: list[str]) -> int:
    uv = shutil.which("uv")
    if uv is None:
        sys.stderr.write("uv is not installed. Install it with: pip install uv\n")
        return 1
    unknown = [name for name in names if name not in LISTS]
    if unknown:
        sys.stderr.write(f"There is no list {unknown[0]!r}. Use one of {', '.join(LISTS)}.\n")
        return 2
    for name in names or LISTS:
        target, sources = LISTS[name]
        command = [uv, "pip", "compile", *OPTIONS, *sources, "-o", target]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603
        lines = (ROOT / target).read_text(encoding="utf-8").splitlines()
        if any(line.startswith(("--index", "--extra-index", "--find-links", "file:")) for line in lines):
            sys.stderr.write(f"{target} holds an index address\n")
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
