"""Callers of the HTTP API, who check every answer.

Owns the requests, what is a right answer, and how one that is not is counted. Knows nothing of processes.
"""

from __future__ import annotations

import gc
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import anyio

__all__ = ["PROMISED", "Asked", "Callers", "calling", "count"]

# What the API says may happen to a request. Anything else but the right answer is a failure.
PROMISED = {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}

T = TypeVar("T")

RIGHT = "right"
_MARGIN = 10.0  # seconds after its deadline, in which the API has to say that it has passed
# Of ten requests: reads from the service, writes, lists from the read model.
_MIX = ("read",) * 7 + ("create",) * 2 + ("list",)


@dataclass(frozen=True)
class Asked:
    """One request: seconds from the beginning until it was due, and from then until it ended, and how."""

    what: str
    due: float
    took: float
    deadline: float
    outcome: str
    title: str

    @property
    def right(self) -> bool:
        return self.outcome == RIGHT


class Callers:
    """All callers of one application, on one event loop."""

    def __init__(self, http: aiohttp.ClientSession, url: str, films: Sequence[dict[str, Any]]) -> None:
        self._http = http
        self._url = url
        self._films = films
        self._chance = random.Random(7)  # the same requests for every application
        self._titles = 0
        self.began = time.monotonic()
        self.asked: list[Asked] = []

    async def steadily(self, seconds: float, rate: float, deadlines: Sequence[float]) -> None:
        """So many requests a second, whatever becomes of those before; returns with the last answer."""
        start = time.monotonic()
        kinds, turns = self._shuffled(_MIX), self._shuffled(deadlines)
        async with anyio.create_task_group() as group:
            for number in range(round(seconds * rate)):
                due = start + number / rate
                await anyio.sleep(max(0, due - time.monotonic()))
                group.start_soon(self._one, next(kinds), due, next(turns))

    def _shuffled(self, items: Sequence[T]) -> Iterator[T]:
        """All of them in some order, again and again: each as often as the others at any time."""
        while True:
            yield from self._chance.sample(items, len(items))

    async def at_once(self, what: str, number: int, deadline: float) -> None:
        """So many requests of a kind at the same moment; returns with the last answer."""
        now = time.monotonic()
        async with anyio.create_task_group() as group:
            for _ in range(number):
                group.start_soon(self._one, what, now, deadline)

    async def closed(self, callers: int, warm: float, seconds: float) -> list[Asked]:
        """So many callers, each one read after the other; what ended within the measured time."""
        begins = time.monotonic() + warm
        ends = begins + seconds
        already = len(self.asked)

        async def caller() -> None:
            while (now := time.monotonic()) < ends:
                await self._one("read", now, 60.0)

        async with anyio.create_task_group() as group:
            for _ in range(callers):
                group.start_soon(caller)
        return [each for each in self.asked[already:] if begins <= self.began + each.due + each.took <= ends]

    async def lag(self, creates: int) -> list[float]:
        """Seconds from the answer to a write until a list has it, for films created one after the other."""
        found = []
        for _ in range(creates):
            written = await self._one("create", time.monotonic(), 30.0)
            began = time.monotonic()
            listed = 0
            with anyio.fail_after(30):
                while not listed:
                    search = {"search": written.title}
                    async with self._http.get(f"{self._url}/movies", params=search) as response:
                        listed = (await response.json())["total"]
            found.append(time.monotonic() - began)
        return found

    async def _one(self, what: str, due: float, deadline: float) -> Asked:
        request, title, check = self._request(what)
        headers = {"Request-Timeout": f"{deadline:g}"}
        try:
            with anyio.fail_after(deadline + _MARGIN):
                async with self._http.request(**request, headers=headers) as response:
                    outcome = _outcome(response.status, await response.read(), check)
        except aiohttp.ClientError as error:
            outcome = f"{type(error).__name__}"
        except TimeoutError:
            outcome = "no answer"
        asked = Asked(what, due - self.began, time.monotonic() - due, deadline, outcome, title)
        self.asked.append(asked)
        return asked

    def _request(self, what: str) -> tuple[dict[str, Any], str, Callable[[int, Any], bool]]:
        if what == "create":
            self._titles += 1
            title = f"New film {self._titles}"
            wanted = {"title": title, "version": 1}
            request = {"method": "POST", "url": f"{self._url}/movies", "json": {"title": title}}
            return request, title, lambda status, film: status == 201 and wanted.items() <= film.items()
        if what == "list":
            first = [film["id"] for film in self._films[:5]]
            request = {"method": "GET", "url": f"{self._url}/movies?limit=5"}
            return request, "", lambda status, page: [film["id"] for film in page["movies"]] == first
        film = self._chance.choice(self._films)
        request = {"method": "GET", "url": f"{self._url}/movies/{film['id']}"}
        return request, "", lambda status, answer: status == 200 and answer == film


def _outcome(status: int, body: bytes, check: Callable[[int, Any], bool]) -> str:
    try:
        answer = json.loads(body)
        if status < 300 and check(status, answer):
            return RIGHT
        if status >= 300 and PROMISED.get(status) == answer["code"]:
            return str(answer["code"])
    except (ValueError, LookupError, TypeError, AttributeError):
        pass  # an answer of another shape is one that is not right
    return "wrong answer" if status < 300 else f"status {status}"


def count(asked: Sequence[Asked]) -> dict[str, Any]:
    """How many there were, were answered rightly, refused with a promised error, and failed; and which."""
    outcomes = Counter(each.outcome for each in asked)
    refused = {outcome: n for outcome, n in outcomes.items() if outcome in PROMISED.values()}
    failed = {outcome: n for outcome, n in outcomes.items() if outcome != RIGHT and outcome not in refused}
    return {
        "asked": len(asked),
        "right": outcomes[RIGHT],
        "refused": dict(sorted(refused.items())),
        "failed": dict(sorted(failed.items())),
        "without_answer": dict(sorted(Counter(each.what for each in asked if not each.right).items())),
    }


@asynccontextmanager
async def calling(url: str, films: Sequence[dict[str, Any]]) -> AsyncIterator[Callers]:
    """Callers of the API at `url`, where these films are. As many connections as there are requests."""
    # uvicorn closes a connection that is idle for five seconds, which must not meet a request on its way.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    no_limit = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=no_limit) as http:
        gc.collect()
        gc.freeze()
        yield Callers(http, url, films)
