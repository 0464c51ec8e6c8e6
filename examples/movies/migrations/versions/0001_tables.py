"""The tables of both databases. Where they are already, from before there were migrations, they stay."""

from functools import partial

from alembic import op
from sqlalchemy import JSON, BigInteger, Column, Date, Double, Float, Integer, LargeBinary, String, Text

revision, down_revision = "0001", None
table = partial(op.create_table, if_not_exists=True)
Id = BigInteger().with_variant(Integer, "sqlite")


def upgrade(database: str) -> None:
    table(
        "movies" if database == "service" else "movie_views",
        Column("id", Id, primary_key=True),
        Column("version", Integer, nullable=False),
        Column("title", String, nullable=False),
        Column("released", Date),
        *(Column(name, String) for name in ("genre", "director", "distributor", "rating")),
        Column("running_time_min", Integer),
        Column("imdb_rating", Double),
        *(Column(name, BigInteger) for name in ("imdb_votes", "worldwide_gross")),
        sqlite_autoincrement=True,
    )
    if database == "service":
        table("changes", Column("call_id", String, primary_key=True), Column("movie", JSON, nullable=False))
        table(
            "sbrpc_outbox",
            Column("id", Id, primary_key=True),
            Column("key", String(128)),
            Column("event_id", String(128), nullable=False),
            *(Column(name, String(512), nullable=False) for name in ("type", "source")),
            Column("time", String(40), nullable=False),
            Column("subject", String(512)),
            Column("extensions", Text, nullable=False),
            Column("data", LargeBinary, nullable=False),
            Column("claimed_by", String(36)),
            Column("claimed_until", Float),
            Column("refused", Text),
        )
        op.create_index("ix_sbrpc_outbox_key", "sbrpc_outbox", ["key"], if_not_exists=True)
    else:
        keys = (Column(name, String(128), primary_key=True) for name in ("projection", "key"))
        table("sbrpc_positions", *keys, Column("position", BigInteger, nullable=False))
