"""What LiteLLM's own exceptions mean where the wire did not decide it: by class, never by quoting them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import httpx
import pytest

from guidance_agent.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    MalformedResponseError,
    MidStreamError,
    MissingExtraError,
    ModelError,
    PermissionDeniedError,
    ProviderUnavailableError,
    ProviderUnreachableError,
    RateLimitedError,
    RequestRejectedError,
)
from guidance_agent.llm.transports.failures import Origin
from guidance_agent.llm.transports.litellm_errors import error_in_stream, error_of_answer, error_of_call
from guidance_agent.llm.transports.litellm_wire import StreamWatch

ORIGIN = Origin("bedrock", "bedrock/claude", "its usual address", "req_1", secret="sk-secret")
PRIVATE = "My name is Gwendolyn"


@dataclass
class TappedBody:
    """Stands for the body that the tap watched."""

    tail: bytes = b""
    broken: Exception | None = None
    readable: bool = True
    on_bytes: Callable[[], None] | None = None
    watch: StreamWatch | None = None
    ended: bool | None = None

    async def aclose(self) -> None:
        """Nothing is open."""


class APIError(Exception):
    """Stands for the base of LiteLLM's exceptions."""


@pytest.fixture
def litellm() -> ModuleType:
    module = ModuleType("litellm")
    module.APIError = APIError  # type: ignore[attr-defined]
    return module


def raised(name: str, *, cause: BaseException | None = None, text: str = PRIVATE, **attributes: object) -> Exception:
    """An exception of LiteLLM's as it looks: a class name and some attributes."""
    error: Exception = type(name, (APIError,), {})(text)
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("name", "kind", "retryable"),
    [
        ("RateLimitError", RateLimitedError, True),
        ("ContextWindowExceededError", ContextWindowExceededError, False),
        ("BadRequestError", RequestRejectedError, False),
        ("PermissionDeniedError", PermissionDeniedError, False),
        ("ServiceUnavailableError", ProviderUnavailableError, True),
        ("InternalServerError", ProviderUnavailableError, True),
        ("SomethingNewError", ProviderUnavailableError, True),
    ],
)
def test_the_class_decides_and_the_text_is_not_repeated(
    name: str, kind: type[ModelError], retryable: bool, litellm: ModuleType
) -> None:
    error = error_of_call(raised(name, status_code=499), ORIGIN, litellm)
    assert isinstance(error, ModelError)
    assert (type(error), error.retryable, error.status) == (kind, retryable, 499)
    assert name in str(error)
    assert PRIVATE not in str(error)
    assert error.request_id == "req_1"


def test_an_error_that_is_not_litellms_is_not_retried(litellm: ModuleType) -> None:
    error = error_of_call(RuntimeError(PRIVATE), ORIGIN, litellm)
    assert type(error) is ModelError
    assert not error.retryable
    assert PRIVATE not in str(error)


def test_the_wait_is_read_from_litellms_own_header_attribute(litellm: ModuleType) -> None:
    error = raised("RateLimitError", litellm_response_headers={"Retry-After": "12"})
    assert getattr(error_of_call(error, ORIGIN, litellm), "retry_after", None) == 12.0
    passed_on = raised("RateLimitError", litellm_response_headers={"llm_provider-retry-after": "3"})
    assert getattr(error_of_call(passed_on, ORIGIN, litellm), "retry_after", None) == 3.0


def test_a_refused_connection_is_unreachable_though_litellm_calls_it_a_server_error(litellm: ModuleType) -> None:
    cause = type("ConnectError", (Exception,), {})()
    error = error_of_call(raised("InternalServerError", cause=cause, status_code=500), ORIGIN, litellm)
    assert type(error) is ProviderUnreachableError
    assert error.retryable


def test_a_bad_address_is_unreachable_for_good(litellm: ModuleType) -> None:
    cause = type("UnsupportedProtocol", (Exception,), {})()
    error = error_of_call(raised("APIConnectionError", cause=cause), ORIGIN, litellm)
    assert type(error) is ProviderUnreachableError
    assert not error.retryable


