"""Where a clause begins: after a comma, a dash, a bracket or a line break."""

from __future__ import annotations

from collections.abc import Sequence

from guidance_agent.compliance.language import Token

__all__ = ["CLAUSE_MARKS", "clause_start"]

CLAUSE_MARKS = frozenset(",;:–—(\n")


def clause_start(tokens: Sequence[Token], place: int) -> int:
    """Return the number of the first token of the clause that holds the token with the number `place`."""
    while place > 0 and tokens[place - 1].text not in CLAUSE_MARKS:
        place -= 1
    return place
