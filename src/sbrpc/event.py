"""Events as types: what a publisher constructs, what a handler gets, and how old versions become new ones.

    class MovieCreated(Event, type="movies.movie.created.v2", key="movie_id"):
        movie_id: int
        title: str
        year: int | None = None

    @MovieCreated.upcast_from("movies.movie.created.v1")
    def add_year(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "year": None}

Owns the model, its versions, the CloudEvent it travels as, and the facts around one delivery (`EventInfo`).
Knows no Service Bus, so that a module of events is light to import.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .context import NO_METADATA
from .errors import ContractError, DecodeError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["AttributeValue", "CloudEvent", "Event", "EventInfo"]

_JSON_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
AttributeValue = str | int | bool | bytes | datetime

NO_EXTENSIONS: Mapping[str, AttributeValue] = MappingProxyType({})
_NAME = re.compile(r"[a-z0-9]+")
_OWN = frozenset(
    {"id", "source", "specversion", "type", "subject", "time", "datacontenttype", "dataschema", "data"}
)

# Service Bus takes at most 128 characters in a message id and in a session id.
_MAX_ID = 128

T = TypeVar("T")
U = TypeVar("U", bound=Callable[[Any], Any])


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event as the specification sees it: context attributes around opaque data."""

    id: str
    source: str
    type: str
    data: bytes = b""
    time: datetime | None = None
    subject: str | None = None
    datacontenttype: str | None = "application/json"
    dataschema: str | None = None
    extensions: Mapping[str, AttributeValue] = field(default_factory=lambda: NO_EXTENSIONS)

    def __post_init__(self) -> None:
        for name, value in self.extensions.items():
            if isinstance(value, int) and not -(2**31) <= value < 2**31:
                raise ValueError(f"extension {name}={value} is not a 32-bit integer; send it as a string")
            if not is_extension_name(name):
                raise ValueError(
                    f"{name!r} cannot be an extension of an event: "
                    "use lower-case letters and digits, and no name of the specification"
                )

    @property
    def is_json(self) -> bool:
        """True when the data is JSON, which it also is when nobody says what it is."""
        if self.datacontenttype is None:
            return True
        media_type = self.datacontenttype.partition(";")[0].strip().lower()
        return media_type.endswith(("/json", "+json"))


def is_extension_name(name: str) -> bool:
    """Whether an attribute can be an extension: in the specification's letters, and not one of its own."""
    return name not in _OWN and _NAME.fullmatch(name) is not None


class Event(BaseModel):
    """Something that happened; subclass it with a `type` and the fields that go into the body.

    `type` names what happened and ends in a version, such as `movies.movie.created.v1`. `key` names the
    field, or the property, whose value keeps events in order: events with the same key are handled one after
    the other.
    A subclass without a type is a base for others and can be neither published nor handled; it hands its
    `key` on. Instances are frozen.

    Raises:
        ContractError: at definition, when the type is not a usable string, or the key no field or property.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    __event_type__: ClassVar[str | None] = None
    __event_key__: ClassVar[str | None] = None
    __upcasters__: ClassVar[dict[str | type[Event], Callable[[Any], Any]]] = {}

    def __init_subclass__(
        cls, *, type: str | None = None, key: str | None = None, **kwargs: Unpack[ConfigDict]
    ) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, type: str | None = None, key: str | None = None, **_: Any) -> None:
        if type is not None and (not isinstance(type, str) or not type or type != type.strip()):
            raise ContractError(f"{cls.__qualname__}: type={type!r} is not the name of an event type")
        cls.__event_type__ = type
        cls.__upcasters__ = {}
        if key is not None:
            if key not in cls.model_fields and not isinstance(getattr(cls, key, None), property):
                known = ", ".join(cls.model_fields) or "none"
                raise ContractError(
                    f"{cls.__qualname__}: key={key!r} is not one of its fields; it has {known}"
                )
            cls.__event_key__ = key

    @classmethod
    def upcast_from(cls, old: str | type[Event]) -> Callable[[U], U]:
        """Declare how an older version becomes this one.

        `old` is a type name, then the function gets the old body as a dictionary; or an older `Event`
        class, then it gets an instance, made through that class' own upcasts where those are needed. The
        function returns a dictionary of this class' fields, or an instance.
        """
        if cls.__event_type__ is None:
            raise ContractError(f"{cls.__qualname__} has no type, so nothing can be upcast to it")
        name = old if isinstance(old, str) else old.__event_type__
        if not name:
            raise ContractError(f"{old!r} is not an event type that {cls.__qualname__} could be made from")
        if name in cls.accepted_types():
            raise ContractError(f"{cls.__qualname__} is already made from {name!r}")

        def register(function: U) -> U:
            cls.__upcasters__[old] = function
            return function

        return register

    @classmethod
    def accepted_types(cls) -> tuple[str, ...]:
        """The type names that decode to this class: its own first, then those it is upcast from."""
        names = dict.fromkeys([cls.__event_type__] if cls.__event_type__ else [])
        for old in cls.__upcasters__:
            names.update(dict.fromkeys([old] if isinstance(old, str) else old.accepted_types()))
        return tuple(names)

    @classmethod
    def decode(cls, type: str, data: bytes) -> Self:
        """The event in a JSON body of this type or of a version it is upcast from.

        Raises:
            DecodeError: the body does not fit; `details` names each field.
        """
        if type == cls.__event_type__:
            return _validated(type, lambda: cls.model_validate_json(data))
        for old, upcast in cls.__upcasters__.items():
            if isinstance(old, str) and old == type:
                return cls._upcast(type, upcast, _validated(type, lambda: _JSON_OBJECT.validate_json(data)))
            if not isinstance(old, str) and type in old.accepted_types():
                return cls._upcast(type, upcast, old.decode(type, data))
        raise DecodeError(f"{cls.__qualname__} is not made from events of the type {type!r}")

    @classmethod
    def _upcast(cls, type: str, upcast: Callable[[Any], Any], old: object) -> Self:
        try:
            new = _validated(type, lambda: upcast(old))
        except DecodeError:
            raise
        except Exception as error:  # a KeyError or the like: the old body is not what the function expects
            problem = f"{error.__class__.__name__}: {error}"
            raise DecodeError(f"a {type!r} event does not become a {cls.__qualname__}: {problem}") from error
        return new if isinstance(new, cls) else _validated(type, lambda: cls.model_validate(new))


def _validated(type: str, validate: Callable[[], T]) -> T:
    try:
        return validate()
    except ValidationError as error:
        details = [
            {"field": ".".join(map(str, problem["loc"])) or "body", "problem": problem["msg"]}
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        listed = "; ".join(f"{detail['field']}: {detail['problem']}" for detail in details)
        raise DecodeError(f"the body of a {type!r} event does not fit: {listed}", details=details) from None


@dataclass(frozen=True, slots=True)
class EventInfo:
    """The facts around one delivery of an event.

    An event published while a handler runs, or with `cause=info`, names this one as its cause.
    """

    id: str
    """Unique within `source`; the two together identify the event wherever it is seen."""
    source: str
    type: str
    """The type on the wire; an older version where the event was upcast."""
    time: datetime | None
    subject: str | None
    key: str | None
    """What keeps order: the session of the message, or the publisher's partition key."""
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    tracestate: str | None
    delivery_count: int
    """How often it was delivered before; above 0 an earlier handler may have had effects."""
    attempt: int
    """How often the handler was started on this delivery before; above 0 after a failure."""
    sequence_number: int
    """The subscription's own numbering: grows from event to event within a key."""
    enqueued_at: datetime
    fencing_token: int
    """Grows with every event of a key and with every delivery of it, and fits a signed 64-bit column. A
    database that keeps the greatest one seen can refuse a worker whose lock was lost and taken over."""
    extensions: Mapping[str, AttributeValue] = field(default_factory=lambda: NO_EXTENSIONS)


