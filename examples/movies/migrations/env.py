"""What Alembic runs: the migrations, on the connection that `movies.database.migrate` hands over."""

from alembic import context

tables = context.config.attributes["tables"]
context.configure(connection=context.config.attributes["connection"], target_metadata=tables)
with context.begin_transaction():
    context.run_migrations(database=tables.info["database"])
