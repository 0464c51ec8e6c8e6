"""Cancelling what works on SQLite: its drivers leave a database locked, or a task waiting for ever.

Owns what is done about it where connections are opened. Knows no table and no statement.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Dialect, event
from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["cancellable"]


def cancellable(engine: AsyncEngine) -> AsyncEngine:
    """Let statements on SQLite be cancelled, as the deadline of a call does; hands the engine back.

        engine = cancellable(create_async_engine("sqlite+aiosqlite:///films.db"))

    Without it, a handler that is cancelled while it reads may leave the database locked for all writers until
    Python happens to collect garbage. Call it before the engine is used. With other databases there is
    nothing to mend, and nothing is done.
    """
    if engine.dialect.name == "sqlite" and engine.dialect.driver == "aiosqlite":
        event.listen(engine.sync_engine, "do_connect", _connect)
    return engine


class _Connection(sqlite3.Connection):
    """Ends its cursors when it is closed.

    SQLite keeps a connection, with its locks and its open transaction, for as long as a statement has rows to
    give. A statement that was cancelled has, and only the garbage collector knows where it is.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    def cursor(self, *args: Any, **options: Any) -> Any:
        cursor = super().cursor(*args, **options)
        self._cursors.add(cursor)
        return cursor

    def close(self) -> None:
        cursors, self._cursors = self._cursors, weakref.WeakSet()
        for cursor in cursors:
            cursor.close()
        super().close()


def _connect(dialect: Dialect, _: object, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
    options.setdefault("factory", _Connection)
    connection: Any = dialect.connect(*arguments, **options)
    driver = connection.driver_connection
    if hasattr(driver, "stop"):  # since aiosqlite 0.22
        driver.stop = _once(driver.stop)
    return connection


def _once(stop: Callable[[], Any]) -> Callable[[], Any]:
    # A close that is cancelled is done again by force. aiosqlite answers the first request to stop and no
    # other: whoever makes the second would wait for ever, in a task that nobody sees.
    stopped = False

    def once() -> Any:
        nonlocal stopped
        if stopped:
            return None
        stopped = True
        return stop()

    return once
