"""How a concurrent batch runs: how many at once, what a failure means, which conversation each request stands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, get_args

from guidance_agent.errors import BatchRequestError
from guidance_agent.llm.messages import Message, Usage
from guidance_agent.llm.tool_runs import ToolOptions

__all__ = ["BatchConfig", "BatchErrorStrategy", "BatchProgress", "HistoryMode", "ResultOrder"]

HistoryMode = Literal["independent", "sequential", "shared"]
"""`independent`: each request alone. `shared`: each after the same history. `sequential`: each after the history and
all requests before it with their answers."""

ResultOrder = Literal["input", "finished"]


class BatchErrorStrategy(Enum):
    """What a failed request means for the others.

    `FAIL_FAST` raises at once, cancels the rest, and keeps what is done on the exception. `CONTINUE` has a result for
    every request. `SKIP` has results of successes only; the counts still tell of all.
    """

    FAIL_FAST = "fail_fast"
    CONTINUE = "continue"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        total: How many requests there are; None while they are still being read.
        succeeded: Requests with an answer.
        failed: Requests without one, whatever the strategy.
        usage: Tokens of all calls so far.
        cost: US dollars so far, as far as prices are known.
        unpriced: Results whose cost is not known.
        elapsed: Seconds since the first request.
    """

    total: int | None = None
    succeeded: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float = 0.0
    unpriced: int = 0
    elapsed: float = 0.0

    @property
    def done(self) -> int:
        return self.succeeded + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """How a concurrent batch runs.

    Attributes:
        max_concurrent: How many requests run at once.
        error_strategy: What a failed request means for the others.
        show_progress: Whether a bar is drawn on standard error, where that is a terminal.
        on_progress: Called with the progress after each result; what it raises ends the batch.
        retry_failed: How many more times a request is tried whose failure may pass, besides the retries of each call;
            True is once.
        retry_wait: Seconds before that, unless the provider says how long to wait.
        history_mode: Which conversation each request stands in.
        history: The conversation before, for `shared` and `sequential`.
        timeout: Seconds for each request that names none, all its calls and tries together; None sets no limit.
        operation: What the calls are for, as records and settings name it.
        schema_attempts: How often an answer of a schema is asked for until it can be read.
        repair: Whether such an answer is repaired where that is safe; the result says so.
        tools: Time and size of calls of tools.
    """

    max_concurrent: int = 10
    error_strategy: BatchErrorStrategy = BatchErrorStrategy.CONTINUE
    show_progress: bool = False
    on_progress: Callable[[BatchProgress], object] | None = None
    retry_failed: int = 0
    retry_wait: float = 1.0
    history_mode: HistoryMode = "independent"
    history: Sequence[Message | Mapping[str, Any]] = ()
    timeout: float | None = None
    operation: str = "batch"
    schema_attempts: int = 3
    repair: bool = True
    tools: ToolOptions = field(default_factory=ToolOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.max_concurrent, int) or self.max_concurrent < 1:
            raise BatchRequestError(f"max_concurrent is {self.max_concurrent!r}. Let at least 1 request run.")
        if not isinstance(self.error_strategy, BatchErrorStrategy):
            raise BatchRequestError(
                f"error_strategy is {self.error_strategy!r}. Use one of {', '.join(map(str, BatchErrorStrategy))}."
            )
        if self.history_mode not in get_args(HistoryMode):
            raise BatchRequestError(
                f"history_mode is {self.history_mode!r}. Use one of {', '.join(map(repr, get_args(HistoryMode)))}."
            )
        if self.retry_failed < 0 or self.schema_attempts < 1:
            raise BatchRequestError(
                f"retry_failed is {self.retry_failed!r} and schema_attempts {self.schema_attempts!r}. Use at least 0 "
                "and at least 1."
            )
        if self.history and self.history_mode == "independent":
            raise BatchRequestError(
                "A history was given for independent requests, which have none. Choose history_mode 'shared' or "
                "'sequential'."
            )

    @property
    def width(self) -> int:
        """How many requests run at once: only one where each waits for the answer before it."""
        return 1 if self.history_mode == "sequential" else self.max_concurrent
