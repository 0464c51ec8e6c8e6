"""What the integration tests share."""

from tests.databases import database, postgres_url

__all__ = ["database", "postgres_url"]
