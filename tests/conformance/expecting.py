"""The comparison of what is seen with what is promised, or with the exception that is listed."""

from __future__ import annotations

import pytest

from tests.conformance.exceptions import case_of, exception_of
from tests.conformance.subjects import Subject

__all__ = ["Expect"]


class Expect:
    """Compares what is seen with what is promised, or with the exception that is listed for the case.

    Where an exception is listed, the promise must be broken, and in the way that the list says.
    """

    def __init__(self, request: pytest.FixtureRequest, subject: Subject) -> None:
        feature = request.node.originalname.removeprefix("test_")
        self.exception = exception_of(feature, str(subject), case_of(request.node.callspec.id, str(subject)))
        self.asserted = False

    def __call__(self, seen: object, **promised: object) -> None:
        found = {name: getattr(seen, name) for name in promised}
        failure = getattr(seen, "failure", None)
        if self.exception is None:
            assert found == promised, f"{failure}"
            return
        self.asserted = True
        assert found != promised, "The exception has gone: delete it from exceptions.py and from KNOWN_DIFFERENCES."
        instead = {name: getattr(seen, name) for name in self.exception.instead}
        assert instead == self.exception.instead, f"the exception happens in another way: {failure}"
