"""The redaction of our own spans, text by text, as they are made ready in the exporter's thread.

A name that one text of a customer announces ("my wife Susan") is redacted in the texts that follow, so that the answer
does not say what the question was relieved of; so are the people that the profile tells of. What was learnt is kept by
the customer's own names, in memory, for the newest thousand of them; a customer without names has nothing learnt,
because it would be everybody's.
"""

from __future__ import annotations

from guidance_agent.tracing.redaction import Redactor

__all__ = ["SpanRedaction"]

_CUSTOMERS = 1_000
_WORDS = 64
_KEY = "key"
"""Under it come the names of attributes."""

_OWN_WORDS = frozenset({"name", "status"})
"""Keys under which the program's own texts come: a span's name, and what its status says."""


class SpanRedaction:
    """Takes personal data out of the texts of a span. Belongs to one thread.

    Args:
        redactor: What redacts; a `Redactor` with its defaults if None.
    """

    def __init__(self, redactor: Redactor | None = None) -> None:
        self._redactor = Redactor() if redactor is None else redactor
        self._learned: dict[tuple[str, ...], dict[str, None]] = {}

    def redact(self, key: str, value: str, names: tuple[str, ...]) -> str:
        """Return the text of an attribute without personal data; `FAILED` if that cannot be done."""

        def redacted(text: str) -> str:
            learned = self._learned_of(names)
            mark = None if key == _KEY or key in _OWN_WORDS else self._redactor.mark_for(key, text)
            if key == _KEY or mark is not None:
                made, announced = mark, self._redactor.names_in(text)
            else:
                made, announced = self._redactor.read(text, known=names, learned=learned)
            if names and len(learned) < _WORDS:
                learned.update(dict.fromkeys(announced))
            if made is None:
                return self._redactor.redact_key(text, known=names, learned=learned)
            return made

        return self._redactor.safely(redacted, value)

    def _learned_of(self, names: tuple[str, ...]) -> dict[str, None]:
        """Return what was learnt of a customer, the first first."""
        if not names:
            return {}
        learned = self._learned.setdefault(names, {})
        while len(self._learned) > _CUSTOMERS:
            del self._learned[next(iter(self._learned))]
        return learned
