"""Concurrent batches: many requests now, with order, errors, tools, schemas and progress kept apart for each.

For answers within a day at half the price there is `guidance_agent.core.batch_processing`.
"""

from guidance_agent.llm.batch_request import BatchRequest, BatchResult
from guidance_agent.llm.concurrent.calls import (
    batch_complete,
    batch_complete_simple,
    batch_complete_sync,
    stream_batch,
)
from guidance_agent.llm.concurrent.config import (
    BatchConfig,
    BatchErrorStrategy,
    BatchProgress,
    HistoryMode,
    ResultOrder,
)
from guidance_agent.llm.concurrent.response import BatchResponse
from guidance_agent.llm.concurrent.stream import BatchStream

__all__ = [
    "BatchConfig",
    "BatchErrorStrategy",
    "BatchProgress",
    "BatchRequest",
    "BatchResponse",
    "BatchResult",
    "BatchStream",
    "HistoryMode",
    "ResultOrder",
    "batch_complete",
    "batch_complete_simple",
    "batch_complete_sync",
    "stream_batch",
]
