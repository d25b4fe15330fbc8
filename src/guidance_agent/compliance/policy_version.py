"""One fingerprint of everything by which texts are judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable

from guidance_agent.compliance.verdict import CHECKS

__all__ = ["judging_version"]

_LENGTH = 16


@lru_cache(maxsize=1)
def judging_version() -> str:
    """Return a fingerprint of the rules, the policy, the templates of the judges and the list of checks.

    Two verdicts with the same fingerprint were made by the same standard, whichever model judged. Reads some forty
    small files, once per process.
    """
    digest = hashlib.sha256(json.dumps(CHECKS).encode())
    for name, content in sorted(_data_files(resources.files("guidance_agent.compliance"), "")):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:_LENGTH]


def _data_files(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _data_files(entry, f"{prefix}{entry.name}/")
        elif not entry.name.endswith((".py", ".pyc")):
            yield f"{prefix}{entry.name}", entry.read_bytes()
