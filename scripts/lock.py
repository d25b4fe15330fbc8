"""Make the hash-pinned lock lists from pyproject.toml, without index lines or file addresses.

Needs `uv` (`pip install uv`), which resolves for Python 3.11 to 3.13 and all platforms at once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LISTS = {"run": "build", "dev": "dev"}
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


def main() -> int:
    uv = shutil.which("uv")
    if uv is None:
        sys.stderr.write("uv is not installed. Install it with: pip install uv\n")
        return 1
    for name, group in LISTS.items():
        target = ROOT / "locks" / f"{name}.txt"
        command = [uv, "pip", "compile", *OPTIONS, "pyproject.toml", "--group", group, "-o", str(target)]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603
        lines = target.read_text(encoding="utf-8").splitlines()
        if any(line.startswith(("--index", "--extra-index", "--find-links", "file:")) for line in lines):
            sys.stderr.write(f"{target} holds an index address\n")
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
