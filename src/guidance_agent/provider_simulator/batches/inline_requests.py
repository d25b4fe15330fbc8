"""Reads the requests of a message batch from its body while it arrives, so that 256 MB never stand in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from guidance_agent.provider_simulator.wire_errors import ProviderError

__all__ = ["MOST_BYTES", "MOST_REQUESTS", "InlineRequest", "InlineRequests", "check_request"]

MOST_REQUESTS = 100_000
MOST_BYTES = 256 * 1024 * 1024

_SPACE = re.compile(r"[ \t\n\r]*")
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LONGEST_ID = 64
_ENDS = frozenset(" \t\n\r,]}")
_DECODER = json.JSONDecoder()


def _invalid(message: str) -> ProviderError:
    return ProviderError(400, "invalid_request_error", message, headers={"x-should-retry": "false"})


@dataclass(frozen=True, slots=True)
class InlineRequest:
    """One request of a batch: its id, and its parameters as they were sent."""

    custom_id: str
    params: str


def check_request(entry: Any, index: int) -> InlineRequest:
    """One entry of `requests`; raises the provider's 400. Its parameters are looked at when its turn comes."""
    where = f"requests.{index}"
    if not isinstance(entry, dict):
        raise _invalid(f"{where}: Input should be an object")
    if "custom_id" not in entry:
        raise _invalid(f"{where}.custom_id: Field required")
    custom_id = entry["custom_id"]
    if not isinstance(custom_id, str):
        raise _invalid(f"{where}.custom_id: Input should be a valid string")
    if len(custom_id) > _LONGEST_ID:
        raise _invalid(f"{where}.custom_id: String should have at most {_LONGEST_ID} characters")
    if _CUSTOM_ID.fullmatch(custom_id) is None:
        raise _invalid(f"{where}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
    if "params" not in entry:
        raise _invalid(f"{where}.params: Field required")
    if not isinstance(entry["params"], dict):
        raise _invalid(f"{where}.params: Input should be an object")
    return InlineRequest(custom_id, _text(entry["params"]))


def _text(params: dict[str, Any]) -> str:
    text = json.dumps(params, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair can be written in JSON and nowhere else.
        return json.dumps(params, separators=(",", ":"))
    return text


class InlineRequests:
    """A parser that is fed the body piece by piece: `{"requests": [ ... ], ...}`.

    What has been read is dropped; what is kept is at most one request that has not arrived in full.
    """

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._place = "start"
        self._try_from = 0
        self.found = False
        self.count = 0

    def feed(self, data: bytes, *, last: bool = False) -> Iterator[Any]:
        """The entries of `requests` that are complete with this piece; `last` marks the end of the body."""
        try:
            self._text += self._utf8.decode(data, last)
        except UnicodeDecodeError as error:
            raise _not_json(str(error)) from error
        if len(self._text) < self._try_from and not last:
            return
        position = 0
        while True:
            reached = self._step(position)
            if reached is None:
                break
            position, entry = reached
            if entry is not None:
                self.count += 1
                yield entry[0]
        self._text = self._text[position:]
        # A request that is still arriving is not tried again until twice as much of it is there.
        self._try_from = 2 * len(self._text)
        if last and (self._place != "end" or self._text.strip()):
            raise _not_json(f"unexpected end or content: {self._text[:40]!r}")

    def _step(self, position: int) -> tuple[int, tuple[Any] | None] | None:
        """Read on from `position`; None when more of the body is needed."""
        position = self._skip(position)
        if position >= len(self._text):
            return None
        character = self._text[position]
        match self._place:
            case "start":
                self._expect(character, "{", position)
                self._place = "key"
                return position + 1, None
            case "key":
                return self._key(position, character)
            case "value":
                return self._value(position)
            case "after value":
                self._place = "key" if character == "," else "end"
                self._expect(character, ",}", position)
                return position + 1, None
            case "entry":
                if character == "]":
                    self._place = "after value"
                    return position + 1, None
                decoded = self._decode(position)
                if decoded is None:
                    return None
                self._place = "after entry"
                return decoded[0], (decoded[1],)
            case "after entry":
                self._place = "entry" if character == "," else "after value"
                self._expect(character, ",]", position)
                return position + 1, None
        return None

    def _key(self, position: int, character: str) -> tuple[int, None] | None:
        if character == "}":
            self._place = "end"
            return position + 1, None
        self._expect(character, '"', position)
        decoded = self._decode(position)
        if decoded is None:
            return None
        end = self._skip(decoded[0])
        # The opening of the list must be there, too, to tell a list of requests from anything else.
        opening = self._skip(end + 1)
        if opening >= len(self._text):
            return None
        self._expect(self._text[end], ":", end)
        if decoded[1] == "requests":
            self.found = True
            if self._text[opening] != "[":
                raise _invalid("requests: Input should be a valid array")
            self._place = "entry"
            return opening + 1, None
        self._place = "value"
        return opening, None

    def _value(self, position: int) -> tuple[int, None] | None:
        decoded = self._decode(position)
        if decoded is None:
            return None
        self._place = "after value"
        return decoded[0], None

    def _decode(self, position: int) -> tuple[int, Any] | None:
        """The value at `position` and its end; None when it has not arrived in full.

        A number may go on until something has arrived that ends it.
        """
        try:
            value, end = _DECODER.raw_decode(self._text, position)
        except json.JSONDecodeError:
            return None
        except RecursionError as error:
            raise _not_json("it is nested too deeply") from error
        if not isinstance(value, dict | list | str) and self._text[end : end + 1] not in _ENDS:
            return None
        return end, value

    def _skip(self, position: int) -> int:
        space = _SPACE.match(self._text, position)
        return position if space is None else space.end()

    def _expect(self, character: str, wanted: str, position: int) -> None:
        if character not in wanted:
            raise _not_json(f"expected one of {wanted!r} before {self._text[position : position + 40]!r}")


def _not_json(why: str) -> ProviderError:
    return _invalid(f"The request body is not valid JSON: {why}")
