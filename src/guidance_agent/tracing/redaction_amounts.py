"""Sums of money, for services whose traces must not show them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Literal

from guidance_agent.tracing.redaction_rules import Found, Rule
from guidance_agent.tracing.redaction_views import Reading

__all__ = ["amounts"]

_NUMBER = r"[0-9]{1,12}(?:,[0-9]{3}){0,4}(?:\.[0-9]{1,4})?"
_UNIT = r"(?:\s?(?:k|m|bn|million|thousand|grand|billion)(?![a-z]))?"
_AMOUNT = re.compile(
    rf"(?:£|gbp)\s?(?P<pounds>{_NUMBER})(?P<unit>{_UNIT})(?![0-9])"
    rf"|(?<![0-9a-z.,])(?P<said>{_NUMBER})(?P<said_unit>{_UNIT})\s(?:pounds?|quid|gbp)(?![a-z])"
    rf"|(?<![0-9a-z.,])(?P<short>{_NUMBER})(?P<short_unit>k)(?![0-9a-z])"
    rf"|(?:_gbp(?:_[a-z]+)?|pounds)[\"']?\s?[:=]\s?(?P<field>{_NUMBER})(?![0-9])"
)
_FACTORS = {"k": 1_000, "thousand": 1_000, "grand": 1_000, "m": 10**6, "million": 10**6, "bn": 10**9, "billion": 10**9}


def amounts(how: Literal["round", "hide"]) -> Rule:
    """Return the rule that rounds sums to one significant figure, or hides them."""

    def rule(reading: Reading) -> Iterator[Found]:
        for found in _AMOUNT.finditer(reading.lower):
            number = next(found[name] for name in ("pounds", "said", "short", "field") if found[name] is not None)
            unit = (found["unit"] or found["said_unit"] or found["short_unit"] or "").strip()
            # A field of JSON stays a number beside its key; in prose the sign and the unit go with the sum.
            start, stop = found.span("field") if found["field"] is not None else found.span()
            yield Found(start, stop, "AMOUNT", "" if how == "hide" else _rounded(number, unit, found["field"] is None))

    return rule


def _rounded(number: str, unit: str, sign: bool) -> str:
    try:
        value = Decimal(number.replace(",", "")) * _FACTORS.get(unit, 1)
    except InvalidOperation:
        return ""
    rough = value.quantize(Decimal(1).scaleb(value.adjusted())) if value else value
    return f"£{int(rough):,}" if sign else str(int(rough))
