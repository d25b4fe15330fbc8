"""The names of what spans carry.

Three families stand beside each other: OpenInference, which Phoenix reads; `gen_ai.*` of OpenTelemetry, which other
back ends read; and our own under `guidance.`. The first two are written out here, because their packages are imported
when the first spans leave and not before; a test holds them against the packages.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "GUIDANCE",
    "OF_CALLERS",
    "OPERATION_KINDS",
    "document",
    "embedded_text",
    "input_message",
    "is_of_program",
    "is_own_key",
    "metadata",
    "output_message",
]

# OpenInference

SPAN_KIND: Final = "openinference.span.kind"
SESSION_ID: Final = "session.id"
USER_ID: Final = "user.id"
INPUT_VALUE: Final = "input.value"
INPUT_MIME_TYPE: Final = "input.mime_type"
OUTPUT_VALUE: Final = "output.value"
OUTPUT_MIME_TYPE: Final = "output.mime_type"
TEXT: Final = "text/plain"
JSON: Final = "application/json"
LLM_MODEL_NAME: Final = "llm.model_name"
LLM_PROVIDER: Final = "llm.provider"
LLM_INVOCATION_PARAMETERS: Final = "llm.invocation_parameters"
LLM_FINISH_REASON: Final = "llm.finish_reason"
LLM_TOKENS_PROMPT: Final = "llm.token_count.prompt"
LLM_TOKENS_COMPLETION: Final = "llm.token_count.completion"
LLM_TOKENS_TOTAL: Final = "llm.token_count.total"
LLM_TOKENS_CACHE_READ: Final = "llm.token_count.prompt_details.cache_read"
LLM_TOKENS_CACHE_WRITE: Final = "llm.token_count.prompt_details.cache_write"
LLM_TOKENS_REASONING: Final = "llm.token_count.completion_details.reasoning"
LLM_COST_TOTAL: Final = "llm.cost.total"
EMBEDDING_MODEL_NAME: Final = "embedding.model_name"
MESSAGE_ROLE: Final = "message.role"
MESSAGE_CONTENT: Final = "message.content"
MESSAGE_TOOL_CALLS: Final = "message.tool_calls"
TOOL_NAME: Final = "tool.name"
TOOL_CALL_ID: Final = "tool_call.id"
TOOL_CALL_NAME: Final = "tool_call.function.name"
TOOL_CALL_ARGUMENTS: Final = "tool_call.function.arguments"
DOCUMENT_ID: Final = "document.id"
DOCUMENT_SCORE: Final = "document.score"
DOCUMENT_CONTENT: Final = "document.content"
DOCUMENT_METADATA: Final = "document.metadata"
PROJECT_NAME: Final = "openinference.project.name"

# gen_ai

GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
GEN_AI_REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"

# OpenTelemetry's own

EXCEPTION: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"

# Ours

GUIDANCE: Final = "guidance."

OUTCOME: Final = "guidance.outcome"
SIMULATED: Final = "guidance.simulated"
TURN_ID: Final = "guidance.turn_id"
CONSULTATION_ID: Final = "guidance.consultation_id"
OPERATION: Final = "guidance.operation"
TRANSPORT: Final = "guidance.transport"
REQUESTED_MODEL: Final = "guidance.requested_model"
ATTEMPTS: Final = "guidance.attempts"
RATE_LIMITED: Final = "guidance.limit.refused"
LIMIT_WAIT: Final = "guidance.limit.wait_seconds"
CALL_ID: Final = "guidance.call_id"
TIME_TO_FIRST_TOKEN: Final = "guidance.time_to_first_token"  # noqa: S105
TIME_TO_FIRST_RELEASED: Final = "guidance.time_to_first_released"
TOTAL_SECONDS: Final = "guidance.total_seconds"
CHUNKS: Final = "guidance.stream.chunks"
TOKENS_PER_SECOND: Final = "guidance.stream.tokens_per_second"
USAGE_ESTIMATED: Final = "guidance.usage.estimated"
CACHE_OUTCOME: Final = "guidance.cache.outcome"
CACHE_PART: Final = "guidance.cache.part."
RESPONSE_CACHE: Final = "guidance.response_cache"
COST_USD: Final = "guidance.cost.usd"
COST_ESTIMATED: Final = "guidance.cost.estimated"
COST_SOURCE: Final = "guidance.cost.prices"
MESSAGES_LEFT_OUT: Final = "guidance.messages_left_out"
MODEL_REASONING: Final = "guidance.model_reasoning"
OUTPUT_CHARACTERS: Final = "guidance.output_characters"
EMBEDDING_TEXTS: Final = "guidance.embedding.texts"
LINK_TRACE_ID: Final = "guidance.link.trace_id"
LINK_SPAN_ID: Final = "guidance.link.span_id"
MODEL: Final = "guidance.model"
STATE: Final = "guidance.turn.state"
FINISH_REASON: Final = "guidance.finish_reason"
TEXT_CHARACTERS: Final = "guidance.text.characters"
DELIVERED_CHARACTERS: Final = "guidance.text.delivered"
ANSWER_SPAN_ID: Final = "guidance.answer_span_id"
CANDIDATE_NUMBER: Final = "guidance.candidate.number"
GATE_ACTION: Final = "guidance.gate.action"
GATE_CHECK: Final = "guidance.gate.check"
GATE_ASKED: Final = "guidance.gate.asked"
GATE_ANSWER: Final = "guidance.gate.answer"
GATE_FINDINGS: Final = "guidance.gate.findings"
GATE_POLICY: Final = "guidance.gate.policy_version"
VERDICT_PASSED: Final = "guidance.verdict.passed"
VERDICT_NEEDS_REVIEW: Final = "guidance.verdict.needs_review"
VERDICT_CONFIDENCE: Final = "guidance.verdict.confidence"
VERDICT_FAILED: Final = "guidance.verdict.failed_checks"
VERDICT_UNREADABLE: Final = "guidance.verdict.unreadable"
VERDICT_JUDGE: Final = "guidance.verdict.judge_model"
VERDICT_POLICY: Final = "guidance.verdict.policy_version"
VERDICT_PURPOSE: Final = "guidance.verdict.purpose"
VERDICT_REUSED: Final = "guidance.verdict.reused"
CORRECTION_START: Final = "guidance.correction.start"
CORRECTION_END: Final = "guidance.correction.end"
CORRECTION_REASON: Final = "guidance.correction.reason"
RETRIEVAL_FACTS: Final = "guidance.retrieval.facts"
RETRIEVAL_CASES: Final = "guidance.retrieval.cases"
RETRIEVAL_RULES: Final = "guidance.retrieval.rules"
RETRIEVAL_MEMORIES: Final = "guidance.retrieval.memories"
RETRIEVAL_FIGURES: Final = "guidance.retrieval.figures"
RETRIEVAL_TOPICS: Final = "guidance.retrieval.topics"
RETRIEVAL_DEGRADED: Final = "guidance.retrieval.degraded"
JOB_NAME: Final = "guidance.job.name"
JOB_DONE: Final = "guidance.job.done"
BATCH_JOB: Final = "guidance.batch.job"
BATCH_KIND: Final = "guidance.batch.kind"
BATCH_ID: Final = "guidance.batch.id"
BATCH_PROVIDER_ID: Final = "guidance.batch.provider_id"
BATCH_ROUND: Final = "guidance.batch.round"
BATCH_ROUTE: Final = "guidance.batch.route"
BATCH_STATE: Final = "guidance.batch.state"
BATCH_REASON: Final = "guidance.batch.reason"
BATCH_BATCHES: Final = "guidance.batch.batches"
BATCH_ITEMS: Final = "guidance.batch.items"
BATCH_ITEMS_SHOWN: Final = "guidance.batch.items_shown"
BATCH_OUTCOMES: Final = "guidance.batch.outcomes"
BATCH_ITEM: Final = "guidance.batch.item"
BATCH_ITEM_OUTCOME: Final = "guidance.batch.item_outcome"
COST_INTERACTIVE: Final = "guidance.cost.interactive_usd"

ATTEMPT: Final = "attempt"
ATTEMPT_FAILED: Final = "attempt_failed"
ATTEMPT_NUMBER: Final = "guidance.attempt.number"
ATTEMPT_WAIT: Final = "guidance.attempt.wait_seconds"

OWN_EVENTS: Final = frozenset({ATTEMPT, ATTEMPT_FAILED, EXCEPTION})
"""Events whose names are the program's own."""

