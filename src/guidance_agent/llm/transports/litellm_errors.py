"""What an exception of LiteLLM means, when the tap has not decided it: one typed error, without LiteLLM's own text.

LiteLLM's messages repeat what was sent and what was answered, and its classes follow words in the body. So the class
comes from the raw response where LiteLLM's exception was raised over one, and the message names LiteLLM's exception but
does not quote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from guidance_agent.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    MidStreamError,
    MissingExtraError,
    ModelError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
    ProviderUnreachableError,
    RateLimitedError,
    RequestRejectedError,
    StreamTruncated,
)
from guidance_agent.llm.transports.failures import (
    Origin,
    error_of_response,
    malformed,
    mid_stream_error,
    retry_after_seconds,
)
from guidance_agent.llm.transports.http import connection_lost
from guidance_agent.llm.transports.litellm_answer import WireBody

__all__ = ["error_in_stream", "error_of_answer", "error_of_call", "truncated"]

_UNREACHABLE = frozenset({"ConnectError", "ConnectTimeout", "NetworkError", "ProxyError", "APIConnectionError"})
_BAD_ADDRESS = frozenset({"InvalidURL", "UnsupportedProtocol", "LocalProtocolError"})
_MALFORMED = frozenset({"JSONDecodeError", "ValidationError", "APIResponseValidationError"})
_BY_NAME: dict[str, type[ModelError]] = {
    "AuthenticationError": AuthenticationError,
    "PermissionDeniedError": PermissionDeniedError,
    "PaymentRequiredError": PermissionDeniedError,
    "NotFoundError": ModelNotFoundError,
    "RateLimitError": RateLimitedError,
    "ContextWindowExceededError": ContextWindowExceededError,
    "BadRequestError": RequestRejectedError,
    "UnprocessableEntityError": RequestRejectedError,
    "UnsupportedParamsError": RequestRejectedError,
    "ContentPolicyViolationError": RequestRejectedError,
    "Timeout": ProviderUnavailableError,
    "BadGatewayError": ProviderUnavailableError,
    "ServiceUnavailableError": ProviderUnavailableError,
    "InternalServerError": ProviderUnavailableError,
}


def error_of_call(error: Exception, origin: Origin, litellm: ModuleType) -> ModelError | MissingExtraError:
    """Return the error for a call that LiteLLM ended before an answer began."""
    chain = list(_chain(error))
    names = {type(link).__name__ for link in chain}
    missing = next((link for link in chain if isinstance(link, ImportError)), None)
    if missing is not None:
        package = missing.name or "a package of that provider"
        return MissingExtraError(
            f"LiteLLM needs {package!r} for the model {origin.model!r}, and it is not installed. Install it beside "
            "litellm (LiteLLM's documentation names it for each provider)."
        )
    if names & _BAD_ADDRESS:
        return _unreachable(origin, error, "Correct the base URL.", retryable=False)
    refused = _refused(chain)
    if refused is not None:
        headers = {name.lower(): value for name, value in refused.headers.items()}
        return error_of_response(origin, refused.status_code, headers, _body(refused, chain))
    headers = _headers(error)
    body = getattr(error, "body", None)
    status = getattr(error, "status_code", None)
    if isinstance(body, dict | list) and isinstance(status, int) and getattr(error, "response", None) is not None:
        return error_of_response(origin, status, headers, json.dumps(body).encode())
    if names & _UNREACHABLE:
        return _unreachable(origin, error, "Check the address and the network.", retryable=True)
    if names & _MALFORMED:
        return malformed(origin, f"made LiteLLM raise {type(error).__name__}")
    return _by_name(error, origin, headers, litellm)


def error_of_answer(error: Exception, origin: Origin, body: WireBody | None) -> ModelError | None:
    """Return the error for an answer that began well and could not be read to its end; None when it is neither."""
    if body is None:
        return None
    if body.broken is not None:
        return connection_lost(origin, body.broken)
    if {type(link).__name__ for link in _chain(error)} & _MALFORMED:
        return malformed(origin, f"made LiteLLM raise {type(error).__name__}")
    return None


def error_in_stream(error: Exception, origin: Origin, tail: bytes) -> ModelError:
    """Return the error for a stream that LiteLLM ended with an exception; `tail` is the end of what was read."""
    reported = _reported(tail)
    if reported is not None:
        return mid_stream_error(origin, reported)
    original = getattr(error, "original_exception", None) or error
    if any(type(link).__name__ in _MALFORMED or _is_unreadable_chunk(link) for link in _chain(original)):
        return malformed(origin, f"made LiteLLM raise {type(original).__name__} at one of its chunks")
    status = getattr(original, "status_code", None)
    final = isinstance(status, int) and 400 <= status < 500 and status not in (408, 409, 429)
    return MidStreamError(
        f"The stream of {origin.provider} for {origin.model!r} broke off (LiteLLM: {type(original).__name__}). "
        + ("Correct the request before asking again." if final else "Ask again later."),
        provider=origin.provider,
        model=origin.model,
        status=status if isinstance(status, int) else None,
        request_id=origin.request_id,
        retryable=not final,
    )


def truncated(origin: Origin) -> StreamTruncated:
    """Return the error for a stream that ended cleanly without its terminal event."""
    return StreamTruncated(
        f"The stream of {origin.provider} for {origin.model!r} ended without its terminal event. "
        "The text so far is kept; ask again for a whole answer.",
        provider=origin.provider,
        model=origin.model,
        request_id=origin.request_id,
    )


def _unreachable(origin: Origin, error: Exception, advice: str, *, retryable: bool) -> ModelError:
    return ProviderUnreachableError(
        f"No answer from {origin.provider} at {origin.base_url!r} for {origin.model!r} "
        f"(LiteLLM: {type(error).__name__}). {advice}",
        provider=origin.provider,
        model=origin.model,
        retryable=retryable,
    )


def _by_name(error: Exception, origin: Origin, headers: dict[str, str], litellm: ModuleType) -> ModelError:
    kind = next((_BY_NAME[base.__name__] for base in type(error).__mro__ if base.__name__ in _BY_NAME), None)
    if kind is None:
        # Not a provider's fault as far as anyone can tell, so that asking again would only repeat it.
        kind = ProviderUnavailableError if isinstance(error, litellm.APIError) else ModelError
    status = getattr(error, "status_code", None)
    # The one exception whose text LiteLLM writes about parameter names alone.
    detail = f": {origin.clean(str(error))}" if type(error).__name__ == "UnsupportedParamsError" else ""
    return kind(
        f"LiteLLM could not get an answer of {origin.provider} for {origin.model!r} "
        f"({type(error).__name__}{detail}). {'Ask again later.' if kind.retryable else 'Correct the request.'}",
        provider=origin.provider,
        model=origin.model,
        status=status if isinstance(status, int) else None,
        request_id=origin.request_id,
        retry_after=retry_after_seconds(headers) if kind.retryable else None,
    )


def _refused(chain: list[BaseException]) -> Any | None:
    """Return the provider's own answer (an `httpx.Response`) over which its client raised, if there is one."""
    return next((getattr(link, "response", None) for link in chain if type(link).__name__ == "HTTPStatusError"), None)


def _body(response: Any, chain: list[BaseException]) -> bytes:
    for link in chain:
        body = getattr(link, "body", None)
        if isinstance(body, dict | list):
            return json.dumps(body).encode()
    try:
        return bytes(response.content)
    except RuntimeError:
        # Nobody has read the body, and now it is too late.
        return b""


def _headers(error: Exception) -> dict[str, str]:
    # The headers of `error.response` are LiteLLM's invention, and empty.
    headers: Any = getattr(error, "litellm_response_headers", None) or {}
    return {str(name).lower().removeprefix("llm_provider-"): str(value) for name, value in headers.items()}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_unreadable_chunk(error: BaseException) -> bool:
    # LiteLLM's own words, before those of the chunk.
    return type(error) is RuntimeError and str(error).startswith("Error parsing chunk: ")


def _reported(tail: bytes) -> object | None:
    """Return the error object of the last data line, if it holds one."""
    for line in reversed(tail.splitlines()):
        if not line.startswith(b"data:"):
            continue
        try:
            data = json.loads(line[5:])
        except ValueError:
            return None
        return data.get("error") or None if isinstance(data, dict) else None
    return None
