"""CloudEvents on Service Bus messages, checked against the official `cloudevents` package as the peer."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.amqp import AmqpAnnotatedMessage
from cloudevents.core.bindings import amqp as peer
from cloudevents.core.v1.event import CloudEvent as PeerEvent
from hypothesis import given
from hypothesis import strategies as st

from sbrpc._cloudevents import body_of, from_message, to_message, type_in
from sbrpc.errors import DecodeError
from sbrpc.event import CloudEvent

TIME = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=timezone.utc)
EVENT = CloudEvent(
    id="e-1",
    source="/movies",
    type="movies.movie.created.v1",
    data=b'{"id":7,"title":"Alien"}',
    time=TIME,
    subject="7",
    dataschema="https://example.com/movie.json",
    extensions={"partitionkey": "7", "sampled": True, "shard": 3},
)


def _peer_message(message: ServiceBusMessage) -> peer.AMQPMessage:
    # What the peer gets from a wire: timestamps are milliseconds there.
    properties = {
        str(key): int(value.timestamp() * 1000) if isinstance(value, datetime) else value
        for key, value in (message.application_properties or {}).items()
    }
    return peer.AMQPMessage({"content-type": message.content_type}, properties, body_of(message))


def _our_message(message: peer.AMQPMessage, *, as_received: bool = True) -> ServiceBusMessage:
    def wire(value: Any) -> Any:
        return value.encode() if as_received and isinstance(value, str) else value

    return ServiceBusMessage(
        message.application_data,
        content_type=message.properties.get("content-type"),
        application_properties={
            wire(key): wire(value) for key, value in message.application_properties.items()
        },
    )


def _binary(**attributes: Any) -> ServiceBusMessage:
    required = {"specversion": "1.0", "id": "e-1", "source": "/s", "type": "t"}
    values = {**required, **attributes}
    return ServiceBusMessage(
        b"{}", application_properties={f"cloudEvents_{k}": v for k, v in values.items() if v is not None}
    )


def test_official_package_reads_what_we_send() -> None:
    """The official package finds every attribute and the data in our binary mode."""
    event = peer.from_amqp_event(_peer_message(to_message(EVENT)))
    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/movies",
        "type": "movies.movie.created.v1",
        "subject": "7",
        "time": TIME,
        "datacontenttype": "application/json",
        "dataschema": "https://example.com/movie.json",
        "partitionkey": "7",
        "sampled": True,
        "shard": 3,
    }
    assert event.get_data() == {"id": 7, "title": "Alien"}


@pytest.mark.parametrize(
    "mode", [peer.to_binary_event, peer.to_structured_event], ids=["binary", "structured"]
)
@pytest.mark.parametrize("as_received", [True, False], ids=["bytes", "str"])
def test_we_read_what_official_package_sends(mode: Any, as_received: bool) -> None:
    """Binary and structured events of the official package arrive with equal attributes and data."""
    attributes = {
        "id": "e-2",
        "source": "/peer",
        "type": "peer.happened",
        "time": TIME,
        "subject": "s",
        "datacontenttype": "application/json",
        "correlationid": "c-1",
    }
    event = from_message(_our_message(mode(PeerEvent(attributes, {"a": ["ä", 1]})), as_received=as_received))
    assert (event.id, event.source, event.type, event.time, event.subject) == (
        "e-2",
        "/peer",
        "peer.happened",
        TIME,
        "s",
    )
    assert dict(event.extensions) == {"correlationid": "c-1"}
    assert json.loads(event.data) == {"a": ["ä", 1]}
    assert event.is_json


def test_structured_binary_data_comes_back_as_bytes() -> None:
    """Data that the official package writes as base64 arrives as the same bytes."""
    attributes = {"id": "1", "source": "/p", "type": "t", "datacontenttype": "application/octet-stream"}
    event = from_message(_our_message(peer.to_structured_event(PeerEvent(attributes, b"\x00\xff"))))
    assert event.data == b"\x00\xff"
    assert not event.is_json


def test_service_bus_properties_follow_the_event() -> None:
    """Message id, subject, session and content type are those of the event, for rules and deduplication."""
    message = to_message(EVENT, session_id="7", time_to_live=timedelta(seconds=90))
    assert (message.message_id, message.subject, message.session_id) == ("e-1", EVENT.type, "7")
    assert (message.content_type, message.time_to_live) == ("application/json", timedelta(seconds=90))


def test_colon_separator_is_understood() -> None:
    """The older `cloudEvents:` prefix is read like `cloudEvents_`."""
    names = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
    properties: Any = {f"cloudEvents:{name}": value for name, value in names.items()}
    assert from_message(ServiceBusMessage(b"{}", application_properties=properties)).type == "t"


@pytest.mark.parametrize(
    "time", ["2026-03-01T12:30:15.25Z", "2026-03-01T13:30:15.250+01:00", 1772368215250, TIME]
)
def test_time_is_accepted_native_and_as_string(time: object) -> None:
    """An AMQP timestamp and its canonical string mean the same time."""
    assert from_message(_binary(time=time)).time == TIME


@pytest.mark.parametrize("time", ["yesterday", "2026-03-01T12:30:15", "1772368215", True, 10**18])
def test_wrong_time_is_named(time: object) -> None:
    """A time that is none is refused by name, also one that lacks its offset."""
    with pytest.raises(DecodeError, match="time "):
        from_message(_binary(time=time))


def test_every_wrong_attribute_is_listed() -> None:
    """The error lists all that is wrong, not only the first."""
    with pytest.raises(DecodeError) as caught:
        from_message(_binary(id=None, source="", specversion="0.3", time="x"))
    assert [detail["field"] for detail in caught.value.details] == ["specversion", "id", "source", "time"]


def test_message_without_attributes_is_refused() -> None:
    """A plain message is not taken for an event."""
    with pytest.raises(DecodeError, match="not a CloudEvent"):
        from_message(ServiceBusMessage("hello"))


@pytest.mark.parametrize(
    ("content_type", "body", "match"),
    [
        ("application/cloudevents+avro", b"", "are not understood"),
        ("application/cloudevents-batch+json", b"[]", "are not understood"),
        ("application/cloudevents+json", b"{", "not JSON"),
        ("application/cloudevents+json", b"[" * 100_000, "not JSON"),
        ("application/cloudevents+json; charset=UTF-8", b"[]", "not an object"),
        ("Application/CloudEvents+JSON", b'{"data":1,"data_base64":"AA=="}', "both data and"),
        ("application/cloudevents+json", b'{"data_base64":"!"}', "not base64"),
        ("application/cloudevents+json", b'{"data_base64":1}', "not base64"),
        ("application/cloudevents+json", b"{}", "specversion is missing"),
    ],
)
def test_bad_structured_event_is_refused(content_type: str, body: bytes, match: str) -> None:
    """Each way a structured event can be broken gets its own message."""
    with pytest.raises(DecodeError, match=match):
        from_message(ServiceBusMessage(body, content_type=content_type))


def test_string_body_of_another_sdk_is_read() -> None:
    """A body that came as an AMQP string is its UTF-8 bytes."""
    raw = AmqpAnnotatedMessage(value_body="ä")
    message = ServiceBusMessage(None)
    message._raw_amqp_message = raw
    assert body_of(message) == "ä".encode()


def test_foreign_names_are_left_out() -> None:
    """An attribute name outside the specification's alphabet does not fail the event."""
    event = from_message(_binary(**{"Weird-Name": "x", "good": "y"}))
    assert dict(event.extensions) == {"good": "y"}


