"""The tables: one schema for SQLite and PostgreSQL.

Times are stored in UTC and read back aware. Leases are seconds since the epoch, because they are compared, never shown.
JSON is kept as the text it was written as (`json` and not `jsonb`), so that a record reads the same on both.

A length belongs to ids, hashes and words that the program chooses. What comes from outside has none, because SQLite
does not look at lengths and PostgreSQL refuses the row; and what no text column holds is replaced on its way in.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from guidance_agent.core.embedding_column import Embedding
from guidance_agent.core.text import TextCleaner, is_storable

__all__ = [
    "batch_items",
    "batch_jobs",
    "cases",
    "consultations",
    "corrections",
    "embedding_cache",
    "gate_actions",
    "memories",
    "metadata",
    "model_calls",
    "provider_batches",
    "response_cache",
    "reviews",
    "rule_releases",
    "rules",
    "span_annotations",
    "turn_events",
    "turns",
    "verdicts",
    "worker_slots",
]


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A moment in UTC; a naive one is refused, because nobody can say what it means."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if not isinstance(value, datetime):
            raise TypeError(f"what was to be stored is no time: {value!r}")
        if value.tzinfo is None:
            raise ValueError(f"a time without a time zone was to be stored: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _storable(text: str | None) -> str | None:
    if text is None or is_storable(text):
        return text
    cleaner = TextCleaner()
    return cleaner.clean(text) + cleaner.finish()


class StoredText(sa.types.TypeDecorator[str]):
    """Text from outside, of any length: NUL and lone surrogates, which not every database holds, become U+FFFD."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return _storable(value)


class StoredId(sa.types.TypeDecorator[str]):
    """An id of at most 64 characters; one that cannot be stored is not found, where a driver would raise."""

    impl = sa.String(64)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return _storable(value)


def _id(name: str = "id") -> sa.Column[str]:
    return sa.Column(name, StoredId, primary_key=True)


def _vector_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("embedding", Embedding, nullable=True),
        sa.Column("embedding_model", StoredText, nullable=True),
        sa.Column("embedding_dimensions", sa.Integer, nullable=True),
    )


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

