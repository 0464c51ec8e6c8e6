"""The AMQP engine of one peer, server side: bytes in, events out; calls in, bytes out.

This module owns the connection's own states (SASL, headers, open, close), the frame loop and what becomes of
violations. It knows no clock, loop or socket, and nothing of what links are for. The contract:

    events = connection.feed(data)           whatever the peer sends, this does not raise
    ... answer through connection and links ...
    transport.write(connection.data_to_send())
    arm a timer for connection.next_timer(); when due, connection.handle_timer(now)
    when connection.closed: flush and drop the socket
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from .endpoint import MAX_DESCRIPTION, Limits, Peer, SessionViolation, Violation
from .events import Attached, Closed, Credited, Detached, Event, Opened, Received, Settled
from .frames import (
    AMQP_FRAME,
    EMPTY_FRAME,
    HEADER_SIZE,
    SASL_FRAME,
    frame,
    performative_at,
    read_fields,
    read_header,
)
from .link import Link
from .performatives import (
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Open,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Transfer,
)
from .session import Session
from .types import DecodeError, Symbol

__all__ = [
    "Connection",
    "ConnectionState",
    "Limits",
    # what a user of the engine meets, so that it needs one import
    "Link",
    "Session",
    "Attached",
    "Closed",
    "Credited",
    "Detached",
    "Event",
    "Opened",
    "Received",
    "Settled",
]

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
MECHANISMS = tuple(Symbol(name) for name in ("ANONYMOUS", "PLAIN", "EXTERNAL", "MSSBCBS"))

CONTAINER_ID = "sbrpc"
"""What the server calls itself."""

MAX_HEARTBEAT_INTERVAL = 30.0
MIN_HEARTBEAT_INTERVAL = 0.25


class ConnectionState(Enum):
    """What we wait for."""

    START = "start"
    """A protocol header, SASL or AMQP."""
    SASL = "sasl"
    """The client's choice of mechanism."""
    AUTHENTICATED = "authenticated"
    """The AMQP header."""
    HEADER = "header"
    """OPEN."""
    OPENED = "opened"
    CLOSED = "closed"


_STATE = ConnectionState

# What may come in which state, as performative codes by frame type; anything else closes the connection.
_LEGAL: dict[ConnectionState, dict[int, frozenset[int]]] = {
    _STATE.SASL: {SASL_FRAME: frozenset({SaslInit.CODE}), AMQP_FRAME: frozenset()},
    _STATE.HEADER: {SASL_FRAME: frozenset(), AMQP_FRAME: frozenset({Open.CODE, Close.CODE})},
    _STATE.OPENED: {
        SASL_FRAME: frozenset(),
        AMQP_FRAME: frozenset(
            kind.CODE for kind in (Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close)
        ),
    },
}

_NEXT: dict[ConnectionState, set[ConnectionState]] = {
    _STATE.START: {_STATE.SASL, _STATE.HEADER, _STATE.CLOSED},
    _STATE.SASL: {_STATE.AUTHENTICATED, _STATE.CLOSED},
    _STATE.AUTHENTICATED: {_STATE.HEADER, _STATE.CLOSED},
    _STATE.HEADER: {_STATE.OPENED, _STATE.CLOSED},
    _STATE.OPENED: {_STATE.CLOSED},
    _STATE.CLOSED: set(),
}

_TRANSFER = Transfer.CODE


