"""The reviewed wording that takes the place of an answer of which no version passed."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

__all__ = ["safe_answer"]


@lru_cache(maxsize=1)
def safe_answer() -> str:
    """Return the wording; people have reviewed it, and no model writes in it."""
    return (resources.files("guidance_agent.compliance") / "safe_answer.md").read_text(encoding="utf-8").strip()
