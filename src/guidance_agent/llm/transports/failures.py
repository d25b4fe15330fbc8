"""What a provider's error answer means: status, headers and body become one typed error. Pure functions."""

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
_WRONG_KEY = re.compile(
    r"(?i)(incorrect|invalid|not valid|missing)[^.]{0,20}api.?key|api.?key[^.]{0,20}(invalid|not valid)"
)
_TOO_LONG = re.compile(
    r"(?i)prompt is too long|maximum context length|context.?(window|length)|too many (input )?tokens"
)
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
    message: str
    code: str | None


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
    return kind(
        f"{origin.provider} refused {origin.model!r} with status {status}: {origin.clean(said.message)!r}. {advice}",
        provider=origin.provider,
        model=origin.model,
        status=status,
        code=said.code,
        request_id=origin.request_id,
        retry_after=retry_after_seconds(headers) if status in (408, 409, 429) or status >= 500 else None,
        retryable=retryable,
    )


def mid_stream_error(origin: Origin, error: object) -> MidStreamError:
    """Return the error for an error object inside a stream that began with status 200."""
    said = _of_error(error) or _Said(str(error), None)
    code = said.code or ""
    status = int(code) if code.isdecimal() and 400 <= int(code) < 600 else _STATUS_OF_TYPE.get(code)
    retryable = code != "insufficient_quota" and (status is None or status in (408, 409, 429) or status >= 500)
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
    code = said.code or ""
    if 300 <= status < 400:
        return ProviderUnreachableError, f"Redirects are not followed: correct the base URL {origin.base_url!r}."
    if status == 401 or (status in (400, 403) and _WRONG_KEY.search(said.message)):
        return AuthenticationError, f"Check the key for {origin.provider}."
    if status in (402, 403):
        return PermissionDeniedError, f"Check what the key for {origin.provider} may do, and the account's balance."
    if status == 404 or code == "model_not_found":
        return ModelNotFoundError, f"Check the model name and the base URL {origin.base_url!r}."
    if status == 429:
        if "insufficient_quota" in code:
            return QuotaExhaustedError, "Top up the account; waiting does not help."
        return RateLimitedError, "Ask again later, or lower the rate."
    if status in (408, 409) or status >= 500:
        return ProviderUnavailableError, "Ask again later."
    if code == "context_length_exceeded" or _TOO_LONG.search(said.message):
        return ContextWindowExceededError, "Shorten the conversation or choose a model with a larger window."
    return RequestRejectedError, "Correct the request."


def _said(body: bytes) -> _Said:
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _Said(text, None)
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return _Said(text, None)
    error = _of_error(value.get("error"))
    if error is None:
        return _of_error(value) or _Said(text, None)
    return _Said(error.message, error.code or _word(value.get("code")))


def _of_error(error: object) -> _Said | None:
    if isinstance(error, str):
        return _Said(error, None)
    if not isinstance(error, dict):
        return None
    fields: dict[str, Any] = error
    message = next((fields[name] for name in ("message", "detail", "error") if fields.get(name)), None)
    if message is None:
        return None
    codes = (_word(fields.get("code")), _word(fields.get("type")))
    known = [code for code in codes if code and (code in _STATUS_OF_TYPE or code == "context_length_exceeded")]
    specific = codes[0] if codes[0] and not codes[0].isdecimal() else None
    code = specific or (known[0] if known else None) or codes[1] or codes[0]
    if "insufficient_quota" in codes:
        code = "insufficient_quota"
    return _Said(message if isinstance(message, str) else json.dumps(message), code)


def _word(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None
