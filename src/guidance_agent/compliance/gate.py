"""The gate through which every piece of an answer passes before it is journaled.

A gate is a function of the text and never of its pieces: what it has released after a prefix depends on that prefix
alone. `OpenGate` releases everything at once; it is the gate while no checks are configured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

__all__ = ["OpenGate", "Released", "TextGate", "Withholding"]


@dataclass(frozen=True, slots=True)
class Withholding:
    """A stretch of the model's text that is not shown, and the text that stands in its place."""

    check: str
    reason: str
    replacement: str


Released: TypeAlias = str | Withholding


class TextGate(Protocol):
    """What stands between the model's text and the journal. Called on the event loop; must not block."""

    def feed(self, text: str) -> Sequence[Released]:
        """Take the next piece of the model's text and return what may now be shown, in order."""

    def finish(self) -> Sequence[Released]:
        """Return what may be shown once the model's text has ended, whole or cut off."""


class OpenGate:
    """Releases every piece as it comes."""

    def feed(self, text: str) -> Sequence[Released]:
        return (text,)

    def finish(self) -> Sequence[Released]:
        return ()
