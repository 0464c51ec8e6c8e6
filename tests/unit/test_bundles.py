"""Many calls in one message: what is written comes back, and what is no bundle is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from azure.servicebus.amqp import AmqpAnnotatedMessage
from hypothesis import given
from hypothesis import strategies as st

from sbrpc._bundles import BUNDLE_TYPE, CallPart, ReplyPart, is_bundle, read_replies, read_requests
from sbrpc._wire import Address, Reply, Request, read_request
from sbrpc.context import Deadline
from sbrpc.emulator.amqp.sections import encode_data
from sbrpc.errors import DecodeError

from .test_wire import ENQUEUED, LOCKED, received

REQUEST = Request("get_movie", b'{"id": 7}', "call-1", "gateway.replies", "gateway-1.3", bundles=True)
REPLY = Reply("call-1", "OK", b'{"id":7}', session_id="gateway-1.3")


def data_of(message: AmqpAnnotatedMessage) -> bytes:
    (section,) = message.body
    return bytes(section)


def arrived(message: AmqpAnnotatedMessage, *sections: bytes, **options: Any) -> Any:
    given = sections or (data_of(message),)
    return received(message, body=b"".join(encode_data(section) for section in given), **options)


def calls(*requests: Request, deadline: Deadline | None = None) -> AmqpAnnotatedMessage:
    parts = [CallPart(request, deadline or Deadline.never()) for request in requests]
    return parts[0].together(parts)


def replies(*given: Reply) -> AmqpAnnotatedMessage:
    parts = [ReplyPart(reply, Deadline.after(5)) for reply in given]
    return parts[0].together(parts)


text = st.text(max_size=30)
ids = st.text(min_size=1, max_size=40)
requests = st.builds(
    Request,
    subject=ids,
    body=st.binary(max_size=50),
    call_id=ids,
    reply_to=st.just("q"),
    reply_to_session_id=st.just("s"),
    metadata=st.dictionaries(ids.filter(lambda key: not key.startswith("sbrpc-")), text, max_size=3),
    fingerprint=st.none() | st.just("0123456789abcdef"),
    cancellable=st.booleans(),
    bundles=st.just(True),
)


@given(st.lists(requests, min_size=1, max_size=8))
def test_calls_come_back_as_they_were(given_requests: list[Request]) -> None:
    """Each with its own id, body and metadata, in their order; what the broker knows is the same for all."""
    message = arrived(calls(*given_requests), delivery_count=2)
    came = read_requests(message) if is_bundle(message) else [read_request(message)]
    broker: dict[str, Any] = {
        "delivery_count": 2,
        "sequence_number": 42,
        "enqueued_at": ENQUEUED,
        "locked_until": LOCKED,
    }
    assert came == [replace(request, **broker) for request in given_requests]


@given(
    st.lists(
        st.builds(
            Reply,
            call_id=ids,
            status=st.sampled_from(["OK", "NOT_FOUND"]),
            body=st.binary(max_size=50),
            sequence=st.none() | st.integers(0, 1000),
            control=st.none() | st.builds(Address, ids, st.none() | ids),
            session_id=st.just("s"),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_replies_come_back_as_they_were(given_replies: list[Reply]) -> None:
    """Whatever their status, parts of streams among them."""
    message = arrived(replies(*given_replies))
    assert is_bundle(message)
    assert read_replies(message) == given_replies


def test_notices_come_back() -> None:
    """That a call is to be sent alone, and where it can be cancelled; neither is its answer."""
    alone = Reply("1", None, session_id="s", alone=True)
    control = Reply("2", None, session_id="s", control=Address("q", "c"))
    came = read_replies(arrived(replies(alone, control)))
    assert [(reply.status, reply.alone, reply.control) for reply in came] == [
        (None, True, None),
        (None, False, Address("q", "c")),
    ]


def test_how_many_calls_a_server_likes_stands_in_the_message() -> None:
    """In the header of one of its replies, which is enough."""
    came = read_replies(arrived(replies(replace(REPLY, bundle=17), replace(REPLY, call_id="2"))))
    assert [reply.bundle for reply in came] == [17, None]


@pytest.mark.parametrize("advice", ["NaN", "Infinity", "-Infinity", '"many"', "[]", "1" * 400])
def test_advice_that_is_no_number_is_none(advice: str) -> None:
    """Whoever may send to the reply queue can say anything; the reply counts."""
    data = f'[{{"id":"7","length":2,"bundle":{advice}}}]\n{{}}'.encode()
    (reply,) = read_replies(arrived(replies(REPLY), data))
    assert (reply.call_id, reply.body, reply.bundle) == ("7", b"{}", None)


def test_a_lone_call_says_outside_what_it_is() -> None:
    """So that people who look at the queue, and duplicate detection, see the call rather than a bundle."""
    message = calls(REQUEST)
    assert message.properties is not None
    assert (message.properties.subject, message.properties.message_id) == (REQUEST.subject, REQUEST.call_id)
    assert not message.application_properties
    (came,) = read_requests(arrived(message))
    assert (came.subject, came.call_id, came.body) == (REQUEST.subject, REQUEST.call_id, REQUEST.body)


def test_a_lone_call_with_metadata_has_it_in_its_properties() -> None:
    """Where tools look for traces."""
    message = calls(replace(REQUEST, metadata={"traceparent": "00-1"}))
    assert not is_bundle(arrived(message))
    assert message.application_properties is not None
    assert message.application_properties["traceparent"] == "00-1"


def test_messages_of_replies_have_ids_of_their_own() -> None:
    """The notice to send a call again and its later answer are two, also for duplicate detection."""
    notice, answer = (
        replies(Reply("1", None, session_id="s", alone=True)),
        replies(replace(REPLY, call_id="1")),
    )
    assert notice.properties is not None
    assert answer.properties is not None
    assert notice.properties.message_id != answer.properties.message_id


def test_every_call_keeps_its_own_deadline() -> None:
    """As what is left of it when the message is built; the message lives as long as the last of them."""
    short = CallPart(replace(REQUEST), Deadline.after(2))
    long = CallPart(replace(REQUEST, call_id="2"), Deadline.after(20))
    message = short.together([short, long])
    first, second = read_requests(arrived(message))
    assert first.timeout is not None
    assert second.timeout is not None
    assert 1 < first.timeout <= 2
    assert 19 < second.timeout <= 20
    assert message.header is not None
    assert 20_000 < message.header.time_to_live <= 21_000


def test_an_endless_call_makes_an_endless_message() -> None:
    """No time to live may end it."""
    endless = CallPart(replace(REQUEST), Deadline.never())
    brief = CallPart(replace(REQUEST, call_id="2"), Deadline.after(1))
    assert endless.together([endless, brief]).header is None


def test_the_same_calls_have_the_same_message_id() -> None:
    """So that duplicate detection knows a bundle that is sent again, and no other for it."""
    one, two, three = (replace(REQUEST, call_id=name) for name in ("1", "2", "3"))
    first, again, other = calls(one, two), calls(one, two), calls(one, three)
    assert first.properties is not None
    assert again.properties is not None
    assert other.properties is not None
    assert first.properties.message_id == again.properties.message_id
    assert first.properties.message_id != other.properties.message_id


def test_what_travels_alone_has_no_key() -> None:
    """And what may share a message has its reply session for one."""
    assert CallPart(REQUEST, Deadline.never(), alone=True).key is None
    assert CallPart(REQUEST, Deadline.never()).key == "gateway-1.3"
    assert ReplyPart(REPLY, Deadline.never(), alone=True).key is None
    assert ReplyPart(REPLY, Deadline.never()).key == "gateway-1.3"


@given(requests)
def test_sizes_are_estimated_from_above(request_: Request) -> None:
    """A bundle that was put together by them fits."""
    part = CallPart(request_, Deadline.after(1))
    assert len(data_of(part.together([part]))) <= part.size


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"", "does not begin with a line"),
        (b"[]", "does not begin with a line"),
        (b"\n{}", "the first line of the bundle is not JSON"),
        (b"\xff\n", "the first line of the bundle is not JSON"),
        (b"[" * 100_000 + b"\n", "the first line of the bundle is not JSON"),
        (b'{"id":"1","length":2}\n{}', "a JSON array"),
        (b"[7]\n", "header 0 of the bundle has no id or no length"),
        (b'["id"]\n', "header 0 of the bundle has no id or no length"),
        (b'[{"id":"1"}]\n', "header 0 of the bundle has no id or no length"),
        (b'[{"id":"1","length":2},{"length":2}]\n{}{}', "header 1 of the bundle has no id or no length"),
        (b'[{"id":"","length":0}]\n', "header 0 of the bundle has no usable call id"),
        (b'[{"id":7,"length":0}]\n', "header 0 of the bundle has no usable call id"),
        (b'[{"id":"' + b"x" * 129 + b'","length":0}]\n', "header 0 of the bundle has no usable call id"),
        (b'[{"id":"1","length":true}]\n1', "has a length that the body has not: True"),
        (b'[{"id":"1","length":"2"}]\n{}', "has a length that the body has not: '2'"),
        (b'[{"id":"1","length":-1}]\n', "has a length that the body has not: -1"),
        (
            b'[{"id":"1","length":2},{"id":"2","length":1}]\n{}',
            "header 1 .* has a length that the body has not",
        ),
        (b'[{"id":"1","length":1}]\n{}', "1 bytes of the bundle belong to no header"),
    ],
)
def test_a_bundle_that_cannot_be_taken_apart_is_none(data: bytes, wrong: str) -> None:
    """Whose calls they are cannot be told, so none of them is answered."""
    message = arrived(calls(REQUEST), data)
    with pytest.raises(DecodeError, match=wrong):
        read_requests(message)
    with pytest.raises(DecodeError, match=wrong):
        read_replies(message)


@given(st.lists(requests, min_size=2, max_size=4), st.data())
def test_where_a_sender_splits_the_data_does_not_matter(
    given_requests: list[Request], draw: st.DataObject
) -> None:
    """AMQP lets a body be several sections; their bytes count, one after the other."""
    message = calls(*given_requests)
    data = data_of(message)
    at = draw.draw(st.integers(0, len(data)))
    assert read_requests(arrived(message, data[:at], data[at:])) == read_requests(arrived(message))


def test_an_empty_bundle_has_no_calls() -> None:
    """It is one all the same."""
    assert read_requests(arrived(calls(REQUEST), b"[]\n")) == []


def test_a_bundle_needs_somewhere_to_reply_to() -> None:
    """One-way calls travel by themselves."""
    with pytest.raises(DecodeError, match="no reply session"):
        read_requests(arrived(calls(replace(REQUEST, reply_to_session_id=None))))


def test_a_bundle_has_no_more_calls_than_a_reader_takes() -> None:
    """Or a message of a megabyte would make a hundred thousand requests."""
    headers = b",".join([b'{"id":"1","subject":"x","length":0}'] * 1025)
    with pytest.raises(DecodeError, match="1025 calls or replies; at most 1024"):
        read_requests(arrived(calls(REQUEST), b"[%b]\n" % headers))


def test_what_is_wrong_with_one_call_is_its_own_problem() -> None:
    """It is answered with INVALID_ARGUMENT; the others are served."""
    data = (
        b'[{"id":"1","length":2},{"id":"2","length":2,"subject":"x","metadata":[]},'
        b'{"id":"3","length":2,"subject":"x"}]\n{}{}{}'
    )
    first, second, third = read_requests(arrived(calls(REQUEST), data))
    assert first.problem is not None
    assert "subject" in first.problem
    assert second.problem is not None
    assert "metadata" in second.problem
    assert third.problem is None


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b'"subject":"x","timeout-ms":"soon"', "timeout-ms must be a number, not 'soon'"),
        (b'"subject":"x","timeout-ms":1' + b"0" * 400, "timeout-ms must be a number, not 1000000"),
        (b'"subject":"x","timeout-ms":NaN', "timeout-ms must be a number, not nan"),
        (b'"subject":"x","fingerprint":7', "fingerprint must be a string, not 7"),
        (b'"subject":"x","fingerprint":{"a":[]}', "fingerprint must be a string, not {'a': []}"),
        (b'"subject":["x"]', "subject must be a string, not ['x']"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(header: bytes, problem: str) -> None:
    """As in a message of its own: the call does not run with what somebody else would take it for."""
    (request_,) = read_requests(arrived(calls(REQUEST), b'[{"id":"1","length":2,' + header + b"}]\n{}"))
    assert request_.problem is not None
    assert problem in request_.problem
    assert (request_.timeout, request_.fingerprint) == (None, None)


def test_reserved_names_are_no_metadata() -> None:
    """As in a message of its own."""
    data = b'[{"id":"1","length":2,"subject":"x","metadata":{"sbrpc-x":"1","a":"b"}}]\n{}'
    (request_,) = read_requests(arrived(calls(REQUEST), data))
    assert request_.metadata == {"a": "b"}


def test_an_ordinary_message_is_no_bundle() -> None:
    """It is its content type that makes it one."""
    assert not is_bundle(received(*CallPart(replace(REQUEST), Deadline.never()).messages()))
    plain = AmqpAnnotatedMessage(data_body=b"{}", properties={"content_type": BUNDLE_TYPE + "2"})
    assert not is_bundle(received(plain))