@pytest.mark.parametrize("name", ["id", "data", "Upper", "with-dash", ""])
def test_extension_names_are_checked(name: str) -> None:
    """An extension that the wire could not carry faithfully is refused when the event is made."""
    with pytest.raises(ValueError, match="cannot be an extension"):
        CloudEvent("1", "/s", "t", extensions={name: "x"})


def test_extension_integers_have_32_bits() -> None:
    """The specification's integers are small; a larger one is refused with what to do instead."""
    with pytest.raises(ValueError, match="as a string"):
        CloudEvent("1", "/s", "t", extensions={"sequence": 2**31})


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        (None, True),
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/vnd.movie+json", True),
        ("text/plain", False),
        ("application/jsonp", False),
    ],
)
def test_json_is_recognised(media_type: str | None, expected: bool) -> None:
    """Data is JSON by its media type, and by default."""
    assert CloudEvent("1", "/s", "t", datacontenttype=media_type).is_json is expected


@given(
    event_id=st.text(min_size=1, max_size=128),
    source=st.text(min_size=1),
    data=st.binary(),
    milliseconds=st.integers(min_value=0, max_value=4_000_000_000_000),
    extensions=st.dictionaries(
        st.from_regex(r"x[a-z0-9]{0,18}", fullmatch=True),
        st.one_of(st.text(), st.booleans(), st.integers(min_value=-(2**31), max_value=2**31 - 1)),
    ),
)
def test_round_trip(
    event_id: str, source: str, data: bytes, milliseconds: int, extensions: dict[str, Any]
) -> None:
    """What goes out in binary mode comes in equal."""
    time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)
    event = CloudEvent(event_id, source, "t", data, time=time, extensions=extensions)
    back = from_message(to_message(event))
    assert (back.id, back.source, back.data, back.time, dict(back.extensions)) == (
        event_id,
        source,
        data,
        time,
        extensions,
    )


@given(
    body=st.binary(), content_type=st.sampled_from(["application/cloudevents+json", "application/json", ""])
)
def test_garbage_raises_only_the_documented_error(body: bytes, content_type: str) -> None:
    """Whatever is in a message, the answer is an event or a DecodeError."""
    try:
        from_message(ServiceBusMessage(body, content_type=content_type))
    except DecodeError:
        pass


def test_the_type_stands_under_either_prefix() -> None:
    """Whoever only looks at properties finds it, too, and nothing where there is no event."""
    assert type_in({"cloudEvents_type": "one"}) == type_in({"cloudEvents:type": "one"}) == "one"
    assert type_in({"type": "one"}) is None