def test_a_missing_package_of_a_provider_is_named(litellm: ModuleType) -> None:
    cause = ModuleNotFoundError("No module named 'boto3'", name="boto3")
    error = error_of_call(raised("APIConnectionError", cause=cause), ORIGIN, litellm)
    assert isinstance(error, MissingExtraError)
    assert "'boto3'" in str(error)


def test_a_parameter_that_litellm_refuses_is_named(litellm: ModuleType) -> None:
    text = "claude does not support parameters: ['seed'], with sk-secret"
    error = error_of_call(raised("UnsupportedParamsError", text=text, status_code=400), ORIGIN, litellm)
    assert type(error) is RequestRejectedError
    assert "['seed']" in str(error)
    assert "sk-secret" not in str(error)


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [(401, AuthenticationError, False), (402, PermissionDeniedError, False), (529, ProviderUnavailableError, True)],
)
@pytest.mark.parametrize("name", ["RateLimitError", "APIError", "NotFoundError", "ContextWindowExceededError"])
def test_the_providers_own_answer_counts_more_than_the_class_that_litellm_made_of_its_words(
    name: str, status: int, kind: type[ModelError], retryable: bool, litellm: ModuleType
) -> None:
    words = {"error": {"message": "rate_limit_exceeded, model_not_found, No module named 'x'", "type": "new_error"}}
    response = httpx.Response(status, headers={"Retry-After": "7"}, json=words)
    cause = httpx.HTTPStatusError("no", request=httpx.Request("POST", "http://x"), response=response)
    error = error_of_call(raised(name, cause=cause, status_code=429, text=str(words)), ORIGIN, litellm)
    assert isinstance(error, ModelError)
    assert (type(error), error.status, error.retryable) == (kind, status, retryable)
    assert (error.retry_after, error.code) == (7.0 if retryable else None, "new_error")


def test_an_answer_that_broke_off_under_litellm_is_a_lost_connection() -> None:
    body = TappedBody(broken=OSError("reset"))
    error = error_of_answer(raised("InternalServerError", status_code=500), ORIGIN, body)
    assert type(error) is MidStreamError
    assert error_of_answer(raised("InternalServerError"), ORIGIN, TappedBody()) is None
    assert error_of_answer(raised("InternalServerError"), ORIGIN, None) is None


def test_words_of_a_chunk_do_not_make_a_stream_malformed() -> None:
    said = raised("APIError", text="the model said: Error parsing chunk: JSONDecodeError", status_code=503)
    assert type(error_in_stream(said, ORIGIN, b"")) is MidStreamError
    unread = raised("APIConnectionError", cause=RuntimeError(f"Error parsing chunk: KeyError,\nReceived: {PRIVATE}"))
    error = error_in_stream(unread, ORIGIN, b"")
    assert type(error) is MalformedResponseError
    assert PRIVATE not in str(error)


def test_an_answer_that_litellm_cannot_read_is_malformed(litellm: ModuleType) -> None:
    cause = type("JSONDecodeError", (ValueError,), {})(PRIVATE)
    assert type(error_of_call(raised("APIError", cause=cause), ORIGIN, litellm)) is MalformedResponseError
    assert type(error_in_stream(raised("APIConnectionError", cause=cause), ORIGIN, b"")) is MalformedResponseError


@pytest.mark.parametrize(("status", "retryable"), [(503, True), (429, True), (400, False), (None, True)])
def test_a_mid_stream_error_keeps_what_the_original_says_of_a_retry(status: int | None, retryable: bool) -> None:
    original = raised("BadRequestError", status_code=status)
    wrapped = raised("MidStreamFallbackError", original_exception=original, status_code=503, generated_content=PRIVATE)
    error = error_in_stream(wrapped, ORIGIN, b"data: {}\n\n")
    assert type(error) is MidStreamError
    assert (error.status, error.retryable) == (status, retryable)
    assert PRIVATE not in str(error)


def test_an_error_event_on_the_wire_counts_more_than_litellms_exception() -> None:
    tail = b'data: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}   \n\n'
    error = error_in_stream(raised("InternalServerError", status_code=500), ORIGIN, tail)
    assert type(error) is MidStreamError
    assert (error.code, error.status) == ("overloaded_error", 529)
