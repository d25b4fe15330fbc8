"""Cuts a stream of bytes into pieces, as providers, proxies and networks do; the same seed cuts the same way."""

from __future__ import annotations

import random
import re
from itertools import pairwise

__all__ = ["SPLITS", "pieces_of", "split"]

SPLITS = ("events", "1 to 64 bytes", "1 byte", "inside UTF-8", "inside data:")
"""Ways to cut: after events, anywhere, everywhere, in the middle of characters, in the middle of field names."""

_EVENT_END = re.compile(rb"(?:\r\n|\r|\n)(?:\r\n|\r|\n)")
_FIELD = re.compile(rb"(?:data|event): ?")
_CONTINUATION = range(0x80, 0xC0)


def split(body: bytes, way: str, rng: random.Random) -> list[bytes]:
    """Return `body` cut in one of the ways of `SPLITS`; the ways that aim at a place also cut elsewhere at times."""
    if way == "1 byte":
        return [body[place : place + 1] for place in range(len(body))]
    if way == "1 to 64 bytes":
        cuts, place = [], 0
        while place < len(body):
            place += rng.randint(1, 64)
            cuts.append(place)
        return pieces_of(body, cuts)
    if way == "events":
        places, share = [found.end() for found in _EVENT_END.finditer(body)], 0.7
    elif way == "inside UTF-8":
        places, share = [place for place, byte in enumerate(body) if byte in _CONTINUATION], 0.6
    elif way == "inside data:":
        places = [place for found in _FIELD.finditer(body) for place in range(found.start() + 1, found.end() + 1)]
        share = 0.3
    else:
        raise ValueError(f"no such way to cut: {way!r}; use one of {SPLITS}")
    cuts = [place for place in places if rng.random() < share]
    if way != "events":
        cuts += [rng.randrange(len(body)) for _ in range(rng.randint(0, 3))]
    return pieces_of(body, cuts)


def pieces_of(body: bytes, cuts: list[int]) -> list[bytes]:
    """Return `body` cut at these places; places outside it are passed over."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(body)}), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]