current_event: ContextVar[EventInfo | None] = ContextVar("sbrpc_current_event", default=None)
"""The delivery that the running handler works on."""

current_trace: ContextVar[Mapping[str, str]] = ContextVar("sbrpc_current_trace", default=NO_METADATA)
"""The W3C trace context of the running handler, where somebody traces it: what it causes is part of it."""


def key_of(event: Event, key: str | None) -> str | None:
    """The ordering key of an event: the given one, or the value of its class' key field."""
    if key is None and event.__event_key__ is not None:
        value = getattr(event, event.__event_key__)
        if value is None:
            raise ValueError(
                f"{type(event).__qualname__}.{event.__event_key__} is its key and must not be None"
            )
        key = str(value)
    if key is not None and not isinstance(key, str):
        raise ContractError(f"an event's key is a text, not {key!r}")
    if key is not None and not 0 < len(key) <= _MAX_ID:
        raise ValueError(f"an event's key has 1 to {_MAX_ID} characters, this one {len(key)}: {key!r:.80}")
    return key


def envelope(
    event: Event,
    *,
    id: str,
    source: str,
    time: datetime,
    key: str | None = None,
    subject: str | None = None,
    cause: EventInfo | None = None,
    extensions: Mapping[str, AttributeValue] = NO_EXTENSIONS,
) -> CloudEvent:
    """The event as it goes on the wire.

    A caused event carries its cause's id, its correlation id (the id of the first of the chain) and its
    trace. `extensions` win over what is derived.

    Raises:
        ContractError: the event's class has no type, or an attribute is not of its type.
        ValueError: id, time, key or an extension cannot be sent.
    """
    kind = type(event).__event_type__
    if kind is None:
        raise ContractError(
            f"{type(event).__qualname__} has no type and cannot be published; declare one: "
            f'class {type(event).__name__}(Event, type="...")'
        )
    for what, value, wanted in (("id", id, str), ("time", time, datetime), ("subject", subject, str | None)):
        if not isinstance(value, wanted):
            raise ContractError(f"an event's {what} cannot be {value!r}")
    if subject == "":
        raise ValueError("an event's subject cannot be '', leave it out instead")
    for name, attribute in extensions.items():
        if not (isinstance(name, str) and isinstance(attribute, AttributeValue | None)):
            raise ContractError(f"an event's extension cannot be {name!r}: {attribute!r}")
    if not 0 < len(id) <= _MAX_ID:
        raise ValueError(f"an event's id has 1 to {_MAX_ID} characters, this one {len(id)}: {id!r:.80}")
    if time.tzinfo is None:
        raise ValueError(f"an event's time needs a time zone: {time!r}")
    derived: dict[str, AttributeValue | None] = {"partitionkey": key_of(event, key)}
    if cause is not None:
        derived["correlationid"] = cause.correlation_id or cause.id
        derived["causationid"] = cause.id
        derived["traceparent"] = cause.traceparent
        derived["tracestate"] = cause.tracestate
    # A handler that is traced has a span of its own, nearer than its cause's.
    derived |= current_trace.get()
    return CloudEvent(
        id=id,
        source=source,
        type=kind,
        data=event.model_dump_json(by_alias=True).encode(),
        time=time,
        subject=subject,
        extensions=MappingProxyType(
            {name: value for name, value in {**derived, **extensions}.items() if value is not None}
        ),
    )