OPERATION_KINDS: Final = {"embedding": "EMBEDDING"}
"""Kinds of the model calls that are not `LLM`, by operation."""

OF_CALLERS: Final = frozenset({SESSION_ID, CONSULTATION_ID, TURN_ID, GEN_AI_CONVERSATION_ID, BATCH_ITEM})
"""Ids that a caller may have chosen: one that redaction would change is replaced by a pseudonym, which stays apart."""

_OF_PROGRAM: Final = frozenset(
    {
        SPAN_KIND,
        USER_ID,
        INPUT_MIME_TYPE,
        OUTPUT_MIME_TYPE,
        LLM_MODEL_NAME,
        LLM_PROVIDER,
        LLM_FINISH_REASON,
        EMBEDDING_MODEL_NAME,
        EXCEPTION_TYPE,
        GEN_AI_OPERATION_NAME,
        GEN_AI_PROVIDER_NAME,
        GEN_AI_REQUEST_MODEL,
        GEN_AI_RESPONSE_MODEL,
        GEN_AI_RESPONSE_FINISH_REASONS,
        LINK_TRACE_ID,
        LINK_SPAN_ID,
        CALL_ID,
        ANSWER_SPAN_ID,
        OUTCOME,
        STATE,
        FINISH_REASON,
        OPERATION,
        MODEL,
        REQUESTED_MODEL,
        TRANSPORT,
        CACHE_OUTCOME,
        RESPONSE_CACHE,
        COST_SOURCE,
        JOB_NAME,
        BATCH_JOB,
        BATCH_KIND,
        BATCH_ID,
        BATCH_PROVIDER_ID,
        BATCH_ROUTE,
        BATCH_STATE,
        BATCH_OUTCOMES,
        BATCH_ITEM_OUTCOME,
        GATE_ACTION,
        GATE_CHECK,
        GATE_ASKED,
        GATE_ANSWER,
        GATE_FINDINGS,
        GATE_POLICY,
        VERDICT_FAILED,
        VERDICT_JUDGE,
        VERDICT_POLICY,
        VERDICT_PURPOSE,
        RETRIEVAL_FIGURES,
        RETRIEVAL_TOPICS,
    }
)
_FAMILIES: Final = (
    *("embedding.", "exception.", "gen_ai.", "guidance.", "input.", "llm.", "openinference.", "output."),
    *("retrieval.", "session.", "user."),
)
_WORDS = re.compile(r"[a-z_]+(?:\.(?:[a-z_]+|[0-9]{1,4}))+")
_PROGRAM_ENDS: Final = (f".{MESSAGE_ROLE}", f".{DOCUMENT_ID}", f".{DOCUMENT_METADATA}")


def is_of_program(key: str) -> bool:
    """Return whether what stands under this name are words of the program's own, and never of a person."""
    return key in _OF_PROGRAM or key.endswith(_PROGRAM_ENDS) or key.startswith(CACHE_PART)


def is_own_key(key: str) -> bool:
    """Return whether this is the name of an attribute in one of the families here, and so holds nothing of a person."""
    return key.startswith(_FAMILIES) and _WORDS.fullmatch(key) is not None


def input_message(number: int, field: str) -> str:
    """Return the name of a field of the message with this number that went to a model."""
    return f"llm.input_messages.{number}.{field}"


def output_message(number: int, field: str) -> str:
    """Return the name of a field of the message with this number that a model wrote."""
    return f"llm.output_messages.{number}.{field}"


def embedded_text(number: int) -> str:
    """Return the name of the text with this number that was embedded."""
    return f"embedding.embeddings.{number}.embedding.text"


def document(number: int, field: str) -> str:
    """Return the name of a field of the document with this number that was found."""
    return f"retrieval.documents.{number}.{field}"


def metadata(key: str) -> str:
    """Return our name for an id that a call's record keeps, such as `guidance.turn_id` for `turn_id`."""
    return f"guidance.{key}"
