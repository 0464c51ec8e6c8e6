"""What SQLite and PostgreSQL say differently."""

from __future__ import annotations

import zlib
from typing import Any

from sqlalchemy import Float, Table, cast, extract, false, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.sql import ColumnElement

__all__ = ["fresh_reads", "insert", "lock_table", "now", "take_turns"]

_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def _name(where: AsyncSession | AsyncConnection) -> str:
    bind = where.get_bind() if isinstance(where, AsyncSession) else where
    name = str(bind.dialect.name)
    if name not in _INSERT:
        raise ValueError(f"sbrpc.sql works with SQLite and PostgreSQL, not with {name}")
    return name


def insert(where: AsyncSession | AsyncConnection, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT."""
    return _INSERT[_name(where)](table)


def now(where: AsyncSession | AsyncConnection) -> ColumnElement[float]:
    """The database's own clock in seconds since 1970, so that those who share it agree."""
    if _name(where) == "sqlite":
        return (func.julianday("now") - 2440587.5) * 86400.0
    return cast(extract("epoch", func.clock_timestamp()), Float)


async def lock_table(where: AsyncSession | AsyncConnection, table: Table) -> None:
    """Keep other writers of a table out until the transaction ends. They wait; readers do not."""
    if _name(where) == "postgresql":
        await where.execute(text(f'LOCK TABLE "{table.name}" IN EXCLUSIVE MODE'))
    else:
        await _write_nothing(where, table)


async def take_turns(connection: AsyncConnection, table: Table) -> None:
    """Wait until no other transaction is in this place; those that merely write to the table are not kept."""
    if _name(connection) == "postgresql":
        number = zlib.crc32(f"sbrpc {table.fullname}".encode())
        await connection.execute(select(func.pg_advisory_xact_lock(number)))
    else:
        await _write_nothing(connection, table)


async def _write_nothing(where: AsyncSession | AsyncConnection, table: Table) -> None:
    # SQLite knows one writer per database. A write that changes nothing makes this transaction the one.
    await where.execute(table.update().where(false()).values({table.c[0].name: table.c[0]}))


def fresh_reads(engine: AsyncEngine) -> AsyncEngine:
    """The engine with transactions in which each statement sees what has been committed before it."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="READ COMMITTED")
    return engine