consultations = sa.Table(
    "consultations",
    metadata,
    _id(),
    sa.Column("customer_id", sa.String(200), nullable=False),
    sa.Column("advisor_id", StoredText, nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("profile", sa.JSON, nullable=False),
    sa.Column("transcript_hash", sa.String(64), nullable=False),
    sa.Column("turn_count", sa.Integer, nullable=False, default=0),
    sa.Column("outcome", sa.String(16), nullable=False, default="open"),
    sa.Column("outcome_reason", StoredText, nullable=True),
    sa.Column("outcome_source", sa.String(32), nullable=True),
    sa.Column("outcome_at", UtcDateTime, nullable=True),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Index("ix_consultations_customer", "customer_id", "outcome", "transcript_hash"),
)

turns = sa.Table(
    "turns",
    metadata,
    _id(),
    sa.Column("consultation_id", sa.ForeignKey("consultations.id"), nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("question", StoredText, nullable=False),
    sa.Column("model", StoredText, nullable=False),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("owner", StoredText, nullable=False),
    sa.Column("lease_until", sa.Float, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime, nullable=True),
    sa.Column("last_sequence", sa.Integer, nullable=False),
    sa.Column("text_length", sa.Integer, nullable=False, default=0),
    sa.Column("delivered_length", sa.Integer, nullable=True),
    sa.Column("text_hash", sa.String(64), nullable=True),
    sa.Column("finish_reason", sa.String(32), nullable=True),
    sa.Column("error", StoredText, nullable=True),
    sa.Column("judgement", sa.String(32), nullable=True),
    sa.Column("reasoning", StoredText, nullable=True),
    sa.Column("context", sa.JSON, nullable=False),
    sa.Column("timing", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("traceparent", sa.String(64), nullable=True),
    sa.Column("answer_span_id", sa.String(16), nullable=True),
    sa.UniqueConstraint("consultation_id", "ordinal"),
    sa.Index("ix_turns_state_lease", "state", "lease_until"),
    sa.Index("ix_turns_judgement", "judgement", "ended_at"),
)

turn_events = sa.Table(
    "turn_events",
    metadata,
    sa.Column("turn_id", sa.ForeignKey("turns.id"), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("text", StoredText, nullable=True),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

gate_actions = sa.Table(
    "gate_actions",
    metadata,
    sa.Column("turn_id", sa.ForeignKey("turns.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("check", sa.String(64), nullable=True),
    sa.Column("start", sa.Integer, nullable=False),
    sa.Column("end", sa.Integer, nullable=False),
    sa.Column("withheld_text", StoredText, nullable=True),
    sa.Column("replacement", StoredText, nullable=True),
    sa.Column("findings", sa.JSON, nullable=False),
    sa.Column("policy_version", sa.String(64), nullable=False),
    sa.Column("asked", sa.String(16), nullable=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

model_calls = sa.Table(
    "model_calls",
    metadata,
    _id(),
    sa.Column("turn_id", StoredText, nullable=True),
    sa.Column("consultation_id", StoredText, nullable=True),
    sa.Column("operation", StoredText, nullable=False),
    sa.Column("model", StoredText, nullable=False),
    sa.Column("requested_model", StoredText, nullable=False),
    sa.Column("provider", StoredText, nullable=False),
    sa.Column("transport", sa.String(32), nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("outcome", sa.String(64), nullable=False),
    sa.Column("finish_reason", sa.String(32), nullable=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("first_token_seconds", sa.Float, nullable=True),
    sa.Column("total_seconds", sa.Float, nullable=False),
    sa.Column("chunks", sa.Integer, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=True),
    sa.Column("cache_read_tokens", sa.BigInteger, nullable=True),
    sa.Column("cache_write_5m_tokens", sa.BigInteger, nullable=True),
    sa.Column("cache_write_1h_tokens", sa.BigInteger, nullable=True),
    sa.Column("output_tokens", sa.BigInteger, nullable=True),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=True),
    sa.Column("usage_estimated", sa.Boolean, nullable=False),
    sa.Column("cost_usd", sa.Float, nullable=True),
    sa.Column("unit_prices", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("cache_outcome", sa.String(64), nullable=False),
    sa.Column("cache_parts", sa.JSON, nullable=False),
    sa.Column("cache_use", sa.JSON, nullable=False, default=dict),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("request_id", StoredText, nullable=True),
    sa.Column("error", StoredText, nullable=True),
    sa.Index("ix_model_calls_turn", "turn_id"),
    sa.Index("ix_model_calls_started", "started_at"),
)

memories = sa.Table(
    "memories",
    metadata,
    _id(),
    sa.Column("customer_id", sa.String(200), nullable=False),
    sa.Column("consultation_id", StoredId, nullable=False),
    sa.Column("turn_id", StoredId, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("text", StoredText, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("last_retrieved_at", UtcDateTime, nullable=True),
    sa.Column("importance", sa.Float, nullable=True),
    sa.Column("importance_attempts", sa.Integer, nullable=False, default=0),
    sa.Column("simulated", sa.Boolean, nullable=False),
    *_vector_columns(),
    sa.UniqueConstraint("turn_id", "kind"),
    sa.Index("ix_memories_customer", "customer_id", "created_at"),
    sa.Index("ix_memories_importance", "importance", "importance_attempts"),
)

cases = sa.Table(
    "cases",
    metadata,
    _id(),
    sa.Column("turn_id", StoredId, nullable=False, unique=True),
    sa.Column("topic", StoredText, nullable=True),
    sa.Column("text", StoredText, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("simulated", sa.Boolean, nullable=False),
    *_vector_columns(),
)

rules = sa.Table(
    "rules",
    metadata,
    _id(),
    sa.Column("text", StoredText, nullable=False),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("simulated", sa.Boolean, nullable=False),
    *_vector_columns(),
)

rule_releases = sa.Table(
    "rule_releases",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("released_at", UtcDateTime, nullable=False),
    sa.Column("rule_ids", sa.JSON, nullable=False),
    sa.Column("note", StoredText, nullable=False, default=""),
)

embedding_cache = sa.Table(
    "embedding_cache",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

response_cache = sa.Table(
    "response_cache",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("operation", StoredText, nullable=False),
    sa.Column("model", StoredText, nullable=False),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("content", StoredText, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Index("ix_response_cache_created", "created_at"),
)

verdicts = sa.Table(
    "verdicts",
    metadata,
    _id(),
    sa.Column("turn_id", sa.ForeignKey("turns.id"), nullable=False),
    sa.Column("consultation_id", sa.ForeignKey("consultations.id"), nullable=False),
    sa.Column("text_hash", sa.String(64), nullable=False),
    sa.Column("policy_version", sa.String(64), nullable=False),
    sa.Column("purpose", sa.String(64), nullable=False),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("needs_review", sa.Boolean, nullable=False),
    sa.Column("verdict", sa.JSON, nullable=False),
    sa.Column("judge_model", StoredText, nullable=True),
    sa.Column("cost_usd", sa.Float, nullable=True),
    sa.Column("simulated", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("text", StoredText, nullable=True),
    sa.UniqueConstraint("turn_id", "text_hash", "policy_version", "purpose"),
    sa.Index("ix_verdicts_created", "created_at"),
)

corrections = sa.Table(
    "corrections",
    metadata,
    _id(),
    sa.Column("turn_id", sa.ForeignKey("turns.id"), nullable=False),
    sa.Column("verdict_id", sa.ForeignKey("verdicts.id"), nullable=False),
    sa.Column("span_start", sa.Integer, nullable=False),
    sa.Column("span_end", sa.Integer, nullable=False),
    sa.Column("replacement", StoredText, nullable=False),
    sa.Column("reason", StoredText, nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("delivered_at", UtcDateTime, nullable=True),
    sa.UniqueConstraint("turn_id", "sequence"),
)

reviews = sa.Table(
    "reviews",
    metadata,
    _id(),
    sa.Column("turn_id", sa.ForeignKey("turns.id"), nullable=False),
    sa.Column("verdict_id", sa.ForeignKey("verdicts.id"), nullable=True),
    sa.Column("cause", sa.String(16), nullable=False),
    sa.Column("detail", StoredText, nullable=False, default=""),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("opened_at", UtcDateTime, nullable=False),
    sa.Column("claimed_by", StoredText, nullable=True),
    sa.Column("claimed_at", UtcDateTime, nullable=True),
    sa.Column("decision", sa.String(32), nullable=True),
    sa.Column("reason", StoredText, nullable=True),
    sa.Column("decided_by", StoredText, nullable=True),
    sa.Column("decided_at", UtcDateTime, nullable=True),
    sa.UniqueConstraint("turn_id", "cause"),
    sa.Index("ix_reviews_status", "status", "opened_at"),
)

span_annotations = sa.Table(
    "span_annotations",
    metadata,
    _id(),
    sa.Column("turn_id", sa.ForeignKey("turns.id"), nullable=False),
    sa.Column("verdict_id", sa.ForeignKey("verdicts.id"), nullable=True),
    sa.Column("trace_id", sa.String(32), nullable=False),
    sa.Column("span_id", sa.String(16), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("annotator_kind", sa.String(16), nullable=False),
    sa.Column("label", sa.String(32), nullable=False),
    sa.Column("score", sa.Float, nullable=True),
    sa.Column("explanation", StoredText, nullable=True),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("identifier", sa.String(128), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_attempt", sa.Float, nullable=False),
    sa.Column("sent_at", UtcDateTime, nullable=True),
    sa.Column("error", StoredText, nullable=True),
    sa.UniqueConstraint("turn_id", "name", "identifier"),
    sa.Index("ix_span_annotations_unsent", "sent_at", "next_attempt"),
)

worker_slots = sa.Table(
    "worker_slots",
    metadata,
    sa.Column("name", sa.String(300), primary_key=True),
    sa.Column("holder", StoredText, nullable=False),
    sa.Column("lease_until", sa.Float, nullable=False),
    sa.Column("taken_at", UtcDateTime, nullable=False),
)

batch_jobs = sa.Table(
    "batch_jobs",
    metadata,
    _id(),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("items", sa.Integer, nullable=False, default=0),
    sa.Column("fingerprint", sa.String(64), nullable=True),
    sa.Column("deadline", UtcDateTime, nullable=True),
    sa.Column("online_allowed", sa.Boolean, nullable=False),
    sa.Column("cancelled_at", UtcDateTime, nullable=True),
    sa.Column("ended_at", UtcDateTime, nullable=True),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("traceparent", sa.String(64), nullable=True),
    sa.Column("owner", sa.String(64), nullable=True),
    sa.Column("lease_until", sa.Float, nullable=False, default=0.0),
    sa.Index("ix_batch_jobs_state", "state", "created_at"),
)

provider_batches = sa.Table(
    "provider_batches",
    metadata,
    _id(),
    sa.Column("job_id", sa.ForeignKey("batch_jobs.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("round", sa.Integer, nullable=False, default=1),
    sa.Column("route", sa.String(16), nullable=False, default="batch"),
    sa.Column("provider", StoredText, nullable=False),
    sa.Column("model", StoredText, nullable=False),
    sa.Column("primes", sa.Boolean, nullable=False, default=False),
    sa.Column("after_batch_id", StoredId, nullable=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("items", sa.Integer, nullable=False, default=0),
    sa.Column("bytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("intent_at", UtcDateTime, nullable=True),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("unclear_since", UtcDateTime, nullable=True),
    sa.Column("provider_batch_id", StoredText, nullable=True),
    sa.Column("input_file_id", StoredText, nullable=True),
    sa.Column("submitted_at", UtcDateTime, nullable=True),
    sa.Column("ended_at", UtcDateTime, nullable=True),
    sa.Column("collected_at", UtcDateTime, nullable=True),
    sa.Column("applied_at", UtcDateTime, nullable=True),
    sa.Column("collections", sa.Integer, nullable=False, default=0),
    sa.Column("not_before", sa.Float, nullable=False, default=0.0),
    sa.Column("counts", sa.JSON, nullable=False, default=dict),
    sa.Column("cost_usd", sa.Float, nullable=True),
    sa.Column("interactive_usd", sa.Float, nullable=True),
    sa.Column("unpriced", sa.Integer, nullable=False, default=0),
    sa.Column("simulated", sa.Boolean, nullable=True),
    sa.Column("needs_person", sa.Boolean, nullable=False, default=False),
    sa.Column("reason", StoredText, nullable=True),
    sa.Column("notes", sa.JSON, nullable=False, default=dict),
    sa.Column("traceparent", sa.String(64), nullable=True),
    sa.Column("owner", sa.String(64), nullable=True),
    sa.Column("lease_until", sa.Float, nullable=False, default=0.0),
    sa.UniqueConstraint("job_id", "number"),
    sa.Index("ix_provider_batches_state", "state", "not_before"),
)

batch_items = sa.Table(
    "batch_items",
    metadata,
    _id(),
    sa.Column("job_id", sa.ForeignKey("batch_jobs.id"), nullable=False),
    sa.Column("batch_id", sa.ForeignKey("provider_batches.id"), nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("custom_id", StoredText, nullable=False),
    sa.Column("wire_id", sa.String(64), nullable=False),
    sa.Column("round", sa.Integer, nullable=False, default=1),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("outcome", sa.String(32), nullable=True),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("traceparent", sa.String(64), nullable=True),
    sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("usage", sa.JSON(none_as_null=True), nullable=True),
    sa.Column("cost_usd", sa.Float, nullable=True),
    sa.Column("interactive_usd", sa.Float, nullable=True),
    sa.Column("spent_usd", sa.Float, nullable=False, default=0.0),
    sa.Column("error", StoredText, nullable=True),
    sa.Column("error_type", sa.String(64), nullable=True),
    sa.Column("reason", StoredText, nullable=True),
    sa.Column("apply_attempts", sa.Integer, nullable=False, default=0),
    sa.Column("apply_error", StoredText, nullable=True),
    sa.Column("collected_at", UtcDateTime, nullable=True),
    sa.Column("applied_at", UtcDateTime, nullable=True),
    sa.UniqueConstraint("wire_id"),
    sa.Index("ix_batch_items_batch", "batch_id", "position"),
    sa.Index("ix_batch_items_job", "job_id", "position"),
)
