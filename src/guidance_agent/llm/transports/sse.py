"""Server-sent events, read incrementally from bytes that may be cut anywhere.

`feed` takes what arrived and returns the data of the events that are complete with it. It works on whole blocks
between blank lines rather than on lines: an event costs two string searches, and the cost is linear in the bytes
however small the pieces are. Event names, ids and retry times are not returned, because both wire formats repeat in the
data what they need; comments and pings without data disappear.
"""

from __future__ import annotations

__all__ = ["MAX_EVENT_BYTES", "EventTooLong", "SseReader", "looks_like_events"]

MAX_EVENT_BYTES = 32 * 1024 * 1024
"""Longest event that is accepted, in bytes. An answer in one event fits; an endless line does not fill the memory."""

_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST_BLANK = 1024


def looks_like_events(begin: bytes) -> bool | None:
    """Return whether a body that begins like this is an event stream, for bodies without a label that says so.

    None means that too little has arrived to tell.
    """
    if _BOM.startswith(begin):
        return None
    found = begin.removeprefix(_BOM).lstrip()
    if found.startswith(_FIELDS):
        return True
    return None if len(begin) <= _LONGEST_BLANK and any(field.startswith(found) for field in _FIELDS) else False


class EventTooLong(ValueError):
    """Raised when an event grows beyond the limit without coming to its end."""


class SseReader:
    """Turns a stream of bytes into the data of its events.

    Args:
        limit: Longest event accepted, in bytes.
    """

    __slots__ = ("_after_cr", "_held", "_limit", "_pieces", "_size", "_start")

    def __init__(self, *, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._held = b""
        self._start = True
        self._after_cr = False

    def feed(self, data: bytes) -> list[str]:
        """Return the data of each event that `data` completes, in order.

        Raises:
            EventTooLong: when the unfinished event is longer than the limit.
        """
        if self._start:
            data = self._without_bom(data)
        if self._after_cr or b"\r" in data:
            data = self._with_plain_newlines(data)
        pieces = self._pieces
        crosses = bool(pieces) and data.startswith(b"\n") and pieces[-1].endswith(b"\n")
        end = data.rfind(b"\n\n")
        if end < 0 and not crosses:
            self._keep(data)
            return []
        # The separator may lie across the old pieces and the new one; what follows the last separator stays.
        cut = end + 2 if end >= 0 else 1
        pieces.append(data[:cut])
        blocks = b"".join(pieces) if len(pieces) > 1 else pieces[0]
        pieces.clear()
        self._size = 0
        if cut < len(data):
            self._keep(data[cut:])
        return _payloads(blocks.decode("utf-8", "replace"))

    def finish(self) -> list[str]:
        """Return the data of an event that the end of the body cut before its blank line."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return _payloads(rest.decode("utf-8", "replace"))

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._limit:
            raise EventTooLong(f"An event is longer than {self._limit} bytes and has not ended.")

    def _without_bom(self, data: bytes) -> bytes:
        data = self._held + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._held = data
            return b""
        self._held = b""
        self._start = False
        return data.removeprefix(_BOM)

    def _with_plain_newlines(self, data: bytes) -> bytes:
        if not data:
            return data
        if self._after_cr and data.startswith(b"\n"):
            # The carriage return at the end of the last piece has already ended this line.
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _payloads(text: str) -> list[str]:
    found = []
    for block in text.split("\n\n"):
        if block.startswith("data:"):
            start = 5
        else:
            # One line of the event's name before one line of data is how every event of one wire format looks.
            start = block.find("\ndata:") + 6
            if start == 5 or not block.startswith("event:") or block.find("\n") != start - 6:
                if (data := _by_lines(block)) is not None:
                    found.append(data)
                continue
        if block.find("\n", start) >= 0:
            if (data := _by_lines(block)) is not None:
                found.append(data)
            continue
        found.append(block[start + 1 :] if block.startswith(" ", start) else block[start:])
    return found


def _by_lines(block: str) -> str | None:
    lines = []
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        if name == "data":
            lines.append(value.removeprefix(" "))
    return "\n".join(lines) if lines else None
