"""Everything an emulator knows and can do, as JSON: for its page, for scripts, for tests in any language.

Owns the routes below and the shape of what they answer. Knows no HTTP beyond a request and a response.

    GET    /api/state[?traffic=N]                 all that the page shows; traffic after number N
    GET    /api/entities                          queues, and topics with their subscriptions, with counts
    GET    /api/sessions?entity=E[&skip&top]      sessions of a queue or subscription
    GET    /api/messages?entity=E[&from&count&session]   peek, from a sequence number on
    POST   /api/replay      {"entity", "sequence_numbers"?}   dead letters back to E, these or all
    POST   /api/purge       {"entity"}            throw away the messages of E that nobody has locked
    GET    /api/books                             operations and credits per entity, as Azure counts them
    DELETE /api/books                             begin all accounts anew
    GET    /api/clock                             the emulator's time, and how far it was advanced
    POST   /api/clock       {"advance": seconds}  move the emulator's time ahead
    GET    /api/faults                            faults in force
    POST   /api/faults      {"kind", ...}         put one in force, as described in `sbrpc.emulator.faults`
    DELETE /api/faults[/id]                       end one, or all
    GET    /api/connections                       who is connected, with links
    DELETE /api/connections[/id]                  cut one, or all
    GET    /api/traffic[?after=N]                 what happened last

`entity` is an address: `queue`, `topic/Subscriptions/name`, either with `/$DeadLetterQueue` behind it. Times
are seconds since 1970 in the emulator's time, sizes bytes. Errors are {"error": text, "details"?: [...]} with
400 (mistakes in the request), 404 (no such route, entity or number) or 409 (the entity does not allow it).
Bodies have to be sent as application/json, which pages of other web sites cannot do unasked.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sbrpc.emulator.broker import Broker, BrokerError
from sbrpc.emulator.clock import VirtualClock
from sbrpc.emulator.control import FaultControl, FaultHandle
from sbrpc.emulator.faults import parse_fault
from sbrpc.emulator.http import views
from sbrpc.emulator.http.messages import JSON, Request, Response, json_response
from sbrpc.emulator.tcp import Front
from sbrpc.emulator.traffic import Traffic

__all__ = ["Api"]

_DEAD_LETTERS = "/$deadletterqueue"
_LONGEST_STEP = 100 * 365 * 86400.0


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class _Advance(_Body):
    advance: float = Field(ge=0, le=_LONGEST_STEP)


class _Purge(_Body):
    entity: str = Field(min_length=1)


class _Replay(_Body):
    entity: str = Field(min_length=1)
    sequence_numbers: list[int] | None = None


Route = Callable[[Request, str], Any]
"""Answers with a value, or with something to be awaited for one; the text is what follows in the path."""


class Api:
    """Answers for one emulator. `advance` moves its time, `changed` lets its sockets do what follows."""

    def __init__(
        self,
        *,
        namespace: str,
        broker: Broker,
        front: Front,
        faults: FaultControl,
        traffic: Traffic,
        clock: VirtualClock,
        advance: Callable[[float], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        self._namespace = namespace
        self._broker = broker
        self._front = front
        self._faults = faults
        self._traffic = traffic
        self._clock = clock
        self._advance = advance
        self._changed = changed
        self._routes: dict[str, dict[str, Route]] = {
            "state": {"GET": self._state},
            "entities": {"GET": self._entities},
            "sessions": {"GET": self._sessions},
            "messages": {"GET": self._messages},
            "replay": {"POST": self._replay},
            "purge": {"POST": self._purge},
            "books": {"GET": self._books, "DELETE": self._reset_books},
            "clock": {"GET": self._time, "POST": self._move_time},
            "faults": {"GET": self._list_faults, "POST": self._add_fault, "DELETE": self._end_faults},
            "connections": {"GET": self._connections, "DELETE": self._cut},
            "traffic": {"GET": self._recent},
        }

    async def handle(self, request: Request) -> Response:
        """Answer a request; never raises for what it asks."""
        _, name, rest = (request.path.removeprefix("/").rstrip("/") + "//").split("/", 2)
        methods = self._routes.get(name)
        if methods is None:
            known = ", ".join(f"/api/{each}" for each in self._routes)
            return _error(404, f"There is nothing at {request.path}. There are: {known}.")
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            return _error(405, f"{request.method} is not possible here, only {', '.join(methods)}.")
        try:
            if request.body and request.headers.get("content-type", "").partition(";")[0].strip() != JSON:
                raise _Refused(415, f"The body has to be sent as {JSON}.")
            found = route(request, rest.strip("/"))
            if isinstance(found, Awaitable):
                found = await found
            return json_response(found)
        except _Refused as error:
            return _error(error.status, str(error))
        except ValidationError as error:
            details = [
                {"field": ".".join(map(str, each["loc"])), "problem": each["msg"]} for each in error.errors()
            ]
            return json_response({"error": "The request has mistakes.", "details": details}, 400)
        except BrokerError as error:
            status = {"amqp:not-found": 404, "amqp:not-allowed": 409}.get(error.condition, 400)
            return _error(status, error.description)

    # -- what there is ----------------------------------------------------------------------------------

    def _state(self, request: Request, rest: str) -> Any:
        after = _number(request, "traffic", 0)
        return {
            "namespace": self._namespace,
            **self._entities(request, rest),
            **self._connections(request, rest),
            **self._list_faults(request, rest),
            **self._time(request, rest),
            "traffic": [views.traffic_entry(entry) for entry in self._traffic.after(after)],
        }

    def _entities(self, request: Request, rest: str) -> dict[str, Any]:
        return views.entities(self._broker)

    def _sessions(self, request: Request, rest: str) -> Any:
        entity = _entity(request)
        found = self._broker.session_details(
            entity, _number(request, "skip", 0), _number(request, "top", 100)
        )
        return {"sessions": [views.session(each, self._clock.now()) for each in found]}

    def _messages(self, request: Request, rest: str) -> Any:
        found = self._broker.look(
            _entity(request),
            _number(request, "from", 0),
            _number(request, "count", 50),
            request.query.get("session"),
            self._clock.now(),
        )
        return {"messages": [views.message(each) for each in found]}

    def _books(self, request: Request, rest: str) -> Any:
        return {"books": {address: views.account(each) for address, each in self._broker.books().items()}}

    def _time(self, request: Request, rest: str) -> dict[str, Any]:
        return {"clock": {"now": self._clock.now(), "ahead": self._clock.ahead}}

    def _list_faults(self, request: Request, rest: str) -> dict[str, Any]:
        return {"faults": [_fault(handle) for handle in self._faults.list()]}

    def _connections(self, request: Request, rest: str) -> dict[str, Any]:
        found = sorted(self._front.connections, key=lambda each: each.number)
        return {"connections": [views.connection(each) for each in found]}

    def _recent(self, request: Request, rest: str) -> Any:
        found = self._traffic.after(_number(request, "after", 0))
        return {"traffic": [views.traffic_entry(entry) for entry in found]}

    # -- what can be done -------------------------------------------------------------------------------

    def _replay(self, request: Request, rest: str) -> Any:
        wanted = _Replay.model_validate(_json(request))
        entity = wanted.entity
        if entity.lower().endswith(_DEAD_LETTERS):
            entity = entity[: -len(_DEAD_LETTERS)]
        replayed = self._broker.replay(entity, wanted.sequence_numbers, self._clock.now())
        self._changed()
        return {"replayed": replayed}

    def _purge(self, request: Request, rest: str) -> Any:
        wanted = _Purge.model_validate(_json(request))
        purged = self._broker.purge(wanted.entity, self._clock.now())
        self._changed()
        return {"purged": purged}

    def _reset_books(self, request: Request, rest: str) -> Any:
        self._broker.reset_books()
        return self._books(request, rest)

    async def _move_time(self, request: Request, rest: str) -> Any:
        await self._advance(_Advance.model_validate(_json(request)).advance)
        return self._time(request, rest)

    def _add_fault(self, request: Request, rest: str) -> Any:
        return {"fault": _fault(self._faults.add(parse_fault(_json(request))))}

    def _end_faults(self, request: Request, rest: str) -> Any:
        if not rest:
            self._faults.clear()
        elif not rest.isdigit() or not self._faults.remove(int(rest)):
            raise _Refused(404, f"No fault '{rest}' is in force.")
        return self._list_faults(request, rest)

    def _cut(self, request: Request, rest: str) -> Any:
        doomed = [each for each in self._front.connections if not rest or str(each.number) == rest]
        if rest and not doomed:
            raise _Refused(404, f"There is no connection '{rest}'.")
        for connection in doomed:
            connection.abort()
        return {"cut": len(doomed)}


def _fault(handle: FaultHandle) -> dict[str, Any]:
    given = handle.fault.model_dump(exclude_none=True)
    return {"id": handle.id, "fired": handle.fired, "until": handle.until, "active": handle.active, **given}


def _entity(request: Request) -> str:
    entity = request.query.get("entity", "").strip("/")
    if not entity:
        raise _Refused(400, "Say which: ?entity=queue or ?entity=topic/Subscriptions/name.")
    return entity


def _number(request: Request, name: str, default: int) -> int:
    value = request.query.get(name, str(default))
    if not (value.isascii() and value.isdigit() and len(value) < 19):
        raise _Refused(400, f"'{name}' must be a number that is not negative, not '{value}'.")
    return int(value)


def _json(request: Request) -> Any:
    try:
        return json.loads(request.body or b"{}")
    except ValueError as error:  # not JSON, or not even text
        raise _Refused(400, f"The body is not JSON: {error}") from error


def _error(status: int, message: str) -> Response:
    return json_response({"error": message}, status)
