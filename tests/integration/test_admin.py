"""The unmodified administration clients, sync and async, against the emulator through TLS."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import anyio.to_thread
import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
    ServiceRequestError,
)
from azure.servicebus import ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.aio.management import ServiceBusAdministrationClient as AsyncAdministrationClient
from azure.servicebus.management import (
    AccessRights,
    AuthorizationRule,
    CorrelationRuleFilter,
    FalseRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)

from sbrpc.emulator import AccessKey, Emulator, Right
from sbrpc.topology import Queue, Subscription, Topic

# The SDK asks XML elements whether they are true, which Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*truth value.*")

NEVER = timedelta(days=10675199)


class Admin:
    """Either client, used the same way: `await admin.create_queue(...)`, lists as lists."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._call, getattr(self._client, name))

    async def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if isinstance(self._client, ServiceBusAdministrationClient):
            return await anyio.to_thread.run_sync(lambda: _collected(method(*args, **kwargs)))
        found = method(*args, **kwargs)
        if inspect.isawaitable(found):
            return await found
        return [each async for each in found]


def _collected(found: Any) -> Any:
    return list(found) if hasattr(found, "by_page") else found


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(queues=["existing"], http_port=0) as emulator:
        yield emulator


@pytest.fixture(params=["sync", "aio"])
async def admin(request: pytest.FixtureRequest, emulator: Emulator) -> AsyncIterator[Admin]:
    given: dict[str, Any] = {"connection_verify": emulator.certificate_file, "retry_total": 0}
    if request.param == "sync":
        with ServiceBusAdministrationClient.from_connection_string(
            emulator.admin_connection_string, **given
        ) as client:
            yield Admin(client)
    else:
        async with AsyncAdministrationClient.from_connection_string(
            emulator.admin_connection_string, **given
        ) as client:
            yield Admin(client)


async def test_queue(admin: Admin, emulator: Emulator) -> None:
    """A queue with every setting is created, found as it was described, changed and deleted."""
    created = await admin.create_queue(
        "orders/eu",
        authorization_rules=[
            AuthorizationRule(
                type="SharedAccessAuthorizationRule",
                claim_type="SharedAccessKey",
                claim_value="None",
                rights=[AccessRights.SEND, AccessRights.LISTEN],
                key_name="app",
                primary_key="cHJpbWFyeQ==",
                secondary_key="c2Vjb25kYXJ5",
            )
        ],
        auto_delete_on_idle=timedelta(hours=1),
        dead_lettering_on_message_expiration=True,
        default_message_time_to_live="P1D",
        duplicate_detection_history_time_window=timedelta(minutes=2),
        enable_batched_operations=False,
        lock_duration=timedelta(seconds=45),
        max_delivery_count=7,
        max_size_in_megabytes=2048,
        requires_duplicate_detection=True,
        requires_session=True,
        user_metadata="<owner>&co</owner>",
        forward_dead_lettered_messages_to="existing",
    )
    found = await admin.get_queue("orders/eu")
    for queue in (created, found):
        assert queue.name == "orders/eu"
        assert queue.lock_duration == timedelta(seconds=45)
        assert queue.default_message_time_to_live == timedelta(days=1)
        assert queue.auto_delete_on_idle == timedelta(hours=1)
        assert queue.duplicate_detection_history_time_window == timedelta(minutes=2)
        assert (queue.requires_session, queue.requires_duplicate_detection) == (True, True)
        assert (queue.max_delivery_count, queue.max_size_in_megabytes) == (7, 2048)
        assert queue.dead_lettering_on_message_expiration
        assert not queue.enable_batched_operations
        assert queue.user_metadata == "<owner>&co</owner>"
        assert queue.forward_dead_lettered_messages_to == "existing"
        assert (queue.status, queue.availability_status) == ("Active", "Available")
        (rule,) = queue.authorization_rules
        assert (rule.key_name, rule.primary_key, rule.secondary_key) == (
            "app",
            "cHJpbWFyeQ==",
            "c2Vjb25kYXJ5",
        )
        assert sorted(rule.rights) == ["Listen", "Send"]
    assert emulator.broker.get_queue("orders/eu").lock_duration == 45

    found.max_delivery_count = 9
    await admin.update_queue(found, status="SendDisabled", forward_dead_lettered_messages_to="")
    changed = await admin.get_queue("ORDERS/EU")
    assert (changed.max_delivery_count, changed.status) == (9, "SendDisabled")
    assert changed.forward_dead_lettered_messages_to is None
    assert changed.user_metadata == "<owner>&co</owner>"

    await admin.delete_queue("orders/eu")
    with pytest.raises(ResourceNotFoundError):
        await admin.get_queue("orders/eu")


