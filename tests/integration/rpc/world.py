"""What the tests of calls share: a client, a server, and the SDK by hand."""

from __future__ import annotations

from dataclasses import dataclass

from tests.integration.laboratory import Ends, Raw


@dataclass
class World(Ends):
    raw: Raw
