"""Watches that no two calls of one model in one consultation differ in the start of their prompts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

from guidance_agent.llm.messages import ModelCall
from guidance_agent.provider_simulator.request_log import RequestRecord
from tests.integration.llm.cache_marks import prefix_move

__all__ = ["MOVES_PREFIX", "consecutive_requests", "moved_prefixes"]

MOVES_PREFIX = "moves_prefix(reason): the prompts of a consultation may change before their last message, and why"

Line = tuple[str, str, str]
"""A consultation, a model, and whose prompt it is: answer and notes share one, a judge has its own."""


def consecutive_requests(
    records: Iterable[RequestRecord], calls: Mapping[str, ModelCall]
) -> Iterator[tuple[Line, RequestRecord, RequestRecord]]:
    """Yield each request of a consultation with the next one of the same model.

    Args:
        records: What the provider received, oldest first.
        calls: Our records of the calls by the provider's request id.
    """
    lines: dict[Line, list[RequestRecord]] = {}
    for record in records:
        call = calls.get(record.request_id)
        if call is not None and "consultation_id" in call.metadata and record.body is not None:
            prompt = "advisor" if call.operation in ("guidance", "reasoning") else call.operation
            lines.setdefault((call.metadata["consultation_id"], record.model, prompt), []).append(record)
    for line, received in lines.items():
        for before, after in itertools.pairwise(received):
            yield line, before, after


def moved_prefixes(records: Iterable[RequestRecord], calls: Mapping[str, ModelCall]) -> list[str]:
    """Return a sentence for each pair of requests whose prompts do not start alike."""
    return [
        f"request {after.number} of {line[1]} in {line[0]} does not begin as request {before.number} did"
        for line, before, after in consecutive_requests(records, calls)
        if prefix_move(before.body, after.body) == "moved"
    ]
