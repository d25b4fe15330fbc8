"""The expected outcome of every cell: what is promised when a provider fails.

Five shapes cover all of it:

- `tried_again`: nothing was shown, so the same request is made again, and then a fallback is asked;
- `given_up`: asking again would not help, another model may;
- `refused`: the request itself is at fault, so no other model is asked either;
- `broken_off`: something was shown, so nothing is asked again and the caller keeps what came;
- `ended`: the provider's own end, no failure.
"""

from __future__ import annotations

from collections.abc import Mapping

from guidance_agent.errors import (
    AuthenticationError,
    ContextWindowExceededError,
    MalformedResponseError,
    MidStreamError,
    ModelError,
    ModelNotFoundError,
    ModelTimeoutError,
    PermissionDeniedError,
    ProviderUnavailableError,
    ProviderUnreachableError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRejectedError,
    StreamTruncated,
)
from tests.fault_matrix.catalogue import POSITIONS, Cell, Position
from tests.fault_matrix.outcome import Outcome, Shown

__all__ = ["expected"]

Row = Mapping[Position, Outcome]


def tried_again(error: type[ModelError], *, retry_after: float | None = None, requests: int = 3) -> Outcome:
    return Outcome(
        shown="nothing",
        error=error.__name__,
        retryable=True,
        retry_after=retry_after,
        requests=requests,
        once="answered by request 2",
        fallback="answers",
        record=f"error:{error.__name__}",
    )


def given_up(error: type[ModelError], *, retryable: bool = False, retry_after: float | None = None) -> Outcome:
    return Outcome(
        shown="nothing",
        error=error.__name__,
        retryable=retryable,
        retry_after=retry_after,
        requests=1,
        once="the same",
        fallback="answers",
        record=f"error:{error.__name__}",
    )


def refused(error: type[ModelError]) -> Outcome:
    return broken_off(error, shown="nothing", retryable=False)


def broken_off(error: type[ModelError], *, shown: Shown, retryable: bool) -> Outcome:
    return Outcome(
        shown=shown,
        error=error.__name__,
        retryable=retryable,
        requests=1,
        once="the same",
        fallback="not asked",
        record=f"error:{error.__name__}",
    )


def ended(finish: str, *, shown: Shown) -> Outcome:
    return Outcome(shown=shown, finish=finish, requests=1, once="the same", fallback="not asked", record="completed")


COMPLETE = ended("stop", shown="all")


def everywhere(outcome: Outcome) -> Row:
    return dict.fromkeys(POSITIONS, outcome)


def breaking(error: type[ModelError], *, before: Outcome, whole: Outcome | None = None, retryable: bool = True) -> Row:
    """Return the row of what breaks an answer off."""
    return {
        "before the first text": before,
        "in the thinking": broken_off(error, shown="thinking", retryable=retryable),
        "after the first text": broken_off(error, shown="the beginning", retryable=retryable),
        "not streamed": before if whole is None else whole,
    }


def ending(finish: str) -> Row:
    """Return the row of an end that the provider declares."""
    return {
        "before the first text": ended(finish, shown="nothing"),
        "in the thinking": ended(finish, shown="thinking"),
        "after the first text": ended(finish, shown="the beginning"),
        "not streamed": ended(finish, shown="the beginning"),
    }


MALFORMED = given_up(MalformedResponseError)

ROWS: Mapping[str, Row] = {
    "no fault; the 200 carries `Retry-After`": everywhere(COMPLETE),
    "429 with `Retry-After`": everywhere(tried_again(RateLimitedError, retry_after=0.1)),
    "429 with a `Retry-After` beyond `max_wait`": everywhere(
        given_up(RateLimitedError, retryable=True, retry_after=600)
    ),
    "429 without `Retry-After`": everywhere(tried_again(RateLimitedError)),
    "429, quota used up": everywhere(given_up(QuotaExhaustedError)),
    "requests per minute used up": everywhere(tried_again(RateLimitedError, retry_after=1, requests=2)),
    "tokens per minute used up": everywhere(tried_again(RateLimitedError, retry_after=1, requests=2)),
    "500": everywhere(tried_again(ProviderUnavailableError)),
    "503": everywhere(tried_again(ProviderUnavailableError)),
    "529": everywhere(tried_again(ProviderUnavailableError)),
    "503 with `Retry-After`": everywhere(tried_again(ProviderUnavailableError, retry_after=0.1)),
    "400": everywhere(refused(RequestRejectedError)),
    "400, prompt too long": everywhere(refused(ContextWindowExceededError)),
    "401": everywhere(given_up(AuthenticationError)),
    "402": everywhere(given_up(PermissionDeniedError)),
    "403": everywhere(given_up(PermissionDeniedError)),
    "404": everywhere(given_up(ModelNotFoundError)),
    "413": everywhere(refused(RequestRejectedError)),
    "slow headers": everywhere(tried_again(ModelTimeoutError, requests=2)),
    "accepted, then reset": everywhere(tried_again(ProviderUnreachableError)),
    "accepted, then closed": everywhere(tried_again(ProviderUnreachableError)),
    "redirect": everywhere(given_up(ProviderUnreachableError)),
    "web page with status 200": everywhere(MALFORMED),
    "connection reset": breaking(MidStreamError, before=tried_again(MidStreamError)),
    "connection closed": breaking(MidStreamError, before=tried_again(MidStreamError)),
    "stall": breaking(ModelTimeoutError, before=tried_again(ModelTimeoutError, requests=2)),
    # Half a JSON object cannot be told from any other answer that is none.
    "truncation": breaking(StreamTruncated, before=tried_again(StreamTruncated), whole=MALFORMED),
    "garbage": breaking(MalformedResponseError, before=MALFORMED, retryable=False),
    "error event, overloaded": breaking(MidStreamError, before=tried_again(MidStreamError)),
    "error event, rate limit": breaking(MidStreamError, before=tried_again(MidStreamError)),
    "error event, server error": breaking(MidStreamError, before=tried_again(MidStreamError)),
    "error event, invalid request": breaking(MidStreamError, before=refused(MidStreamError), retryable=False),
    "start sent twice": everywhere(COMPLETE),
    # Before any text a second opening may take the place of the first; after it the text would be of two answers.
    "another stream spliced in": {
        **everywhere(COMPLETE),
        "after the first text": broken_off(MalformedResponseError, shown="the beginning", retryable=False),
    },
    "refusal": ending("refusal"),
    "`max_tokens`": ending("length"),
}

# A refusal has words of its own on this wire format.
WORDY_REFUSAL = {**ending("refusal"), "before the first text": ended("refusal", shown="the refusal's words")}

EXCEPTIONS: Mapping[tuple[str, str], Row] = {
    ("refusal", "native-openai"): WORDY_REFUSAL,
    ("refusal", "litellm-openai"): WORDY_REFUSAL,
    # A chunk of this format that opens an answer says nothing that its reader needs.
    ("another stream spliced in", "native-openai"): everywhere(COMPLETE),
    ("another stream spliced in", "litellm-openai"): everywhere(COMPLETE),
}


def expected(cell: Cell) -> Outcome:
    """Return what a cell promises."""
    row = EXCEPTIONS.get((cell.case.name, str(cell.subject)), ROWS[cell.case.name])
    return row[cell.position]
