"""The fingerprint of the gate's rules, told without reading them.

`python -m fitting` writes the version of the models beside them, so that a turn can be put on record while they are
still being read.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from guidance_agent.errors import KnowledgeError
from guidance_agent.knowledge.loader import Knowledge

__all__ = ["fitted_version", "gate_rules_version"]


@lru_cache(maxsize=1)
def fitted_version() -> str:
    """Return the version of the models that the package ships.

    Raises:
        KnowledgeError: when the file is missing.
    """
    file = resources.files("guidance_agent.compliance") / "model" / "version.txt"
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise KnowledgeError(f"The file {str(file)!r} cannot be read: {error}. Install the package again.") from error


def gate_rules_version(sentences: str, knowledge: Knowledge) -> str:
    """Return the version of rules of sentences with the version `sentences`, together with dated facts."""
    return f"{sentences}-{knowledge.version}"
