"""When a batch is looked at again, and why it waits."""

from __future__ import annotations

from guidance_agent.core.batches.leases import BatchLease
from guidance_agent.core.batches.states import BatchState, Parts
from guidance_agent.errors import GuidanceAgentError, ModelError, RateLimitedError

__all__ = ["cause", "put_off", "put_off_until"]

_NOTED = "waits"


def cause(error: BaseException) -> str:
    """Return what went wrong, in one line."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def put_off(
    parts: Parts, lease: BatchLease, error: Exception, *, before: BatchState, after: BatchState | None = None
) -> None:
    """Leave a batch for a while after something failed; each time in a row it is left for twice as long.

    A failure that waiting does not cure is told as one that needs a person. It is tried again all the same: a person
    who has done something about it need not tell the program.
    """
    lease.failure = error
    waits = int(lease.row["notes"].get(_NOTED, 0)) + 1
    options = parts.options
    seconds = min(options.longest_wait, options.retry_after * 2.0 ** (waits - 1))
    lasting = isinstance(error, OSError) or (isinstance(error, GuidanceAgentError) and not _passing(error))
    if isinstance(error, ModelError) and error.retry_after is not None:
        seconds = min(options.longest_wait, max(seconds, error.retry_after))
    values = {
        "not_before": parts.now + seconds,
        "reason": cause(error),
        "needs_person": lasting,
        "notes": {**lease.row["notes"], _NOTED: waits},
    }
    if after is not None:
        values["state"] = after
    await lease.change(values, before=before)


async def put_off_until(lease: BatchLease, moment: float, *, before: BatchState, reason: str) -> None:
    """Leave a batch until a moment, because there is nothing to do before."""
    notes = {name: value for name, value in lease.row["notes"].items() if name != _NOTED}
    values = {"not_before": moment, "reason": reason, "needs_person": False, "notes": notes}
    await lease.change(values, before=before)


def _passing(error: GuidanceAgentError) -> bool:
    return isinstance(error, ModelError) and (error.retryable or isinstance(error, RateLimitedError))
