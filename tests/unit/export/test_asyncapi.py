"""AsyncAPI documents, the page made of them, and JSON Schema."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator, ValidationError
from pydantic import BaseModel, Field

from sbrpc import Contract, Event, EventBus, Queue, RpcClient, RpcServer, method
from sbrpc.errors import NotFound
from sbrpc.export import asyncapi_document, asyncapi_page, json_schema, system_of


class Card(BaseModel):
    kind: Literal["card"]
    number: str = Field(pattern=r"^\d+$", description="<b>Not</b> & never logged.")


class Cash(BaseModel):
    kind: Literal["cash"]


class Pay(BaseModel):
    how: Annotated[Card | Cash, Field(discriminator="kind")]
    parts: tuple[int, str] = (1, "a")
    tags: dict[str, list[int]] = {}


class TooPoor(NotFound):
    data: int


class Payments(Contract, name="payments"):
    """Takes money.

    And keeps it.
    """

    @method(timeout=3, errors=[TooPoor])
    async def pay(self, request: Pay) -> str:
        """Pay for it."""


class Opaque:
    """What no JSON Schema describes, and pydantic takes all the same."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(lambda value: value)


class Secrets(Contract, name="secrets"):
    @method
    async def tell(self, request: Opaque) -> None: ...


class Paid(Event, type="paid.v1", key="payer"):
    payer: str


def documented(*parts: object) -> dict[str, Any]:
    return asyncapi_document(system_of({"p": parts}), title="Pay & go", version="2")


def test_reply_goes_where_the_request_says() -> None:
    """A server's reply has no fixed address but the place in the request where it stands."""
    document = documented(RpcServer("", Payments))
    operation = document["operations"]["payments.pay"]
    assert (operation["action"], operation["summary"]) == ("receive", "Pay for it.")
    assert operation["x-sbrpc-timeout-seconds"] == 3
    assert operation["reply"]["address"]["location"] == "$message.header#/reply_to"
    assert document["channels"]["replies"]["address"] is None
    assert [each["$ref"] for each in operation["reply"]["messages"]] == [
        "#/channels/replies/messages/payments.pay.reply",
        "#/channels/replies/messages/error",
        "#/channels/replies/messages/payments.pay.TooPoor",
    ]
    assert document["info"] == {"title": "Pay & go", "version": "2", "description": "Takes money."}


def test_a_caller_knows_its_reply_queue() -> None:
    """There the channel has an address, and needs no other."""
    document = documented(RpcClient("", reply_queue="shop.replies"), Payments)
    operation = document["operations"]["call.payments.pay"]
    assert operation["action"] == "send"
    assert "address" not in operation["reply"]
    assert operation["reply"]["channel"] == {"$ref": "#/channels/shop.replies"}
    assert document["channels"]["shop.replies"]["x-servicebus-requires-session"] is True


def test_what_only_service_bus_has_is_there() -> None:
    """Sessions, locks and times to live stand at the channel that they belong to."""
    queue = Queue("payments", lock_duration=30, default_message_time_to_live=3600)
    channel = documented(RpcServer("", Payments), queue)["channels"]["payments"]
    assert {name: value for name, value in channel.items() if name.startswith("x-")} == {
        "x-servicebus-entity": "queue",
        "x-servicebus-default-message-time-to-live": "PT1H",
        "x-servicebus-lock-duration": "PT30S",
        "x-servicebus-max-delivery-count": 10,
        "x-servicebus-max-size-in-megabytes": 1024,
        "x-servicebus-requires-session": False,
    }


def test_events_are_published_and_handled() -> None:
    """On the topic the one, on the subscription the other, with the properties of a CloudEvent."""
    bus = EventBus("", topic="money", source="/pay")

    @bus.on(Paid, subscription="books")
    async def book(event: Paid) -> None: ...

    document = documented(bus, Paid)
    assert document["operations"]["money.publish"]["action"] == "send"
    assert document["operations"]["money.books.handle"]["action"] == "receive"
    assert document["channels"]["money.books"]["address"] == "money/Subscriptions/books"
    headers = document["channels"]["money"]["messages"]["paid.v1"]["headers"]["properties"]
    assert headers["cloudEvents_type"] == {"const": "paid.v1"}
    assert "payer" in headers["session_id"]["description"]


def test_schemas_are_those_that_asyncapi_takes() -> None:
    """Tuples as draft 7 has them, and a discriminator that is a name."""
    document = documented(RpcServer("", Payments))
    properties = document["channels"]["payments"]["messages"]["pay"]["payload"]
    assert properties == {"$ref": "#/components/schemas/Pay"}
    pay = document["components"]["schemas"]["Pay"]["properties"]
    assert pay["how"]["discriminator"] == "kind"
    assert pay["parts"]["items"] == [{"type": "integer"}, {"type": "string"}]


def test_a_type_without_a_schema_is_any() -> None:
    """The rest of the document is made all the same."""
    payload = documented(RpcServer("", Secrets))["channels"]["secrets"]["messages"]["tell"]["payload"]
    assert payload == {"description": "No JSON Schema describes this type."}


class Tags(HTMLParser):
    """What a page consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag not in ("script", "img", "link", "iframe")
        assert "src" not in given
        self.ids += [str(given["id"])] if "id" in given else []
        self.links += [str(given["href"])] if "href" in given else []
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_loads_nothing() -> None:
    """Its elements are closed, its links lead somewhere on it, and what is described stays text."""
    bus = EventBus("", topic="money", source="/pay")
    page = asyncapi_page(documented(RpcServer("", Payments), RpcServer("", Secrets), bus, Paid))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.links
    assert {link.removeprefix("#") for link in tags.links} <= {*tags.ids}
    assert len({*tags.ids}) == len(tags.ids)
    assert "Pay & go" in tags.text
    assert "<b>Not</b> & never logged." in tags.text


def test_json_schema_judges_what_travels() -> None:
    """Every definition is a schema, and those of requests tell good from bad ones."""
    bus = EventBus("", topic="money", source="/pay")
    document = json.loads(json_schema(system_of({"p": [RpcServer("", Payments), bus, Paid]})))
    Draft202012Validator.check_schema(document)
    assert {"payments.pay.request", "payments.pay.reply", "payments.pay.TooPoor", "paid.v1"} <= {
        *document["$defs"]
    }
    request = Draft202012Validator({**document, "$ref": "#/$defs/payments.pay.request"})
    request.validate({"how": {"kind": "card", "number": "1"}})
    with pytest.raises(ValidationError):
        request.validate({"how": {"kind": "card"}})
