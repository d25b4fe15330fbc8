"""A provider's error answer becomes one typed error that names the call and keeps the key out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guidance_agent.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    ModelError,
    ModelNotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
    ProviderUnreachableError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRejectedError,
)
from guidance_agent.llm.transports.failures import Origin, error_of_response, mid_stream_error, retry_after_seconds

ORIGIN = Origin("openai", "openai/gpt-6-luna", "https://api.example/v1", "req_1", "sk-very-secret")


def of(status: int, body: object = None, **headers: str) -> ModelError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_of_response(ORIGIN, status, names, raw)


def anthropic(kind: str, message: str = "no") -> object:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_2"}


def openai(code: str | None, message: str = "no", kind: str = "invalid_request_error") -> object:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


GOOGLE_WRONG_KEY = {
    "error": {
        "code": 400,
        "message": "API key not valid. Please pass a valid API key.",
        "status": "INVALID_ARGUMENT",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
            {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US"},
        ],
    }
}


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (401, anthropic("authentication_error"), AuthenticationError, False),
        (401, {"detail": "Unauthorized"}, AuthenticationError, False),
        (400, openai("invalid_api_key"), AuthenticationError, False),
        (400, GOOGLE_WRONG_KEY, AuthenticationError, False),
        (400, [GOOGLE_WRONG_KEY], AuthenticationError, False),
        (403, anthropic("authentication_error"), AuthenticationError, False),
        (402, openai(None, "Insufficient balance"), PermissionDeniedError, False),
        (403, anthropic("permission_error"), PermissionDeniedError, False),
        (404, anthropic("not_found_error", "model: x"), ModelNotFoundError, False),
        (400, openai("model_not_found"), ModelNotFoundError, False),
        (400, anthropic("invalid_request_error"), RequestRejectedError, False),
        (413, anthropic("request_too_large"), RequestRejectedError, False),
        (422, {"detail": [{"msg": "field required"}]}, RequestRejectedError, False),
        (
            400,
            anthropic("invalid_request_error", "prompt is too long: 3 tokens > 2 maximum"),
            ContextWindowExceededError,
            False,
        ),
        (
            400,
            anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit: 9 + 2 > 10, so …"),
            ContextWindowExceededError,
            False,
        ),
        (400, openai("context_length_exceeded"), ContextWindowExceededError, False),
        (400, openai(None, "This model's maximum context length is 8 tokens."), ContextWindowExceededError, False),
        (429, anthropic("rate_limit_error"), RateLimitedError, True),
        (429, openai("rate_limit_exceeded", kind="tokens"), RateLimitedError, True),
        (429, openai("insufficient_quota", kind="insufficient_quota"), QuotaExhaustedError, False),
        (429, openai(None, kind="insufficient_quota"), QuotaExhaustedError, False),
        (409, openai(None), ProviderUnavailableError, True),
        (500, anthropic("api_error"), ProviderUnavailableError, True),
        (529, anthropic("overloaded_error"), ProviderUnavailableError, True),
        (503, b"<html>bad gateway</html>", ProviderUnavailableError, True),
        (307, b"", ProviderUnreachableError, False),
        (418, b"\xff\xfe not text", RequestRejectedError, False),
        (400, b"[" * 100_000, RequestRejectedError, False),
    ],
)
def test_status_and_body_decide_the_class(status: int, body: object, kind: type[ModelError], retryable: bool) -> None:
    error = of(status, body)
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.status == status
    assert error.request_id == "req_1"
    assert "openai/gpt-6-luna" in str(error)


MISLEADING = (
    "Incorrect API key provided.",
    "The API key is invalid, the token has expired.",
    "Too many input tokens; the maximum context length, the context window, is exceeded.",
    "Your question 'prompt is too long: 9 tokens > 8 maximum' is refused.",
    "insufficient_quota rate_limit_exceeded overloaded_error context_length_exceeded model_not_found",
    "429 529 401 timeout: try again in 20s",
)


@pytest.mark.parametrize("message", MISLEADING)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRejectedError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, ModelNotFoundError),
        (429, RateLimitedError),
        (500, ProviderUnavailableError),
        (529, ProviderUnavailableError),
    ],
)
def test_no_word_of_a_message_decides_the_class(status: int, kind: type[ModelError], message: str) -> None:
    bodies = (
        anthropic("some_new_error", message),
        openai(None, message, kind="some_new_error"),
        {"error": message, "code": "invalid-argument"},
        {"detail": message},
        message.encode(),
    )
    assert [type(of(status, body)) for body in bodies] == [kind] * len(bodies)


@pytest.mark.parametrize("message", MISLEADING)
def test_no_word_of_a_message_decides_whether_a_broken_stream_is_worth_a_retry(message: str) -> None:
    refused, overloaded = {"type": "invalid_request_error"}, {"type": "overloaded_error"}
    assert not mid_stream_error(ORIGIN, {**refused, "message": message}).retryable
    assert mid_stream_error(ORIGIN, {**overloaded, "message": message}).retryable


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_a_code_for_another_status_does_not_change_what_the_status_says(status: int) -> None:
    codes = ("context_length_exceeded", "model_not_found", "insufficient_quota", "invalid_api_key")
    plain = type(of(status, openai(None)))
    assert [type(of(status, openai(code))) for code in codes] == [plain] * len(codes)


def test_the_key_is_in_no_message() -> None:
    error = of(401, openai("invalid_api_key", "Incorrect API key provided: sk-very-secret."))
    assert "sk-very-secret" not in str(error)
    assert "sk-very-secret" not in repr(ORIGIN)


def test_a_redirect_names_the_base_url() -> None:
    assert "https://api.example/v1" in str(of(302))


def test_an_endless_error_message_is_shortened() -> None:
    assert len(str(of(500, openai(None, "x" * 100_000)))) < 1_000


def test_the_provider_may_forbid_a_retry_but_not_allow_a_senseless_one() -> None:
    assert of(500, x_should_retry="false").retryable is False
    assert of(500, x_should_retry="true").retryable is True
    assert of(400, x_should_retry="true").retryable is False


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:30 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 09:00:00 GMT", "date": "Sat, 21 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


@pytest.mark.parametrize(("status", "expected"), [(429, 5.0), (503, 5.0), (400, None), (404, None)])
def test_retry_after_counts_only_where_a_retry_makes_sense(status: int, expected: float | None) -> None:
    assert of(status, retry_after="5").retry_after == expected


@pytest.mark.parametrize(
    ("error", "status", "retryable"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, 529, True),
        ({"type": "api_error", "message": "x"}, 500, True),
        ({"type": "rate_limit_error", "message": "x"}, 429, True),
        ({"type": "invalid_request_error", "message": "x"}, 400, False),
        ({"code": 400, "message": "Token limit reached"}, 400, False),
        ({"code": 502, "message": "Provider returned error"}, 502, True),
        ({"code": "insufficient_quota", "message": "x"}, 429, False),
        ({"code": "string_above_max_length", "type": "invalid_request_error", "message": "x"}, 400, False),
        ({"code": "9" * 5_000, "message": "x"}, None, True),
        ("plain words", None, True),
        (None, None, True),
    ],
)
def test_an_error_inside_a_stream_is_mapped_by_its_type(error: object, status: int | None, retryable: bool) -> None:
    found = mid_stream_error(ORIGIN, error)
    assert (found.status, found.retryable) == (status, retryable)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "detail"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(st.sampled_from([301, 400, 401, 403, 404, 422, 429, 500, 529]), JSON)
def test_no_body_leads_to_anything_but_a_typed_error(status: int, body: object) -> None:
    assert isinstance(of(status, body), ModelError)
    assert isinstance(mid_stream_error(ORIGIN, body), ModelError)