async def test_defaults(admin: Admin) -> None:
    """A queue without settings has Azure's defaults, and endless durations survive an update."""
    queue = await admin.create_queue("plain")
    assert (queue.lock_duration, queue.max_delivery_count) == (timedelta(minutes=1), 10)
    assert queue.default_message_time_to_live >= NEVER
    await admin.update_queue(queue)
    assert (await admin.get_queue("plain")).auto_delete_on_idle >= NEVER


async def test_topic_and_subscription(admin: Admin) -> None:
    """Topics and subscriptions are created, found, changed, listed and deleted."""
    topic = await admin.create_topic(
        "events",
        default_message_time_to_live=timedelta(days=2),
        user_metadata="t",
        max_size_in_megabytes=3072,
    )
    assert (topic.name, topic.default_message_time_to_live, topic.user_metadata) == (
        "events",
        timedelta(days=2),
        "t",
    )
    await admin.update_topic(topic, user_metadata="u")
    assert (await admin.get_topic("events")).user_metadata == "u"
    created = await admin.create_subscription(
        "events",
        "all",
        lock_duration="PT30S",
        max_delivery_count=3,
        dead_lettering_on_filter_evaluation_exceptions=False,
        forward_to="existing",
    )
    assert created.lock_duration == timedelta(seconds=30)
    assert not created.dead_lettering_on_filter_evaluation_exceptions
    assert created.forward_to == "existing"
    created.max_delivery_count = 4
    await admin.update_subscription("events", created)
    assert (await admin.get_subscription("events", "all")).max_delivery_count == 4
    await admin.create_subscription("events", "other")
    assert [each.name for each in await admin.list_subscriptions("events")] == ["all", "other"]
    assert [each.name for each in await admin.list_topics()] == ["events"]
    assert (await admin.get_topic_runtime_properties("events")).subscription_count == 2
    await admin.delete_subscription("events", "all")
    with pytest.raises(ResourceNotFoundError):
        await admin.get_subscription("events", "all")
    await admin.delete_topic("events")
    assert await admin.list_topics() == []


async def test_rules(admin: Admin) -> None:
    """Rules of every kind come back as they were created, with values of their types."""
    await admin.create_topic("events")
    await admin.create_subscription("events", "s")
    (first,) = await admin.list_rules("events", "s")
    assert (first.name, type(first.filter)) == ("$Default", TrueRuleFilter)
    properties = {
        "text": "a<b",
        "number": 5,
        "big": 2**40,
        "real": 1.5,
        "flag": True,
        "moment": datetime(2024, 5, 31, 12, tzinfo=timezone.utc),
        "span": timedelta(minutes=5),
    }
    filters = {
        "correlation": CorrelationRuleFilter(label="created", content_type="json", properties=properties),
        "false": FalseRuleFilter(),
        "sql": SqlRuleFilter("price < @limit", parameters={"@limit": 10}),
        "true": TrueRuleFilter(),
    }
    for name, wanted in filters.items():
        action = SqlRuleAction("SET seen = @by", parameters={"@by": "rule"}) if name == "sql" else None
        await admin.create_rule("events", "s", name, filter=wanted, action=action)
    found = {rule.name: rule for rule in await admin.list_rules("events", "s")}
    assert set(found) == {"$Default", *filters}
    for name, wanted in filters.items():
        assert type(found[name].filter) is type(wanted)
        assert found[name].created_at_utc is not None
    assert found["correlation"].filter.label == "created"
    assert found["correlation"].filter.properties == properties
    sql = await admin.get_rule("events", "s", "sql")
    assert (sql.filter.sql_expression, sql.filter.parameters) == ("price < @limit", {"@limit": 10})
    assert (sql.action.sql_expression, sql.action.parameters) == ("SET seen = @by", {"@by": "rule"})
    sql.filter = SqlRuleFilter("price > 0")
    await admin.update_rule("events", "s", sql)
    assert (await admin.get_rule("events", "s", "sql")).filter.sql_expression == "price > 0"
    await admin.delete_rule("events", "s", "$Default")
    with pytest.raises(ResourceNotFoundError):
        await admin.get_rule("events", "s", "$Default")
    with pytest.raises(HttpResponseError, match="price <"):
        await admin.create_rule("events", "s", "broken", filter=SqlRuleFilter("price < "))


