"""What stands in the databases of users does not change under its name: they have made it with migrations."""

from __future__ import annotations

import pytest
from sqlalchemy import MetaData, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from sbrpc.sql import Calls, Inbox, Outbox, Positions

METADATA = MetaData()


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        (
            Calls(METADATA).table,
            "reply_to VARCHAR(260) NOT NULL, call_id VARCHAR(128) NOT NULL, method VARCHAR(256) NOT NULL, "
            "result TEXT NOT NULL, done_by VARCHAR(300) NOT NULL, done_at FLOAT NOT NULL, "
            "PRIMARY KEY (reply_to, call_id)",
        ),
        (
            Outbox(METADATA, source="/x").table,
            "id BIGSERIAL NOT NULL, key VARCHAR(128), event_id VARCHAR(128) NOT NULL, "
            "type VARCHAR(512) NOT NULL, source VARCHAR(512) NOT NULL, time VARCHAR(40) NOT NULL, "
            "subject VARCHAR(512), extensions TEXT NOT NULL, data BYTEA NOT NULL, claimed_by VARCHAR(36), "
            "claimed_until FLOAT, refused TEXT, PRIMARY KEY (id)",
        ),
        (
            Inbox(METADATA).table,
            "consumer VARCHAR(128) NOT NULL, source VARCHAR(512) NOT NULL, event_id VARCHAR(128) NOT NULL, "
            "handled_at FLOAT NOT NULL, PRIMARY KEY (consumer, source, event_id)",
        ),
        (
            Positions(METADATA).table,
            "projection VARCHAR(128) NOT NULL, key VARCHAR(128) NOT NULL, position BIGINT NOT NULL, "
            "PRIMARY KEY (projection, key)",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Table) else "",
)
def test_a_table_is_what_it_was(table: Table, columns: str) -> None:
    """Other columns need another default name for the table."""
    made = " ".join(str(CreateTable(table).compile(dialect=postgresql.dialect())).split())
    assert made == f"CREATE TABLE {table.name} ( {columns} )"