class Connection(Peer):
    """The server side of one AMQP connection."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        super().__init__(limits)
        self.state = ConnectionState.START
        self._legal: dict[int, frozenset[int]] = {}
        self._buffer = bytearray()
        self._needed = 0
        self._sessions: dict[int, Session] = {}
        self._ended: set[int] = set()
        """Channels whose session has ended: what still comes on them means nothing."""
        self._late: list[Event] = []
        """Events of an end that came about outside `feed`; the next call returns them."""
        self._heartbeat_interval: float | None = None
        self._heartbeat_at = 0.0

    def __repr__(self) -> str:
        return f"<Connection {self.container_id!r} {self.state.value}>"

    @property
    def closed(self) -> bool:
        """Whether all is said: the front sends what is left and drops the socket."""
        return self.state is ConnectionState.CLOSED

    @property
    def links(self) -> list[Link]:
        """The links that are attached or wait for an answer, in all sessions."""
        return [link for session in self._sessions.values() for link in session.links]

    @property
    def sessions(self) -> list[Session]:
        """The sessions that have begun and not ended."""
        return [session for session in self._sessions.values() if session.mapped]

    @property
    def unfinished(self) -> bytes:
        """The beginning of a frame or header whose end has not arrived."""
        return bytes(self._buffer)

    def _become(self, state: ConnectionState) -> None:
        """The one place where a connection changes its state."""
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"{self!r} cannot become {state.value}")
        self.state = state
        self._legal = _LEGAL.get(state, {})

    # -- bytes out, time ------------------------------------------------------------------------------------

    def data_to_send(self) -> bytes:
        """What the peer must be sent now; the engine forgets it."""
        if self.pending:
            pending, self.pending = self.pending, []
            for flush in pending:
                flush()
        out, self.out = self.out, []
        return b"".join(out)

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called, in the time of its `now`; 0.0 is at once, None never."""
        if self._heartbeat_interval is None or self.closed:
            return None
        return self._heartbeat_at

    def handle_timer(self, now: float) -> None:
        """Send the heartbeat that a peer with an idle time-out waits for. `now` is in seconds."""
        if self._heartbeat_interval is not None and now >= self._heartbeat_at and not self.closed:
            self._heartbeat_at = now + self._heartbeat_interval
            self.out.append(EMPTY_FRAME)

    def time_went_back(self) -> None:
        """What `now` was compared with before means nothing any more."""
        self._heartbeat_at = 0.0

    # -- the end --------------------------------------------------------------------------------------------

    def close(self, condition: str | None = None, description: str = "") -> None:
        """Close the connection, with an error if `condition` is given. Links end with it.

        The events (Detached for each live link, Closed) are returned by `feed` or `connection_lost`,
        whichever is called next. Does nothing when the connection is closed.
        """
        if not self.closed:
            error = None if condition is None else Error(condition, description)
            self._end(error, self._late)

    def connection_lost(self) -> list[Event]:
        """The socket is gone: Detached for each live link and Closed, unless these were told already."""
        events, self._late = self._late, []
        if not self.closed:
            self._become(ConnectionState.CLOSED)
            self._report(None, events)
        return events

    def _end(self, error: Error | None, events: list[Event]) -> None:
        """Say CLOSE, as far as the peer has come to understand it, and end everything."""
        said_headers = self.state is ConnectionState.HEADER or self.state is ConnectionState.OPENED
        for session in self._sessions.values():
            session.flush()
        if self.state is ConnectionState.HEADER:
            self._send_open()
        self._become(ConnectionState.CLOSED)
        if said_headers:
            self.out.append(frame(0, Close(error).encode()))
        self._report(error, events)

    def _report(self, error: Error | None, events: list[Event]) -> None:
        for session in self._sessions.values():
            session.vanish(error, events)
        self._sessions.clear()
        self._buffer.clear()
        events.append(Closed(error))

    # -- bytes in -------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes from the peer. Never raises for what they are: violations close the connection."""
        events, self._late = self._late, []
        if self.closed:
            return events
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return events
            data = bytes(self._buffer)
            self._buffer.clear()
        elif type(data) is not bytes:
            data = bytes(data)
        try:
            position = self._frames(data, events)
            if not self.closed:
                self._buffer += data[position:]
        except Violation as error:
            self._end(Error(error.condition, error.description), events)
        except DecodeError as error:
            self._end(Error("amqp:decode-error", str(error)[:MAX_DESCRIPTION]), events)
        if self._late:
            events += self._late
            self._late = []
        return events

    def _frames(self, data: bytes, events: list[Event]) -> int:
        """Process the whole frames and headers in `data`; returns where the incomplete rest begins."""
        position, end = 0, len(data)
        while not self.closed:
            state = self.state
            if state is ConnectionState.START or state is ConnectionState.AUTHENTICATED:
                if not self._header(data[position : position + HEADER_SIZE]):
                    self._needed = 0
                    break
                position += HEADER_SIZE
                continue
            if end - position < HEADER_SIZE:
                self._needed = HEADER_SIZE
                break
            size, offset, kind, channel = read_header(data, position)
            if size < HEADER_SIZE or size > self.limits.max_frame_size:
                raise Violation(
                    "amqp:connection:framing-error",
                    f"a frame of {size} bytes; 8 to {self.limits.max_frame_size} are allowed",
                )
            if end - position < size:
                self._needed = size
                break
            offset *= 4
            if offset < HEADER_SIZE or offset > size or kind > SASL_FRAME:
                raise Violation(
                    "amqp:connection:framing-error", f"a frame of type {kind} with its data at byte {offset}"
                )
            body = data[position + offset : position + size]
            position += size
            if body:
                self._performative(kind, channel, body, events)
            elif kind == SASL_FRAME:
                raise Violation("amqp:connection:framing-error", "an empty SASL frame")
        return position

    def _header(self, header: bytes) -> bool:
        """Answer a protocol header; False while it is incomplete. Whatever is none ends the connection."""
        sasl_allowed = self.state is ConnectionState.START
        if header == AMQP_HEADER:
            self.out.append(AMQP_HEADER)
            self._become(ConnectionState.HEADER)
        elif header == SASL_HEADER and sasl_allowed:
            self.out.append(SASL_HEADER)
            self.out.append(frame(0, SaslMechanisms(MECHANISMS).encode(), SASL_FRAME))
            self._become(ConnectionState.SASL)
        elif AMQP_HEADER.startswith(header) or (sasl_allowed and SASL_HEADER.startswith(header)):
            return False
        else:
            # The standard's answer to a header one does not speak: the header one does, and good-bye.
            self.out.append(SASL_HEADER if sasl_allowed else AMQP_HEADER)
            raise Violation("amqp:connection:framing-error", f"{header!r} is no AMQP 1.0 protocol header")
        return True

    def _performative(self, kind: int, channel: int, body: bytes, events: list[Event]) -> None:
        code, position = performative_at(body)
        fields, position = read_fields(body, position)
        if code not in self._legal[kind]:
            raise Violation(
                "amqp:not-allowed", f"performative 0x{code:02x} is not allowed while {self.state.value}"
            )
        if position != len(body) and code != _TRANSFER:
            raise DecodeError(f"{len(body) - position} bytes are left over behind performative 0x{code:02x}")
        if code in _ON_CONNECTION:
            _ON_CONNECTION[code](self, channel, fields, events)
            return
        session = self._sessions.get(channel)
        if session is None:
            # Some clients end a session and only then detach its links.
            if channel not in self._ended:
                raise Violation("amqp:not-allowed", f"no session was begun on channel {channel}")
        elif session.mapped:
            try:
                if code == _TRANSFER:
                    session.on_transfer(fields, body[position:], events)
                else:
                    _ON_SESSION[code](session, fields, events)
            except SessionViolation as error:
                # What comes on its channel is ignored from now on, until the peer's END.
                told = Error(error.condition, error.description)
                session.end(told)
                session.vanish(told, events)

    # -- performatives of the connection -----------------------------------------------------------------

    def _on_sasl_init(self, channel: int, fields: list[Any], events: list[Event]) -> None:
        init = SaslInit.of(fields)
        accepted = init.mechanism in MECHANISMS
        self.out.append(frame(0, SaslOutcome(0 if accepted else 1).encode(), SASL_FRAME))
        if not accepted:
            raise Violation("amqp:unauthorized-access", f"SASL mechanism {init.mechanism!r} is not offered")
        self._become(ConnectionState.AUTHENTICATED)

    def _on_open(self, channel: int, fields: list[Any], events: list[Event]) -> None:
        told = Open.of(fields)
        if told.max_frame_size is not None:
            if told.max_frame_size < 512:
                raise Violation("amqp:invalid-field", f"max-frame-size {told.max_frame_size} is below 512")
            self.frame_size = min(told.max_frame_size, self.limits.max_frame_size)
        else:
            self.frame_size = self.limits.max_frame_size
        self.container_id = told.container_id
        self.hostname = told.hostname or ""
        self.properties = told.properties or {}
        if told.idle_time_out:
            interval = min(told.idle_time_out / 2000, MAX_HEARTBEAT_INTERVAL)
            self._heartbeat_interval = max(interval, MIN_HEARTBEAT_INTERVAL)
        self._send_open()
        self._become(ConnectionState.OPENED)
        events.append(Opened(self))

    def _send_open(self) -> None:
        answer = Open(
            container_id=CONTAINER_ID,
            max_frame_size=self.limits.max_frame_size,
            channel_max=self.limits.channel_max,
        )
        self.out.append(frame(0, answer.encode()))

    def _on_begin(self, channel: int, fields: list[Any], events: list[Event]) -> None:
        told = Begin.of(fields)
        if channel > self.limits.channel_max:
            raise Violation(
                "amqp:connection:framing-error",
                f"channel {channel} is above channel-max {self.limits.channel_max}",
            )
        if told.remote_channel is not None:
            raise Violation("amqp:not-allowed", "the server begins no session, so there is none to answer")
        if channel in self._sessions:
            raise Violation("amqp:not-allowed", f"channel {channel} has a session already")
        if len(self._sessions) >= self.limits.max_sessions:
            raise Violation(
                "amqp:resource-limit-exceeded", f"a connection may have {self.limits.max_sessions} sessions"
            )
        self._ended.discard(channel)
        session = Session(self, channel, told)
        self._sessions[channel] = session
        self.write(channel, session.answer_begin)

    def _on_end(self, channel: int, fields: list[Any], events: list[Event]) -> None:
        told = End.of(fields)
        session = self._sessions.pop(channel, None)
        if session is None:
            if channel not in self._ended:
                raise Violation("amqp:not-allowed", f"no session was begun on channel {channel}")
            return
        self._ended.add(channel)
        session.end()
        session.vanish(told.error, events)

    def _on_close(self, channel: int, fields: list[Any], events: list[Event]) -> None:
        told = Close.of(fields)
        for session in self._sessions.values():
            session.flush()
        if self.state is ConnectionState.HEADER:
            self._send_open()
        self.out.append(frame(0, Close().encode()))
        self._become(ConnectionState.CLOSED)
        self._report(told.error, events)


_ON_CONNECTION: dict[int, Any] = {
    SaslInit.CODE: Connection._on_sasl_init,
    Open.CODE: Connection._on_open,
    Begin.CODE: Connection._on_begin,
    End.CODE: Connection._on_end,
    Close.CODE: Connection._on_close,
}

_ON_SESSION: dict[int, Any] = {
    Attach.CODE: Session.on_attach,
    Flow.CODE: Session.on_flow,
    Disposition.CODE: Session.on_disposition,
    Detach.CODE: Session.on_detach,
}
