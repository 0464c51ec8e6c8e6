"""The tables of both databases."""

from alembic import op
from sqlalchemy import BigInteger, Column, Date, Double, Integer, MetaData, String

from sbrpc.sql import Calls, Outbox, Positions

revision, down_revision = "0001", None


def upgrade(database: str) -> None:
    op.create_table(
        "movies" if database == "service" else "movie_views",
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("version", Integer, nullable=False),
        Column("title", String, nullable=False),
        Column("released", Date),
        *(Column(name, String) for name in ("genre", "director", "distributor", "rating")),
        Column("running_time_min", Integer),
        Column("imdb_rating", Double),
        *(Column(name, BigInteger) for name in ("imdb_votes", "worldwide_gross")),
        sqlite_autoincrement=True,
    )
    ours = MetaData()  # what sbrpc needs; its columns never change under their names
    if database == "service":
        Calls(ours)
        Outbox(ours, source="/movies")
    else:
        Positions(ours)
    ours.create_all(op.get_bind())
