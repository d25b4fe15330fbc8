"""What a transport does otherwise than promised, because what it is built on cannot be made to behave.

An exception is a promise, too: the suite asserts that what it says really happens, so that an upgrade which mends it is
noticed, and `specs/conformance.md` lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["EXCEPTIONS", "KnownException", "exception_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownException:
    """One difference.

    Attributes:
        feature: Name of the test function without `test_`.
        subjects: The transports that differ.
        cases: Ids of the parameters that differ, without the subject; empty means all.
        instead: What is observed instead, by field of `Observed`.
        happens: The same in words.
        why: Why it cannot be mended here.
    """

    feature: str
    subjects: tuple[str, ...]
    cases: tuple[str, ...] = ()
    instead: Mapping[str, object] = field(default_factory=dict)
    happens: str
    why: str


EXCEPTIONS: tuple[KnownException, ...] = ()


def exception_of(feature: str, subject: str, case: str) -> KnownException | None:
    """Return the exception that is listed for a case, if one is."""
    for known in EXCEPTIONS:
        if known.feature == feature and subject in known.subjects and (not known.cases or case in known.cases):
            return known
    return None
