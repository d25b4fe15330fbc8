"""Every exception of the package, as one tree.

    GuidanceAgentError
    ├── ConfigurationError            settings or environment cannot work
    │   ├── MissingKeyError
    │   ├── UnknownModelError
    │   ├── MissingExtraError
    │   ├── KnowledgeError
    │   └── BatchesUnsupportedError
    ├── InputError (ValueError)       what the caller passed cannot be answered
    │   ├── NoQuestionError
    │   ├── CustomerProfileError
    │   ├── CalculationError
    │   ├── HistoryError
    │   │   └── HistoryMismatch
    │   ├── UnknownConsultationError
    │   ├── UnknownTurnError
    │   ├── TurnInProgressError
    │   ├── UnknownReviewError
    │   ├── UnknownAuditError
    │   ├── ReviewDecidedError
    │   ├── ReviewClaimedError
    │   ├── UnknownRuleError
    │   ├── RuleChangeError
    │   ├── PromptTooLongError
    │   ├── ToolDefinitionError
    │   └── BatchRequestError
    │       ├── BatchConflictError
    │       └── UnknownBatchError
    ├── ModelError                    a provider, or the way to it, failed
    │   ├── AuthenticationError
    │   ├── PermissionDeniedError
    │   ├── ModelNotFoundError
    │   ├── RequestRejectedError
    │   │   └── ContextWindowExceededError
    │   ├── RateLimitedError
    │   │   ├── QuotaExhaustedError
    │   │   └── LimitWaitError
    │   ├── ProviderUnavailableError
    │   ├── ProviderUnreachableError
    │   ├── ModelTimeoutError
    │   ├── MalformedResponseError
    │   ├── MidStreamError
    │   ├── StreamTruncated
    │   ├── ToolLimitError
    │   └── StructuredOutputError
    ├── StorageError                  the records cannot be read or written
    │   ├── DatabaseUnavailableError
    │   ├── SchemaVersionError
    │   └── JournalError
    │       └── LeaseLostError
    ├── GuidanceNotCompliantError     no version of an answer passed its checks
    ├── BatchTimeoutError             a batch has not ended in the time that was given it
    ├── JobLockedError                another run of the batch jobs is at work
    ├── BatchFailedError              a concurrent batch has requests without an answer
    ├── FileWriteError                a text cannot be written to its file
    ├── PhoenixError                  the local Phoenix server cannot be installed, started or stopped
    │   └── PhoenixNotInstalledError
    └── TurnEndedError                the turn was ended while the caller was away
        └── IdleConsumerError

A message says what happened, which input it was, and what to do next. `ModelError` carries what a program needs to
decide on a retry; nothing in it holds a key or a customer's text, but for `StructuredOutputError.excerpt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

# fmt: off
__all__ = [
    "AuthenticationError", "BatchConflictError", "BatchFailedError", "BatchRequestError", "BatchTimeoutError",
    "BatchesUnsupportedError", "ConfigurationError", "ContextWindowExceededError", "CustomerProfileError",
    "DatabaseUnavailableError", "FileWriteError", "GuidanceAgentError", "GuidanceNotCompliantError", "HistoryError",
    "HistoryMismatch", "IdleConsumerError", "InputError", "JobLockedError", "JournalError", "KnowledgeError",
    "LeaseLostError", "LimitWaitError", "MalformedResponseError", "MidStreamError", "MissingExtraError",
    "MissingKeyError", "ModelError", "ModelNotFoundError", "ModelTimeoutError", "NoQuestionError",
    "PermissionDeniedError", "PhoenixError", "PhoenixNotInstalledError", "PromptTooLongError",
    "ProviderUnavailableError", "ProviderUnreachableError", "QuotaExhaustedError", "RateLimitedError",
    "RequestRejectedError", "ReviewClaimedError", "ReviewDecidedError", "RuleChangeError", "SchemaVersionError",
    "StorageError", "StreamTruncated", "StructuredOutputError", "StructuredOutputKind", "TimeoutPhase",
    "ToolDefinitionError", "ToolLimitError", "TurnEndedError", "TurnInProgressError", "UnknownAuditError",
    "UnknownBatchError", "UnknownConsultationError", "UnknownModelError", "UnknownReviewError", "UnknownRuleError",
    "UnknownTurnError",
]
# fmt: on

TimeoutPhase = Literal["connect", "first_event", "between_events", "without_content", "turn"]
StructuredOutputKind = Literal[
    "refusal", "empty", "truncated", "unfinished", "not_json", "extra_text", "repeated_key", "wrong_schema"
]


class GuidanceAgentError(Exception):
    """Base of everything the package raises on purpose."""


class ConfigurationError(GuidanceAgentError):
    """Raised when settings, files or the environment cannot work together."""


class MissingKeyError(ConfigurationError):
    """Raised when the chosen provider needs a key and none is configured."""


class UnknownModelError(ConfigurationError):
    """Raised when a model name has no provider, or its provider cannot be reached by the chosen transport."""


class MissingExtraError(ConfigurationError):
    """Raised when an optional dependency is needed and not installed; the message names the command."""


class KnowledgeError(ConfigurationError):
    """Raised when a knowledge file cannot be read, lacks a field or contradicts itself."""


class BatchesUnsupportedError(ConfigurationError):
    """Raised when no batch API is known for a model's provider."""


