"""What Alembic runs: the migrations, on the connection that `sbrpc.sql.migrated` hands over."""

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"])
with context.begin_transaction():
    context.run_migrations(database=given["database"])
