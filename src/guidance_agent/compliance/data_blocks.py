"""Marks around data in a prompt that nothing inside the data can imitate.

A mark ends in a code that is computed from all the data of the message. A text that held its own code would have to
have been written with the code of a text that holds it; where a code happens to occur, the next one is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["block_code"]

_LENGTH = 16


def block_code(texts: Sequence[str]) -> str:
    """Return a code that occurs in none of `texts`; the same texts give the same code."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    code = digest.hexdigest()[:_LENGTH]
    while any(code in text for text in texts):
        code = hashlib.sha256(code.encode()).hexdigest()[:_LENGTH]
    return code
