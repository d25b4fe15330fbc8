"""Texts that were redacted before: most come again, in the spans of one turn and in the prompts of every turn.

What a text becomes depends on whose it is, by their names. A long text that has come with other names before belongs to
nobody: the stable parts of prompts are the same for all. It is redacted once without names, and taken as it then is for
every customer of whose own names it holds no word.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from guidance_agent.tracing.people import Told

__all__ = ["RedactedTexts"]

_CHARACTERS = 4_000_000
_COST_OF_ENTRY = 200
_WITH_KEY_UP_TO = 400
"""Shorter values may be personal by the name that they stand under."""

_SHARED_FROM = 200
_Place = tuple[str, str, tuple[str, ...]]


class RedactedTexts:
    """A bounded memory of texts and what became of them. Belongs to one thread.

    Args:
        redact: Takes the name that a text stands under, the text and the customer's names, and redacts it.
    """

    def __init__(self, redact: Callable[[str, str, tuple[str, ...]], str]) -> None:
        self._redact = redact
        self._known: OrderedDict[_Place, str] = OrderedDict()
        self._characters = 0
        self._first_names: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def of(self, key: str, text: str, names: tuple[str, ...]) -> str:
        """Return what a text becomes."""
        place = (key if len(text) <= _WITH_KEY_UP_TO else "", text, names)
        found = self._known.get(place)
        if found is not None:
            self._known.move_to_end(place)
            return found
        if names and len(text) >= _SHARED_FROM and self._is_nobodys(text, names):
            return self.of(key, text, ())
        made = self._redact(key, text, names)
        self._keep(place, made)
        return made

    def _is_nobodys(self, text: str, names: tuple[str, ...]) -> bool:
        first = self._first_names.setdefault(text, names)
        while len(self._first_names) > 256:
            self._first_names.popitem(last=False)
        if first == names:
            return False
        from guidance_agent.tracing.redaction_names import parts_of
        from guidance_agent.tracing.redaction_views import fold

        plain = fold(text).lower()
        own = (name for name in names if not isinstance(name, Told))
        parts = {part for name in own for part in (fold(name).lower(), *parts_of(name))}
        return not any(part in plain for part in parts)

    def _keep(self, place: _Place, made: str) -> None:
        self._known[place] = made
        self._characters += len(place[1]) + len(made) + _COST_OF_ENTRY
        while self._characters > _CHARACTERS:
            (_, old, _), old_made = self._known.popitem(last=False)
            self._characters -= len(old) + len(old_made) + _COST_OF_ENTRY
