"""Writing many rows of a table with one statement.

SQLite takes rows one after the other at no cost worth naming. What costs there is what SQLAlchemy does for each row, so
its driver gets the statement's text and values that are made by the columns' own types. To PostgreSQL each row is a
message of its own, prepared, sent, parsed and answered; so many rows go there as one JSON document, which costs client
and server about half.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from guidance_agent.core.embedding_column import Embedding
from guidance_agent.core.stored_json import stored_json

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["Row", "insert_or_change", "insert_rows", "is_one_of", "named_ids", "update_rows"]

Row = Mapping[str, Any]
_UNREADABLE = re.compile(r"\\u(0000|d[89a-f])")
_MANY = 4
"""From so many rows on, one document costs less than the messages."""


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Iterable[Row]) -> None:
    """Insert rows, with one statement for all that name the same columns."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(row)
    for names, some in groups.items():
        if (plain := _plain(connection.dialect, _insert(table), table, names)) is not None:
            plain.write(connection, some)
        elif (document := _document(connection.dialect, table, names, some)) is None:
            connection.execute(_insert(table), some)
        else:
            connection.execute(_insert_document(table, names), {"rows": document})


def update_rows(connection: sa.Connection, table: sa.Table, changes: Iterable[tuple[str, Row]]) -> None:
    """Set values of rows by id, with one statement for all that change the same columns."""
    groups: dict[tuple[str, ...], list[tuple[str, Row]]] = {}
    for row_id, values in changes:
        if values:
            groups.setdefault(tuple(sorted(values)), []).append((row_id, values))
    for names, some in groups.items():
        if (plain := _plain(connection.dialect, _update(table), table, ("row_id", *names))) is not None:
            plain.write(connection, [{"row_id": row_id, **values} for row_id, values in some])
            continue
        rows = [{"id": row_id, **values} for row_id, values in some]
        document = _document(connection.dialect, table, ("id", *names), rows)
        if document is None:
            connection.execute(_update(table), [{"row_id": row_id, **values} for row_id, values in some])
        else:
            connection.execute(_update_document(table, names), {"rows": document})


def is_one_of(dialect: str, column: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a text is among the parameter `ids`: one statement for any number of them."""
    if dialect == "postgresql":
        return column == sa.any_(_ids(dialect))
    return column.in_(sa.select(named_ids(dialect).c.value))


def named_ids(dialect: str) -> sa.TableValuedAlias:
    """Return the parameter `ids` as a table with the column `value`."""
    if dialect == "postgresql":
        return sa.func.unnest(_ids(dialect)).table_valued("value", name="named").render_derived()
    return sa.func.json_each(_ids(dialect)).table_valued("value", name="named")


def _ids(dialect: str) -> sa.BindParameter[Any]:
    """Return the parameter `ids`, a list; as one array, it leaves the statement as it is, prepared once."""
    return sa.bindparam("ids", type_=sa.ARRAY(sa.Text) if dialect == "postgresql" else sa.JSON())


def insert_or_change(dialect: str, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return the insert of a database that can say what happens to rows which are there already."""
    # Imported where it is used: the other database's dialect would cost a process time before its first text.
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite

    return sqlite.insert(table)


class _Plain(NamedTuple):
    """A statement as the driver takes it: its text, and for each of its places a name, a type's own work, a default."""

    text: str
    places: tuple[tuple[str, Callable[[Any], Any] | None, Any], ...]

    def write(self, connection: sa.Connection, rows: Sequence[Row]) -> None:
        columns = [
            _prepared([row.get(name, default) for row in rows], prepare) for name, prepare, default in self.places
        ]
        connection.exec_driver_sql(self.text, list(zip(*columns, strict=True)))


def _prepared(values: list[Any], prepare: Callable[[Any], Any] | None) -> list[Any]:
    """Return a column's values as the driver takes them; what is the same in every row is made once."""
    if prepare is None:
        return values
    first = values[0]
    if all(value is first for value in values):
        return [prepare(first)] * len(values)
    return [prepare(value) for value in values]


# Statements are built once: building one costs more than running it.


@functools.cache
def _plain(
    dialect: Dialect, statement: sa.Insert | sa.Update, table: sa.Table, names: tuple[str, ...]
) -> _Plain | None:
    """Return the statement for rows that name these columns; None where SQLAlchemy has to see each row."""
    if dialect.name != "sqlite":
        return None
    compiled = statement.compile(dialect=dialect, column_keys=names)
    places = []
    for name in compiled.positiontup or ():
        column = table.c["id" if name == "row_id" else name]
        default: Any = None
        if name not in names:
            if not isinstance(column.default, sa.ColumnDefault) or not column.default.is_scalar:
                return None
            default = column.default.arg
        places.append((name, column.type.dialect_impl(dialect).bind_processor(dialect), default))
    return _Plain(str(compiled), tuple(places))


@functools.cache
def _insert(table: sa.Table) -> sa.Insert:
    return sa.insert(table)


@functools.cache
def _update(table: sa.Table) -> sa.Update:
    return sa.update(table).where(table.c.id == sa.bindparam("row_id"))


@functools.cache
def _insert_document(table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    new = _recordset(table, names)
    return sa.insert(table).from_select(names, sa.select(*(new.c[name] for name in names)))


@functools.cache
def _update_document(table: sa.Table, names: tuple[str, ...]) -> sa.Update:
    new = _recordset(table, ("id", *names))
    return sa.update(table).where(table.c.id == new.c.id).values({name: new.c[name] for name in names})


def _recordset(table: sa.Table, names: tuple[str, ...]) -> sa.TableValuedAlias:
    columns = [sa.column(name, table.c[name].type) for name in names]
    document = sa.cast(sa.bindparam("rows", type_=sa.Text()), sa.JSON())
    return sa.func.json_to_recordset(document).table_valued(*columns, name="new").render_derived(with_types=True)


@functools.cache
def _takes_documents(dialect: Dialect, table: sa.Table) -> bool:
    # Binary values are larger and slower in JSON.
    return dialect.name == "postgresql" and not any(isinstance(column.type, Embedding) for column in table.c)


def _document(dialect: Dialect, table: sa.Table, names: tuple[str, ...], rows: Sequence[Row]) -> str | None:
    """Return the rows as one JSON text; None where they are better written one by one."""
    if len(rows) < _MANY or not _takes_documents(dialect, table):
        return None
    writers = _writers(dialect, table, names)
    text = stored_json([{name: write(row[name]) for name, write in writers} for row in rows])
    # A JSON column keeps such escapes; the function that reads the document refuses them.
    return None if _UNREADABLE.search(text) else text


@functools.cache
def _writers(dialect: Dialect, table: sa.Table, names: tuple[str, ...]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """Return for each column what makes of its values the ones that JSON has."""
    return tuple((name, _writer(dialect, table.c[name].type)) for name in names)


def _writer(dialect: Dialect, kind: sa.types.TypeEngine[Any]) -> Callable[[Any], Any]:
    if not isinstance(kind, sa.types.TypeDecorator):
        return _as_it_is
    prepare = functools.partial(kind.process_bind_param, dialect=dialect)
    if isinstance(kind.impl_instance, sa.DateTime):
        return lambda value: None if value is None else prepare(value).isoformat()
    return prepare


def _as_it_is(value: Any) -> Any:
    return value
