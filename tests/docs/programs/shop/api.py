"""HTTP in front of the films, at a port that is free."""

from __future__ import annotations

from fastapi import FastAPI

from sbrpc import RpcClient
from sbrpc.web import Web

from .contract import Movies

http = FastAPI()


def app(connection: str) -> list[object]:
    """A client, what it calls, and the web application."""
    return [RpcClient(connection, reply_queue="gateway.replies"), Movies, Web(http, port=0)]
