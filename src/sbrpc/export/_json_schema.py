"""JSON Schema: one document in which every request, reply, error and event has its definition."""

from __future__ import annotations

import json

from ._schemas import described_in, schemas_of
from ._system import System

__all__ = ["json_schema"]


def json_schema(system: System) -> str:
    """A document (draft 2020-12) to be referred into.

    `#/$defs/movies.get_movie.request`, `#/$defs/movies.get_movie.reply`, `#/$defs/movies.movie.created.v1`.
    """
    schemas, shared = schemas_of(described_in(system), "#/$defs/{model}")
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {**schemas, **shared},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
