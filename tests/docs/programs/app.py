"""A program in one file: a server, and a client of it."""

from __future__ import annotations

from shop.contract import Movies
from shop.service import server

from sbrpc import RpcClient

__all__ = ["client", "server"]


def client(connection: str) -> list[object]:
    """What calls the server."""
    return [RpcClient(connection, reply_queue="gateway.replies"), Movies]
