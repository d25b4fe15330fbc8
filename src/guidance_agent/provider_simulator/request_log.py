"""What the simulator was asked, and what became of each request."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["RequestLog", "RequestRecord", "masked_headers"]

_SECRET = ("authorization", "x-api-key", "api-key", "proxy-authorization", "cookie")


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with lower-case names, keys reduced to their last four characters."""
    shown = {}
    for name, value in headers.items():
        lower = name.lower()
        shown[lower] = f"***{value[-4:]}" if lower in _SECRET and len(value) > 8 else value
        if lower in _SECRET and len(value) <= 8:
            shown[lower] = "***"
    return shown


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One request and its outcome; times are seconds since the epoch on the simulator's clock.

    `client_closed_at` is set when the client closed the socket before the response had ended. `text_chunks` and
    `bytes_sent` count what was handed to the socket; `finished` means that the whole intended response was; `dropped`
    that the simulator cut the connection on request.
    """

    number: int
    method: str
    path: str
    headers: dict[str, str]
    received_at: float
    operation: str = ""
    body: Any = None
    model: str = ""
    stream: bool = False
    request_id: str = ""
    status: int | None = None
    usage: dict[str, Any] | None = None
    fault: str | None = None
    first_byte_at: float | None = None
    ended_at: float | None = None
    client_closed_at: float | None = None
    dropped: bool = False
    text_chunks: int = 0
    bytes_sent: int = 0
    finished: bool = False

    def client_left(self, now: float) -> None:
        """Note that the connection is gone, unless the simulator itself cut it."""
        if not self.dropped and self.client_closed_at is None:
            self.client_closed_at = now

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class RequestLog:
    """The latest requests, oldest first."""

    limit: int
    _records: deque[RequestRecord] = field(default_factory=deque)
    _numbers: int = 0

    def open(self, *, method: str, path: str, headers: Mapping[str, str], received_at: float) -> RequestRecord:
        self._numbers += 1
        record = RequestRecord(
            number=self._numbers,
            method=method,
            path=path,
            headers=masked_headers(headers),
            received_at=received_at,
        )
        self._records.append(record)
        while len(self._records) > self.limit:
            self._records.popleft()
        return record

    def clear(self) -> None:
        self._records.clear()

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> RequestRecord:
        return self._records[index]
