"""Answers that are hard to read in pieces, each in both wire formats; some of them end badly."""

from __future__ import annotations

from collections.abc import Mapping

from tests.conformance.wires import Said, SaidTool, WireFormat, body_of

__all__ = ["SPECIMENS", "specimen"]

_TEXT = (
    "Your pot — £30,000 – ",
    "stays invested. 🧓🏽",
    " Ça de\u0301pend…\n\n",
    "- data: [DONE]\n",
    "קצבה ",
    "👩🏽\u200d🦳🇬🇧",
)
_THINKING = ("The pot is small 🏦. ", "So tax – at 20 % – ", "matters.")
_FIRST = SaidTool(id="call_1", name="figures", arguments=('{"yea', 'r": "2026/', '27 £🏦"', "}"))
_SECOND = SaidTool(id="call_2", name="today", arguments=("{}",))

_SAID: Mapping[str, Said] = {
    "text": Said(text=_TEXT),
    "thinking": Said(thinking=_THINKING, text=_TEXT[:2]),
    "tools": Said(text=_TEXT[1:3], tools=(_FIRST, _SECOND)),
    "refusal": Said(text=_TEXT[:1], refusal=("I cannot ", "help – 🙏.")),
}

SPECIMENS = (*_SAID, "cut short", "escaped", "many lines", "noise", "error", "truncated", "no last blank line")
"""Names of the specimens."""


def specimen(name: str, wire: WireFormat) -> bytes:
    """Return the body of a specimen."""
    if name in _SAID:
        return body_of(wire.events(_SAID[name]))
    if name == "cut short":
        word = next(word for word, meaning in wire.finish_reasons.items() if meaning == "length")
        return body_of(wire.events(Said(text=_TEXT[:3], finish=word)))
    events = wire.events(Said(text=("a bank \ue000", "\ue001 here", *_TEXT[:3])))
    whole = body_of(events)
    if name == "escaped":
        return whole.replace("\ue000".encode(), b"\\ud83c").replace("\ue001".encode(), b"\\udfe6")
    if name == "many lines":
        return whole.replace(b'":', b'":\ndata: ')
    if name == "noise":
        noise = (wire.ping, b": a comment \xe2\x80\x94\n\n", b"retry: 10\n\n", b"\n", b"id: 7\n", wire.unknown)
        return b"".join(noise[number % len(noise)] + event.data for number, event in enumerate(events))
    if name == "error":
        return body_of(events[:5]) + wire.error_event("overloaded_error", "Überlastet 🏦")
    if name == "truncated":
        return body_of(events[:5]) + events[5].data[:30]
    if name == "no last blank line":
        return whole.rstrip(b"\n")
    raise ValueError(f"no such specimen: {name!r}; use one of {SPECIMENS}")
