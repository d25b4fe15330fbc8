"""Redoes the arithmetic that a sentence states: shares, sums, differences, weeks and months to a year, tax relief."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from guidance_agent.compliance.language import Words
from guidance_agent.compliance.quantities import Quantity

__all__ = ["StatedSum", "may_state_sum", "stated_sums"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedSum:
    """A result that a sentence states, its place in the text, and what its own numbers give instead if it is wrong."""

    sum: str
    start: int
    end: int
    right: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    name: str
    regex: re.Pattern[str]
    result: Callable[[Mapping[str, Quantity]], Decimal | None]


def _any_of(words: str) -> str:
    return "(?:" + "|".join([each.strip() for each in words.split(",")]) + ") "


def _money(name: str) -> str:
    return f"(?P<{name}>#gbp|#big) "


def _gap(most: int) -> str:
    """Words between, no number and no end of a sentence among them."""
    return r"(?:(?!#|[.!?…;])\S+ ){0," + str(most) + "}?"


_ROUGH = (
    "(?:" + _any_of("about,around,roughly,just,exactly,only,a total of,to,some,nearly,almost,you,up to,at,with") + ")*"
)
_IS = (
    _any_of("is,'s,are,equals,comes to,come to,would be,will be,makes,make,gives,means,works out at,amounts to")
    + _ROUGH
)
_MAKES = _any_of("is,makes,make,comes to,come to,equals,total,totals,adds up to,add up to,gives,give,leaves") + _ROUGH
_WHOSE = "(?:" + _any_of("a,the,your,his,her,their,that,another,further,pot of,fund of") + "){0,3}"
_TOGETHER = "(?:" + _any_of("together,in all,combined,tax-free,[,],which,that") + "){0,2}"
_JOIN = "(?:" + _any_of("[,],a,the,that,which,so,then,this,pot,fund,of,pension,it,tax-free") + "){0,4}?"


def _share(given: Mapping[str, Quantity]) -> Decimal | None:
    return given["a"].value * given["b"].value / 100


def _rest(given: Mapping[str, Quantity]) -> Decimal | None:
    """What is left of a pot after the share that was just stated rightly."""
    if abs(given["a"].value * given["b"].value / 100 - given["c"].value) > 1:
        return None
    return given["b"].value - given["c"].value


def _times(unit: str, factor: int) -> Callable[[Mapping[str, Quantity]], Decimal | None]:
    def result(given: Mapping[str, Quantity]) -> Decimal | None:
        return given["a"].value * factor if (given["a"].per, given["d"].per) == (unit, "year") else None

    return result


def _deferral(given: Mapping[str, Quantity]) -> Decimal | None:
    """One percent for every nine weeks by which the State Pension is put off."""
    put_off = given["a"]
    if put_off.unit == "weeks":
        return put_off.value / 9
    # What a single year adds is a figure that the facts give.
    return put_off.value * 52 / 9 if put_off.unit == "years" and put_off.value > 1 else None


def _sum(name: str, pattern: str, result: Callable[[Mapping[str, Quantity]], Decimal | None]) -> _Sum:
    return _Sum(name=name, regex=re.compile(r"(?<!\S)" + pattern), result=result)


_SHARE_OF = "(?P<a>#pct) " + _any_of("of,on,out of") + _WHOSE + _money("b") + _JOIN + _IS
_SUMS = (
    _sum("share", _SHARE_OF + _money("d"), _share),
    _sum(
        "rest",
        _SHARE_OF + _money("c") + _gap(6) + _any_of("leaves,leaving,leave,remaining,rest is,other,and,[,]") + _ROUGH
        + "(?:(?:the|other) ){0,2}" + _money("d")
        + r"(?=(?:\S+ ){0,5}?(?:left|taxed|taxable|remaining|tax|invested|be|to))",
        _rest,
    ),
    _sum(
        "total",
        "(?<!plus )(?<!, )(?<!and )" + _money("a") + _any_of("plus,and") + _WHOSE + _money("b") + _TOGETHER + _MAKES
        + _money("d"),
        lambda given: given["a"].value + given["b"].value,
    ),
    _sum(
        "total of three",
        _money("a") + _any_of("plus,[,],and") + _WHOSE + _money("b") + "(?:, )?" + _any_of("plus,and") + _WHOSE
        + _money("c") + _TOGETHER + _MAKES + _money("d"),
        lambda given: given["a"].value + given["b"].value + given["c"].value,
    ),
    _sum(
        "difference",
        _money("a") + _any_of("minus,less,take away") + _WHOSE + _money("b") + _TOGETHER + _MAKES + _money("d"),
        lambda given: given["a"].value - given["b"].value,
    ),
    _sum("weeks of a year", _money("a") + _JOIN + _IS + _money("d"), _times("week", 52)),
    _sum("months of a year", _money("a") + _JOIN + _IS + _money("d"), _times("month", 12)),
    _sum(
        "relief at source",
        _money("a") + _gap(8) + _any_of("made,topped,tops,grossed,bumped,brought,becomes,grows,turns")
        + "(?:it |that |this )?(?:up )?(?:to |into )?" + _ROUGH + _money("d"),
        lambda given: given["a"].value * 5 / 4,
    ),
    _sum(
        "deferral",
        r"(?:defer\S*|putting off|put off|put it off) " + _gap(6) + "(?P<a>#span) " + _gap(5)
        + _any_of("adds,add,gives,give,earns,brings,raises,increases") + _gap(5) + "(?P<d>#pct) ",
        _deferral,
    ),
)  # fmt: skip
_ABOUT = frozenset(("about", "around", "roughly", "nearly", "almost", "approximately", "some", "over", "under"))
_ABOUT_REACH = 24
_DENIED = re.compile(r"\b(?:not|n't|wrong|wrongly|mistake|myth) (?:\S+ ){0,2}\Z")
_LOOSE = Decimal("0.025")


def may_state_sum(numbers: Sequence[tuple[int, Quantity]]) -> bool:
    """Whether numbers can be those of a sum; costs next to nothing."""
    if len(numbers) < 2:
        return False
    kinds = [quantity.kind for _, quantity in numbers]
    return kinds.count("gbp") + kinds.count("big") >= 2 or ("pct" in kinds and "span" in kinds)


def stated_sums(marked: Words, quantities: Sequence[Quantity | None]) -> Iterator[StatedSum]:
    """Yield the results in a sentence that can be redone from its own numbers."""
    line = marked.line
    if line.count("#") < 2:
        return
    seen: set[int] = set()
    for each in _SUMS:
        for match in each.regex.finditer(line):
            given = {}
            for name in match.groupdict():
                quantity = quantities[line.count(" ", 0, match.start(name))]
                if quantity is not None:
                    given[name] = quantity
            right = each.result(given)
            said = given["d"]
            before = line[: match.start("d")]
            if right is None or said.start in seen or _DENIED.search(before):
                continue
            seen.add(said.start)
            about = not _ABOUT.isdisjoint(before[-_ABOUT_REACH:].split())
            shown = None if _is_near(said.value, right, about=about) else _shown(right, said)
            yield StatedSum(sum=f"sum: {each.name}", start=said.start, end=said.end, right=shown)


def _shown(right: Decimal, said: Quantity) -> str:
    if said.kind == "pct":
        return f"{right.quantize(Decimal('0.1')).normalize():f}%"
    return f"£{right:,.0f}" if right == right.to_integral_value() else f"£{right:,.2f}"


def _is_near(said: Decimal, right: Decimal, *, about: bool) -> bool:
    difference = abs(said - right)
    # Odd pence and a rounded share of a percent are no errors.
    if said > _ODD_PENCE and difference <= max(Decimal(1), right / 200):
        return True
    return difference <= (right * _LOOSE if about else Decimal("0.05"))


_ODD_PENCE = 50
