"""What a transport does otherwise than promised, because what it is built on cannot be made to behave.

An exception is a promise, too: the suite asserts that what it says really happens, so that an upgrade which mends it is
noticed, and `specs/conformance.md` lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["EXCEPTIONS", "KnownException", "case_of", "exception_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownException:
    """One difference.

    Attributes:
        feature: Name of the test function without `test_`.
        subjects: The transports that differ.
        difference: Number of the difference in the transport's KNOWN_DIFFERENCES.
        cases: Ids of the parameters that differ, without the subject; empty means all.
        instead: What is observed instead, by the names that the test compares.
        happens: The same in words.
        why: Why it cannot be mended here.
    """

    feature: str
    subjects: tuple[str, ...]
    difference: int
    cases: tuple[str, ...] = ()
    instead: Mapping[str, object]
    happens: str
    why: str


EXCEPTIONS: tuple[KnownException, ...] = (
    KnownException(
        feature="all_that_arrived_together_is_read_together",
        subjects=("litellm-anthropic", "litellm-openai"),
        difference=1,
        instead={"together": False},
        happens="each piece by itself",
        why="LiteLLM gives out one chunk at a time",
    ),
    KnownException(
        feature="a_schema_needs_no_header_of_its_own",
        subjects=("litellm-anthropic",),
        difference=2,
        instead={"beta": "structured-outputs-2025-11-13"},
        happens="a beta header is sent",
        why="LiteLLM adds the header that the API needed once",
    ),
)


def exception_of(feature: str, subject: str, case: str) -> KnownException | None:
    """Return the exception that is listed for a case, if one is."""
    for known in EXCEPTIONS:
        if known.feature == feature and subject in known.subjects and (not known.cases or case in known.cases):
            return known
    return None


def case_of(parameters: str, subject: str) -> str:
    """Return the id of a test's parameters without the subject."""
    return parameters.replace(subject, "").strip("-")
