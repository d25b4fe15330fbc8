"""Errors as the two providers word them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from guidance_agent.provider_simulator.models import Wire

__all__ = ["ProviderError", "error_body", "standard_error"]


@dataclass(slots=True)
class ProviderError(Exception):
    """An error answer of a provider.

    `kind` is the provider's error type, `code` and `param` are OpenAI's further fields.
    """

    status: int
    kind: str
    message: str
    code: str | int | None = None
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.kind}: {self.message}"


def error_body(wire: Wire, error: ProviderError, request_id: str) -> dict[str, Any]:
    """The JSON body that `wire` sends for `error`."""
    if wire == "anthropic":
        return {
            "type": "error",
            "error": {"type": error.kind, "message": error.message},
            "request_id": request_id,
        }
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }


_ANTHROPIC = {
    400: ("invalid_request_error", "messages: at least one message is required"),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the API."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not Found"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: (
        "rate_limit_error",
        "This request would exceed your organization's rate limit of 400,000 input tokens per minute. For details, "
        "refer to: https://docs.claude.com/en/api/rate-limits.",
    ),
    500: ("api_error", "Internal server error"),
    503: ("api_error", "Service unavailable"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}
_OPENAI: dict[int, tuple[str, str, str | None]] = {
    400: ("invalid_request_error", "Invalid request.", None),
    401: (
        "invalid_request_error",
        "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys.",
        "invalid_api_key",
    ),
    402: ("billing_error", "Billing details are required.", "billing_required"),
    403: ("invalid_request_error", "You are not allowed to access this resource.", "permission_denied"),
    404: ("invalid_request_error", "The requested resource was not found.", "model_not_found"),
    413: ("invalid_request_error", "The request body is too large.", "request_too_large"),
    429: (
        "tokens",
        "Rate limit reached for this model on tokens per min (TPM): Limit 30000, Used 29500, Requested 6027. "
        "Please try again in 11.054s. Visit https://platform.openai.com/account/rate-limits to learn more.",
        "rate_limit_exceeded",
    ),
    500: ("server_error", "The server had an error while processing your request. Sorry about that!", None),
    503: ("server_error", "The server is currently overloaded with other requests.", None),
    504: ("server_error", "The request timed out.", None),
    529: ("server_error", "Overloaded", None),
}


def standard_error(wire: Wire, status: int, *, insufficient_quota: bool = False) -> ProviderError:
    """The error that a provider typically sends with `status`."""
    if insufficient_quota and wire == "openai":
        return ProviderError(
            429,
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
            code="insufficient_quota",
        )
    if wire == "anthropic":
        kind, message = _ANTHROPIC.get(status, ("api_error", f"HTTP status {status}"))
        headers = {"x-should-retry": "false"} if status in (400, 401, 403, 404, 413) else {}
        return ProviderError(status, kind, message, headers=headers)
    openai_kind, openai_message, code = _OPENAI.get(status, ("server_error", f"HTTP status {status}", None))
    return ProviderError(status, openai_kind, openai_message, code=code)
