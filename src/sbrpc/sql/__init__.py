"""Events and a database that agree: outbox, inbox and projections for SQLAlchemy, on SQLite and PostgreSQL.

Needs `pip install "sbrpc[sql]"` and a driver, aiosqlite or asyncpg. The tables are yours to create: they join
the `MetaData` they are given, so migrations see them.
"""

from __future__ import annotations

from .inbox import Inbox
from .outbox import Outbox, OutboxRelay
from .projection import Positions, Projection
from .replies import ReplyStore
from .watch import Watch

__all__ = ["Inbox", "Outbox", "OutboxRelay", "Positions", "Projection", "ReplyStore", "Watch"]
