"""FastAPI and httpx: the synchronous way to call a service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from fastapi import FastAPI

from benchmarks.models import GetMovie, Movie, find
from benchmarks.peers import Journal


class Client:
    def __init__(self, connection: httpx.AsyncClient) -> None:
        self.connection = connection

    async def call(self, number: int) -> Movie:
        response = await self.connection.post("/get_movie", json=GetMovie(id=number).model_dump(mode="json"))
        response.raise_for_status()
        return Movie.model_validate_json(response.content)


@contextlib.asynccontextmanager
async def client(settings: dict[str, Any]) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(base_url=settings["url"], timeout=30) as connection:
        yield Client(connection)


async def serve(settings: dict[str, Any], journal: Journal) -> None:
    app = FastAPI()

    @app.post("/get_movie")
    async def get_movie(request: GetMovie) -> Movie:
        return find(request.id)

    port = urlsplit(settings["url"]).port
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port or 80, log_level="warning", access_log=False)
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
        if serving.done():
            break
    journal.ready()
    await serving
