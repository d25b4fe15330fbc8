"""Column types that every table shares, and the one collection of tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from guidance_agent.core.embedding_column import Embedding
from guidance_agent.core.text import TextCleaner, is_storable

__all__ = ["StoredId", "StoredText", "UtcDateTime", "id_column", "metadata", "vector_columns"]


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


def id_column(name: str = "id") -> sa.Column[str]:
    return sa.Column(name, StoredId, primary_key=True)


def vector_columns() -> tuple[sa.Column[Any], ...]:
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
