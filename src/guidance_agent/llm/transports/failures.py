"""What a provider's error answer means: status, headers and body become one typed error. Pure functions.

The class follows from the status and from the codes that a body carries for programs. Words decide nothing: a message
may repeat what a customer wrote, and every provider words its errors as it likes. One exception: on some wires a prompt
that is too long has no code of its own. Where the whole sentence of such a provider, from the beginning and with its
figures, stands in a refused request (400, 413, 422), the refusal is called `ContextWindowExceededError`; it is handled
exactly as any other refused request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

from guidance_agent.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    MalformedResponseError,
    MidStreamError,
    ModelError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
    ProviderUnreachableError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRejectedError,
)
from guidance_agent.llm.transports.batch import mend
from guidance_agent.llm.transports.rate_headers import rate_headers

__all__ = [
    "Origin",
    "error_of_response",
    "malformed",
    "mid_stream_error",
    "request_id_of",
    "retry_after_seconds",
]

_LONGEST_MESSAGE = 400
_LONGEST_REQUEST_ID = 200
_QUOTA_CODE = "insufficient_quota"
_WRONG_KEY_CODES = frozenset({"authentication_error", "invalid_api_key", "API_KEY_INVALID"})
_UNKNOWN_MODEL_CODE = "model_not_found"
_TOO_LONG_CODE = "context_length_exceeded"
_DECIDING = _WRONG_KEY_CODES | {_QUOTA_CODE, _UNKNOWN_MODEL_CODE, _TOO_LONG_CODE}
_TOO_LONG_SENTENCES = re.compile(
    r"prompt is too long: \d+ tokens > \d+ maximum"
    r"|input length and `max_tokens` exceed context limit: \d+ \+ \d+ > \d+"
    r"|This model's maximum context length is \d+ tokens"
)
_REFUSED_REQUEST = frozenset({400, 413, 422})
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 403,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Which call an error belongs to; what every message about it names. `secret` is cut out of every message."""

    provider: str
    model: str
    base_url: str
    request_id: str | None = None
    secret: str | None = field(default=None, repr=False)

    def clean(self, text: str) -> str:
        """Return `text` on one line, shortened, without the key."""
        if self.secret:
            text = text.replace(self.secret, "<key>")
        text = " ".join(text.split())
        return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}…"


@dataclass(frozen=True, slots=True)
class _Said:
    """What an error object says: to people, and to programs under any of the names that providers use."""

    message: str
    codes: tuple[str, ...] = ()

    @property
    def code(self) -> str | None:
        """The code that tells most: the one that decides, else the first that is not only a number."""
        for better in (_DECIDING.__contains__, lambda code: not code.isdecimal(), bool):
            if found := next(filter(better, self.codes), None):
                return found
        return None

    @property
    def status(self) -> int | None:
        """The HTTP status that the codes stand for; None for codes that are not known."""
        for code in self.codes:
            if len(code) == 3 and code.isdecimal() and 400 <= int(code) < 600:
                return int(code)
            if code in _STATUS_OF_TYPE:
                return _STATUS_OF_TYPE[code]
        return None


def error_of_response(origin: Origin, status: int, headers: Mapping[str, str], body: bytes) -> ModelError:
    """Return the error that an answer with a status other than 2xx means.

    Args:
        origin: The call.
        status: HTTP status.
        headers: Response headers with lower-case names.
        body: As much of the body as was read.
    """
    said = _said(body)
    kind, advice = _kind(origin, status, said)
    retryable = kind.retryable and status >= 400 and headers.get("x-should-retry") != "false"
    error = kind(
        f"{origin.provider} refused {origin.model!r} with status {status}: {origin.clean(said.message)!r}. {advice}",
        provider=origin.provider,
        model=origin.model,
        status=status,
        code=said.code,
        request_id=origin.request_id,
        retry_after=retry_after_seconds(headers) if status in (408, 409, 429) or status >= 500 else None,
        retryable=retryable,
    )
    if isinstance(error, RateLimitedError):
        error.rate_headers = rate_headers(headers)
    return error