async def test_created_rules_filter(admin: Admin, emulator: Emulator) -> None:
    """Messages go where rules made over HTTP let them, by the values of their parameters."""
    await admin.create_topic("events")
    await admin.create_subscription("events", "cheap")
    await admin.delete_rule("events", "cheap", "$Default")
    await admin.create_rule(
        "events", "cheap", "price", filter=SqlRuleFilter("price < @limit", parameters={"@limit": 10})
    )
    async with (
        ServiceBusClient.from_connection_string(emulator.connection_string) as client,
        client.get_topic_sender("events") as sender,
    ):
        for price in (5, 15):
            await sender.send_messages(ServiceBusMessage("", application_properties={"price": price}))
    assert (await admin.get_subscription_runtime_properties("events", "cheap")).active_message_count == 1


async def test_pages(admin: Admin) -> None:
    """More entities than fit on a page are listed whole, in order."""
    names = [f"queue-{number:03}" for number in range(105)]
    for name in names:
        await admin.create_queue(name)
    assert [queue.name for queue in await admin.list_queues()] == ["existing", *names]
    assert len(await admin.list_queues_runtime_properties(max_page_size=50)) == 106


async def test_runtime_properties(admin: Admin, emulator: Emulator) -> None:
    """Counts follow what happens to messages."""
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    async with ServiceBusClient.from_connection_string(emulator.connection_string) as client:
        sender, receiver = client.get_queue_sender("existing"), client.get_queue_receiver("existing")
        async with sender, receiver:
            await sender.send_messages([ServiceBusMessage("x" * 100) for _ in range(4)])
            await sender.schedule_messages([ServiceBusMessage("later")], later)
            first, second, third = await _receive(receiver, 3)
            await receiver.complete_message(first)
            await receiver.dead_letter_message(second)
            await receiver.defer_message(third)
    found = await admin.get_queue_runtime_properties("existing")
    assert found.active_message_count == 2, "one was never touched, one is deferred"
    assert (found.dead_letter_message_count, found.scheduled_message_count) == (1, 1)
    assert found.total_message_count == 4
    assert found.size_in_bytes > 300
    assert found.created_at_utc <= found.accessed_at_utc
    (listed,) = await admin.list_queues_runtime_properties()
    assert listed.dead_letter_message_count == 1


