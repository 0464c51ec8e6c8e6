"""Which process has done a change."""

from alembic import op
from sqlalchemy import Column, String

revision, down_revision = "0002", "0001"


def upgrade(database: str) -> None:
    if database == "service":
        op.add_column("changes", Column("served_by", String))