def mid_stream_error(origin: Origin, error: object) -> MidStreamError:
    """Return the error for an error object inside a stream that began with status 200."""
    said = _of_error(error) or _Said(str(error))
    status = said.status
    retryable = _QUOTA_CODE not in said.codes and (status is None or status in (408, 409, 429) or status >= 500)
    return MidStreamError(
        f"{origin.provider} reported an error while {origin.model!r} was answering: {origin.clean(said.message)!r}. "
        + ("Ask again later." if retryable else "Correct the request before asking again."),
        provider=origin.provider,
        model=origin.model,
        status=status,
        code=said.code,
        request_id=origin.request_id,
        retryable=retryable,
    )


def malformed(origin: Origin, what: str) -> MalformedResponseError:
    """Return the error for an answer that is not in the provider's wire format; `what` completes "It …"."""
    return MalformedResponseError(
        f"The answer of {origin.provider} for {origin.model!r} cannot be read: it {origin.clean(what)}. "
        f"Check that {origin.base_url!r} is the provider's API.",
        provider=origin.provider,
        model=origin.model,
        request_id=origin.request_id,
    )


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of a request, in a form that every log and database column can hold."""
    request_id = headers.get("request-id") or headers.get("x-request-id")
    # A header is bytes: what is not UTF-8 in it arrives as lone surrogates, which nothing can store.
    return mend(request_id)[:_LONGEST_REQUEST_ID] if request_id else None


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider asks to wait, in seconds; None if it does not say so in a readable way.

    `retry-after-ms` is the finer of the two headers; `retry-after` holds seconds or a date (RFC 9110, 10.2.3).
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            value = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if isfinite(value) and value >= 0:
            return value
    when = _date(headers.get("retry-after"))
    if when is None:
        return None
    # Measured on the provider's own clock where it tells the time, so that a wrong clock here does no harm.
    now = _date(headers.get("date")) or datetime.now(UTC)
    return max(0.0, (when - now).total_seconds())


def _date(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _kind(origin: Origin, status: int, said: _Said) -> tuple[type[ModelError], str]:
    codes = frozenset(said.codes)
    if 300 <= status < 400:
        return ProviderUnreachableError, f"Redirects are not followed: correct the base URL {origin.base_url!r}."
    if status == 401 or (status in (400, 403) and codes & _WRONG_KEY_CODES):
        return AuthenticationError, f"Check the key for {origin.provider}."
    if status in (402, 403):
        return PermissionDeniedError, f"Check what the key for {origin.provider} may do, and the account's balance."
    if status == 404 or (status in _REFUSED_REQUEST and _UNKNOWN_MODEL_CODE in codes):
        return ModelNotFoundError, f"Check the model name and the base URL {origin.base_url!r}."
    if status == 429:
        if _QUOTA_CODE in codes:
            return QuotaExhaustedError, "Top up the account; waiting does not help."
        return RateLimitedError, "Ask again later, or lower the rate."
    if status in (408, 409) or status >= 500:
        return ProviderUnavailableError, "Ask again later."
    if status in _REFUSED_REQUEST and (_TOO_LONG_CODE in codes or _TOO_LONG_SENTENCES.match(said.message)):
        return ContextWindowExceededError, "Shorten the conversation or choose a model with a larger window."
    return RequestRejectedError, "Correct what the provider names."


def _said(body: bytes) -> _Said:
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _Said(text)
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return _Said(text)
    error = _of_error(value.get("error"))
    if error is None:
        return _of_error(value) or _Said(text)
    return _Said(error.message, error.codes + _words(value.get("code")))


def _of_error(error: object) -> _Said | None:
    if isinstance(error, str):
        return _Said(error)
    if not isinstance(error, dict):
        return None
    fields: dict[str, Any] = error
    message = next((fields[name] for name in ("message", "detail", "error") if fields.get(name)), None)
    if message is None:
        return None
    # Google puts the word for programs into its error details (`google.rpc.ErrorInfo`).
    details = fields.get("details")
    listed = details if isinstance(details, list) else []
    reasons = [detail.get("reason") for detail in listed if isinstance(detail, dict)]
    return _Said(
        message if isinstance(message, str) else json.dumps(message),
        _words(fields.get("code"), fields.get("type"), *reasons),
    )


def _words(*values: object) -> tuple[str, ...]:
    return tuple(word for word in map(_word, values) if word is not None)


def _word(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None
