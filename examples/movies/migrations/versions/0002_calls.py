"""The calls that were done are kept by sbrpc, with their results, instead of in a table of ours."""

from alembic import op
from sqlalchemy import Column, Float, String, Text

revision, down_revision = "0002", "0001"


def upgrade(database: str) -> None:
    if database == "service":
        op.create_table(
            "sbrpc_calls",
            *(Column(name, String(n), primary_key=True) for name, n in (("reply_to", 260), ("call_id", 128))),
            Column("method", String(256), nullable=False),
            Column("result", Text, nullable=False),
            Column("done_by", String(300), nullable=False),
            Column("done_at", Float, nullable=False),
        )
        op.create_index("ix_sbrpc_calls_done_at", "sbrpc_calls", ["done_at"])
        op.drop_table("changes")