class InputError(GuidanceAgentError, ValueError):
    """Raised when what the caller passed cannot be answered; nothing was sent and nothing recorded."""


class NoQuestionError(InputError):
    """Raised when there is no question, or the only one is already answered in the history."""


class CustomerProfileError(InputError):
    """Raised when customer data lacks a field or has one of the wrong type."""


class CalculationError(InputError):
    """Raised when a sum cannot be worked out: an amount, a date or a tax year that is none or is not on record."""


class HistoryError(InputError):
    """Raised when a conversation history has an unknown role, an empty entry or the wrong order."""


class HistoryMismatch(HistoryError):
    """Raised when a history contradicts the recorded turns of the consultation it was given for."""


class UnknownConsultationError(InputError):
    """Raised when a consultation id is not in the records."""


class UnknownTurnError(InputError):
    """Raised when a turn id is not in the records, or the turn is another customer's."""


class TurnInProgressError(InputError):
    """Raised when a consultation is asked a question while its last turn still streams."""


class UnknownReviewError(InputError):
    """Raised when a review is not in the records."""


class UnknownAuditError(InputError):
    """Raised when an audit run is not in the records."""


class ReviewDecidedError(InputError):
    """Raised when a review that is decided is claimed or decided once more without saying so."""


class ReviewClaimedError(InputError):
    """Raised when somebody else has claimed a review."""


class UnknownRuleError(InputError):
    """Raised when a learned rule, or a release of rules, is not in the records."""


class RuleChangeError(InputError):
    """Raised when a rule cannot be changed as asked: it is retired, or the rules were released meanwhile."""


class PromptTooLongError(InputError):
    """Raised when question and conversation do not fit the context window of the model."""


class ToolDefinitionError(InputError):
    """Raised when a function cannot be a tool: a parameter without a type, or of one that JSON cannot say."""


class BatchRequestError(InputError):
    """Raised when requests cannot go into a batch as they are: an id twice, tools to be run, an unknown kind."""


class BatchConflictError(BatchRequestError):
    """Raised when a job key stands for other requests already, or another process prepares the same job."""


class UnknownBatchError(BatchRequestError):
    """Raised when a job or a batch is not in the records."""


class ModelError(GuidanceAgentError):
    """Raised when a provider, or the way to it, failed.

    Attributes:
        provider: Name of the provider, as in the model name.
        model: Model name as requested, with its provider prefix.
        status: HTTP status, if an answer with one arrived.
        code: The provider's own error type or code.
        request_id: The provider's request id, for its support.
        retry_after: Seconds the provider asked to wait; None if it did not.
        retryable: Whether the same request may succeed later; only followed before the first token.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        if retryable is not None:
            self.retryable = retryable


class AuthenticationError(ModelError):
    """Raised when the provider refuses the key (401)."""


class PermissionDeniedError(ModelError):
    """Raised when the key is known but may not do this (402, 403)."""


class ModelNotFoundError(ModelError):
    """Raised when the provider does not know the model (404)."""


class RequestRejectedError(ModelError):
    """Raised when the provider refuses the request as it stands (400, 413, 422)."""


class ContextWindowExceededError(RequestRejectedError):
    """Raised when the provider counts more tokens than the model's context window holds."""


class RateLimitedError(ModelError):
    """Raised when the provider limits the rate (429) and the retries are used up.

    `rate_headers` are the headers of the answer that tell of limits, with lower-case names.
    """

    retryable = True
    rate_headers: Mapping[str, str] = MappingProxyType({})


class QuotaExhaustedError(RateLimitedError):
    """Raised when the account has no quota left (429 that waiting does not cure)."""

    retryable = False


class LimitWaitError(RateLimitedError):
    """Raised when a call would wait longer for a rate limit than its deadline allows; nothing was sent."""

    retryable = False


class ProviderUnavailableError(ModelError):
    """Raised when the provider answers with a server error or overload (409, 5xx, 529)."""

    retryable = True


class ProviderUnreachableError(ModelError):
    """Raised when no connection to the provider's address can be made."""

    retryable = True


class ModelTimeoutError(ModelError):
    """Raised when the provider was silent for longer than a time-out allows; `phase` says which."""

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        phase: TimeoutPhase,
        provider: str | None = None,
        model: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, provider=provider, model=model, retryable=retryable)
        self.phase = phase