async def _receive(receiver: Any, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        found += await receiver.receive_messages(max_message_count=count - len(found), max_wait_time=5)
    return found


async def test_errors(admin: Admin) -> None:
    """What the service refuses raises the SDK's error for it, with the reason."""
    with pytest.raises(ResourceExistsError, match="already exists"):
        await admin.create_queue("existing")
    with pytest.raises(ResourceExistsError):
        await admin.create_topic("EXISTING")
    for method, arguments in (
        (admin.get_queue, ["nowhere"]),
        (admin.get_topic, ["nowhere"]),
        (admin.get_queue_runtime_properties, ["nowhere"]),
        (admin.delete_queue, ["nowhere"]),
        (admin.list_subscriptions, ["nowhere"]),
        (admin.create_subscription, ["nowhere", "s"]),
    ):
        with pytest.raises(ResourceNotFoundError):
            await method(*arguments)
    with pytest.raises(ResourceNotFoundError, match="'nowhere' could not be found"):
        await admin.create_queue("q", forward_to="nowhere")
    with pytest.raises(HttpResponseError, match="at most 300 s"):
        await admin.create_queue("q", lock_duration="PT6M")
    with pytest.raises(HttpResponseError, match="AutoDeleteOnIdle"):
        await admin.create_queue("q", auto_delete_on_idle="PT1M")
    queue = await admin.get_queue("existing")
    queue.requires_session = True
    with pytest.raises(HttpResponseError, match="fixed at its creation"):
        await admin.update_queue(queue)
    await admin.delete_queue("existing")
    with pytest.raises(ResourceNotFoundError):
        await admin.update_queue(queue)


async def test_namespace(admin: Admin) -> None:
    """The namespace is named and described."""
    found = await admin.get_namespace_properties()
    assert (found.name, found.messaging_sku, found.namespace_type) == (
        "sbemulatorns",
        "Standard",
        "Messaging",
    )


async def test_deleting_an_entity_closes_its_receivers(admin: Admin, emulator: Emulator) -> None:
    """A receiver of an entity that is deleted over HTTP is detached."""
    async with (
        ServiceBusClient.from_connection_string(emulator.connection_string) as client,
        client.get_queue_receiver("existing"),
    ):
        assert emulator.broker.runtime("existing").consumers == 1
        await admin.delete_queue("existing")
        assert not any(peer.entities() for peer in emulator.gateway.peers)


async def test_dead_letters_of_a_created_queue(admin: Admin, emulator: Emulator) -> None:
    """An entity made over HTTP works like any other, its dead-letter queue included."""
    await admin.create_queue("fresh", max_delivery_count=1)
    async with ServiceBusClient.from_connection_string(emulator.connection_string) as client:
        sender, receiver = client.get_queue_sender("fresh"), client.get_queue_receiver("fresh")
        dead = client.get_queue_receiver("fresh", sub_queue=ServiceBusSubQueue.DEAD_LETTER)
        async with sender, receiver, dead:
            await sender.send_messages(ServiceBusMessage("poison"))
            (message,) = await _receive(receiver, 1)
            await receiver.abandon_message(message)
            (letter,) = await _receive(dead, 1)
            assert letter.dead_letter_reason == "MaxDeliveryCountExceeded"


async def test_a_stranger_is_not_trusted(emulator: Emulator) -> None:
    """Without the emulator's certificate the connection is refused by the client."""
    async with AsyncAdministrationClient.from_connection_string(
        emulator.admin_connection_string, retry_total=0
    ) as client:
        with pytest.raises(ServiceRequestError, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify failed"):
            await client.get_queue("existing")


async def test_access_keys_are_enforced() -> None:
    """With access keys only a Manage key can administer, and an entity's own key only that entity."""
    keys = [
        AccessKey("root", "cm9vdA==", frozenset({Right.MANAGE})),
        AccessKey("listen", "bGlzdGVu", frozenset({Right.LISTEN})),
    ]
    entities: dict[str, Any] = {
        "queues": [Queue("q")],
        "topics": [Topic("t", (Subscription("s"),))],
    }
    async with Emulator(access_keys=keys, http_port=0, **entities) as emulator:
        given: dict[str, Any] = {"connection_verify": emulator.certificate_file, "retry_total": 0}

        def connect(name: str, key: str) -> AsyncAdministrationClient:
            original = emulator.admin_connection_string
            text = original.replace("=root;", f"={name};").replace("cm9vdA==", key)
            return AsyncAdministrationClient.from_connection_string(text, **given)

        async with connect("root", "cm9vdA==") as client:
            assert (await client.get_queue("q")).name == "q"
        for name, key in (("listen", "bGlzdGVu"), ("root", "d3Jvbmc="), ("nobody", "cm9vdA==")):
            async with connect(name, key) as client:
                with pytest.raises(ClientAuthenticationError):
                    await client.get_queue("q")
