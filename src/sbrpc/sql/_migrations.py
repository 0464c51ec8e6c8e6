"""A database that is brought up to date by Alembic before anything works with it, whoever starts first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from sbrpc.errors import SbrpcError

__all__ = ["migrated"]


@asynccontextmanager
async def migrated(engine: AsyncEngine, scripts: Path | str, **attributes: Any) -> AsyncIterator[AsyncEngine]:
    """The engine, on a database in which every migration of a folder has been applied; closed in the end.

        return [migrated(engine, "migrations"), server]  # what `sbrpc run` runs

    Of processes that start at once, one migrates and the others wait, on SQLite and PostgreSQL. All that is
    missing is one transaction: what fails changes nothing. The `env.py` of the folder finds the connection,
    and the attributes that are given, in `context.config.attributes`. Needs Alembic 1.13.

    Raises:
        SbrpcError: the database cannot be used, or a migration fails in it.
    """
    try:
        try:
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade, Path(scripts), attributes)
        except (SQLAlchemyError, OSError) as error:
            reason = getattr(error, "orig", error)
            raise SbrpcError(f"the database {engine.url} cannot be used: {reason}") from error
        yield engine
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, scripts: Path, attributes: dict[str, Any]) -> None:
    from alembic import command  # here, since all else does without it
    from alembic.config import Config

    sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else "SELECT pg_advisory_xact_lock(1)")
    config = Config(attributes={**attributes, "connection": connection})
    config.set_main_option("script_location", str(scripts))
    command.upgrade(config, "head")
