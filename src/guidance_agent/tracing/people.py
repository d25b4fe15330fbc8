"""Who redaction looks for by name: the customer, and the people that their profile tells of."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Told", "people_of"]

_SHORTEST_ID = 5
"""A customer's id that is shorter is too often an ordinary word or number to be looked for in texts."""

_OTHERS = {"partner": "partner", "dependants": "children", "notes": "friend"}
"""Fields of a profile that may name other people, and who these are to the customer."""


class Told(str):
    """A sentence of a profile about other people, such as "My partner: Ottoline."

    It is no name itself: redaction (`Redactor`) learns names from it, in its own time.
    """

    __slots__ = ()


def people_of(customer_id: str, profile: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of a customer, and sentences (`Told`) in which redaction finds those of other people.

    Args:
        customer_id: Looked for too, where it says more than a number.
        profile: The values of a `CustomerProfile`, as it is or as it was stored.
    """
    found = [_text(profile, "first_name"), customer_id if len(customer_id) >= _SHORTEST_ID else ""]
    for field, who in _OTHERS.items():
        if text := _text(profile, field):
            found.append(Told(f"My {who}: {text}."))
    return tuple(name for name in found if name)


def _text(profile: Mapping[str, object], field: str) -> str:
    value = profile.get(field)
    return value if isinstance(value, str) else ""
