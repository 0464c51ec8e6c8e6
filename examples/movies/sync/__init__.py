"""The same application the previous way: its programs call each other over HTTP, and each waits for the next.

    api ──HTTP──▶ service ──▶ its database
     │               │
     └────HTTP────▶ views ──▶ the read model

No queue, no events: a program that is not there fails the requests that need it. Models, statements, errors
and the HTTP API are those of the other application. This file has how the programs call each other.
"""

from __future__ import annotations

import os
from itertools import cycle

import anyio
import httpx
from pydantic import BaseModel
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    stop_never,
    wait_exponential_jitter,
)

from sbrpc.errors import DeadlineExceeded, Unavailable, error_for
from sbrpc.web import Problem

# With retries, a call is tried until its deadline, as long as that cannot do a thing twice.
STOP = stop_never if os.environ.get("MOVIES_SYNC_RETRY") == "1" else stop_after_attempt(1)


class Peer:
    """The processes of another program, called in turns over httpx's pool of 100 connections."""

    def __init__(self, urls: str) -> None:
        self._urls = cycle(urls.split(","))
        self._http = httpx.AsyncClient(timeout=None, headers={"Content-Type": "application/json"})

    async def ask(
        self, method: str, path: str, body: BaseModel | None, timeout: float = 30, idempotent: bool = True
    ) -> bytes:
        """The answer, within so many seconds; an error that the other side answers with is raised here."""

        def harmless(error: BaseException) -> bool:
            unsent = isinstance(error.__cause__, httpx.ConnectError)
            return unsent or (idempotent and isinstance(error, Unavailable))

        wait = wait_exponential_jitter(initial=0.05, max=1, jitter=0.1)
        tries = AsyncRetrying(stop=STOP, wait=wait, retry=retry_if_exception(harmless), reraise=True)
        try:
            with anyio.fail_after(timeout):
                return await tries(self._once, method, path, body.model_dump_json() if body else None)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{method} {path} took longer than {timeout:g} s") from error

    async def _once(self, method: str, path: str, body: str | None) -> bytes:
        try:
            response = await self._http.request(method, next(self._urls) + path, content=body)
        except httpx.TransportError as error:
            raise Unavailable(f"{method} {path}: {error or type(error).__name__}") from error
        if response.is_error:
            problem = Problem.model_validate_json(response.content)
            raise error_for(problem.code, problem.detail, problem.errors)
        return response.content
