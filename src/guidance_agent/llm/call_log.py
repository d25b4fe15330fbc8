"""One line in the log for every model call: figures and names, nothing that a customer or a model wrote.

The line is `model call` and `name=value` pairs; the same values are the record's attribute `model_call`, for handlers
that write JSON. The logger is `guidance_agent.calls`, the level INFO.
"""

from __future__ import annotations

import json
import logging
import re

from guidance_agent.llm.messages import ModelCall

__all__ = ["LOGGER", "log_call"]

LOGGER = "guidance_agent.calls"

_logger = logging.getLogger(LOGGER)
_plain = re.compile(r"[\w.:/@+-]+")


def log_call(call: ModelCall, trace_id: str | None) -> None:
    """Log `call` if anybody listens."""
    if not _logger.isEnabledFor(logging.INFO):
        return
    usage, timing = call.usage, call.timing
    fields = {
        "model": call.model,
        "operation": call.operation,
        "outcome": call.outcome,
        "attempts": call.attempts,
        "rate_limited": call.rate_limited,
        "limit_wait_s": round(call.limit_wait, 4),
        "input_tokens": None if usage is None else usage.total_input_tokens,
        "cached_tokens": None if usage is None else usage.cache_read_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "estimated": None if usage is None else usage.estimated,
        "cost_usd": None if call.cost is None else round(call.cost.usd, 8),
        "cache": call.cache_outcome,
        "first_token_s": None if timing.first_token is None else round(timing.first_token, 4),
        "total_s": round(timing.total, 4),
        "request_id": call.request_id,
        "simulated": call.simulated,
        "trace_id": trace_id,
    }
    line = " ".join(f"{name}={_written(value)}" for name, value in fields.items())
    _logger.info("model call %s", line, extra={"model_call": fields})


def _written(value: object) -> str:
    """Return a value so that the line stays one line with one `=` per name, whatever a caller calls an operation."""
    text = str(value)
    return text if _plain.fullmatch(text) else json.dumps(text)
