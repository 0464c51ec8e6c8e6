"""Calls, events and a database that agree: for SQLAlchemy, on SQLite and PostgreSQL.

Needs `pip install "sbrpc[sql]"` and a driver, aiosqlite or asyncpg. The tables are yours to create: they join
the `MetaData` they are given, so migrations see them.
"""

from __future__ import annotations

try:
    from ._cancelling import cancellable
    from ._migrations import migrated
    from .calls import Calls, reading
    from .engine import engine_for
    from .inbox import Inbox
    from .outbox import Outbox, OutboxRelay, RefusedEvent
    from .projection import Positions, Projection
    from .replies import ReplyStore
    from .watch import Watch
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f'sbrpc.sql needs {_error.name}: pip install "sbrpc[sql]"', name=_error.name
    ) from _error

__all__ = [
    "Calls",
    "Inbox",
    "Outbox",
    "OutboxRelay",
    "Positions",
    "Projection",
    "RefusedEvent",
    "ReplyStore",
    "Watch",
    "cancellable",
    "engine_for",
    "migrated",
    "reading",
]