class MalformedResponseError(ModelError):
    """Raised when an answer does not follow the provider's own wire format."""


class MidStreamError(ModelError):
    """Raised when the provider reports an error, or drops the connection, after the stream began."""

    retryable = True


class StreamTruncated(ModelError):
    """Raised when a stream ends without its terminal event; the text so far is kept."""

    retryable = True


class ToolLimitError(ModelError):
    """Raised when a model still calls tools after the last round that it was allowed.

    Attributes:
        runs: The calls that were carried out, as `ToolRun`s.
    """

    def __init__(self, message: str, *, model: str | None = None, runs: tuple[Any, ...] = ()) -> None:
        super().__init__(message, model=model)
        self.runs = runs


class StructuredOutputError(ModelError):
    """Raised when an answer is not the JSON that was asked for, or could be read in two ways.

    Attributes:
        kind: What is wrong with it.
        position: The character of the answer at which reading failed; None where no single one is to blame.
        path: The field that breaks the schema, such as `checks.3.status`; None where the answer is no JSON.
        excerpt: A few of the model's words from there; never part of the message, because they may be a customer's.
        fault: What is wrong with an answer that ended properly, as a `JsonFault`; None for others.
        attempts: How often it was asked for.
        cost_usd: What all attempts cost; None when that is not known.
        simulated: Whether the simulator answered.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: StructuredOutputKind,
        position: int | None = None,
        path: str | None = None,
        excerpt: str = "",
        fault: Any = None,
        attempts: int = 1,
        provider: str | None = None,
        model: str | None = None,
        request_id: str | None = None,
        cost_usd: float | None = None,
        simulated: bool = False,
    ) -> None:
        super().__init__(message, provider=provider, model=model, request_id=request_id)
        self.kind = kind
        self.position = position
        self.path = path
        self.excerpt = excerpt
        self.fault = fault
        self.attempts = attempts
        self.cost_usd = cost_usd
        self.simulated = simulated


class StorageError(GuidanceAgentError):
    """Raised when the records cannot be read or written."""


class DatabaseUnavailableError(StorageError):
    """Raised when the database cannot be opened, reached or written."""


class SchemaVersionError(StorageError):
    """Raised when the schema is older than the program and may not be migrated, or newer than the program."""


class JournalError(StorageError):
    """Raised when a commit failed: nothing of it was shown, and the turn has ended.

    `contradicts_record` says that the database could be written, but holds what excludes the new rows.
    """

    def __init__(self, message: str, *, contradicts_record: bool = False) -> None:
        super().__init__(message)
        self.contradicts_record = contradicts_record


class LeaseLostError(JournalError):
    """Raised when another process has closed the turn because this one let its lease run out."""


class GuidanceNotCompliantError(GuidanceAgentError):
    """Raised when no version of an answer passed its checks: nothing of it was shown, and a review is open.

    Attributes:
        turn_id: The turn, as the review names it.
        failed: The checks that the last version failed; empty where the judge's answer could not be read.
    """

    def __init__(self, message: str, *, turn_id: str, failed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.turn_id = turn_id
        self.failed = failed


class BatchTimeoutError(GuidanceAgentError, TimeoutError):
    """Raised when a job has not ended within the time to wait; it goes on, and can be waited for again."""


class JobLockedError(GuidanceAgentError):
    """Raised when another run of the batch jobs is at work.

    Attributes:
        holder: Which one: its machine and process.
        since: Since when.
    """

    def __init__(self, message: str, *, holder: str, since: datetime) -> None:
        super().__init__(message)
        self.holder = holder
        self.since = since


class BatchFailedError(GuidanceAgentError):
    """Raised when requests of a concurrent batch have no answer, and the caller asked for all of them or none.

    Attributes:
        response: The `BatchResponse` of what is done: the answers that are there, and what failed.
    """

    def __init__(self, message: str, *, response: Any) -> None:
        super().__init__(message)
        self.response = response


class FileWriteError(GuidanceAgentError):
    """Raised when a text cannot be written to its file; `partial` is the file that holds what a stream gave so far.

    `partial` is None when the file could not be begun: then nothing was read from the stream.
    """

    def __init__(self, message: str, *, partial: Path | None = None) -> None:
        super().__init__(message)
        self.partial = partial


class PhoenixError(GuidanceAgentError):
    """Raised when the local Phoenix server cannot be installed, started, confined or stopped."""


class PhoenixNotInstalledError(PhoenixError):
    """Raised when the local Phoenix server is wanted and its environment is missing or of another list."""


class TurnEndedError(GuidanceAgentError):
    """Raised when an event is asked of a turn that was ended while the caller was away."""


class IdleConsumerError(TurnEndedError):
    """Raised when a kept iterator was not asked for longer than `idle_consumer_timeout` and is then asked again."""
