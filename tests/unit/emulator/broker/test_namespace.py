"""Entities by name: creation, lookup, change, deletion, and deletion by itself."""

from __future__ import annotations

import pytest

from sbrpc.emulator.broker import Broker
from sbrpc.topology import Queue, Rule, Subscription, Topic

from .bench import Bench, message, refused


@pytest.fixture
def bench() -> Bench:
    return Bench(Queue("Orders"), Topic("Events", subscriptions=(Subscription("All"),)))


# -- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "orders",
        "ORDERS",
        "Orders/$DeadLetterQueue",
        "orders/$deadletterqueue",
        "orders/$Transfer/$DeadLetterQueue",
        "events/subscriptions/all",
        "Events/Subscriptions/All",
        "EVENTS/SUBSCRIPTIONS/ALL/$DEADLETTERQUEUE",
        "events/subscriptions/all/$transfer/$deadletterqueue",
    ],
)
def test_addresses_ignore_case(bench: Bench, address: str) -> None:
    """All of these can be received from."""
    bench.broker.check_exists(address)
    bench.broker.check_receive(address)
    bench.close(bench.open(address))


@pytest.mark.parametrize(
    "address", ["", "nothing", "orders/x", "events/subscriptions/x", "orders/$management"]
)
def test_unknown_addresses_are_not_found(bench: Bench, address: str) -> None:
    """With the very sentence that clients know."""
    for check in (bench.broker.check_exists, bench.broker.check_send, bench.broker.check_receive):
        with refused("amqp:not-found", "The messaging entity '.*' could not be found."):
            check(address)


@pytest.mark.parametrize(
    "address", ["orders/$deadletterqueue", "events/subscriptions/all", "orders/$transfer/$deadletterqueue"]
)
def test_nobody_sends_to_subscriptions_and_sub_queues(bench: Bench, address: str) -> None:
    """They are filled by the broker alone."""
    with refused("amqp:not-allowed"):
        bench.broker.check_send(address)
    with refused("amqp:not-allowed"):
        bench.send(address)


def test_nobody_receives_from_a_topic(bench: Bench) -> None:
    """Only from its subscriptions."""
    bench.broker.check_exists("events")
    with refused("amqp:not-allowed", "only from its subscriptions"):
        bench.broker.check_receive("events")


# -- creation ---------------------------------------------------------------------------------------------


def test_what_was_created_can_be_listed_and_read(bench: Bench) -> None:
    """As it was given, and rules as they are."""
    assert bench.broker.queues() == [Queue("Orders")]
    assert bench.broker.get_queue("orders") == Queue("Orders")
    everything = Subscription("All", rules=(Rule("$Default"),))
    assert bench.broker.topics() == [Topic("Events", subscriptions=(everything,))]
    assert bench.broker.get_topic("events").subscriptions == (everything,)
    assert bench.broker.subscriptions("events") == [everything]
    assert bench.broker.get_subscription("events", "all") == everything


def test_a_name_is_taken_once(bench: Bench) -> None:
    """Queues and topics share their names, subscriptions those of their topic."""
    for create in (
        lambda: bench.broker.create_queue(Queue("ORDERS"), 0.0),
        lambda: bench.broker.create_queue(Queue("events"), 0.0),
        lambda: bench.broker.create_topic(Topic("orders"), 0.0),
        lambda: bench.broker.create_queue(Queue("events/subscriptions/all"), 0.0),
        lambda: bench.broker.create_subscription("events", Subscription("ALL"), 0.0),
    ):
        with refused("com.microsoft:entity-already-exists"):
            create()


def test_a_queue_is_no_topic(bench: Bench) -> None:
    """Asking for one by the name of the other finds nothing."""
    with refused("amqp:not-found"):
        bench.broker.get_queue("events")
    with refused("amqp:not-found"):
        bench.broker.get_topic("orders")
    with refused("amqp:not-found"):
        bench.broker.create_subscription("orders", Subscription("s"), 0.0)
    with refused("amqp:not-found"):
        bench.broker.delete_queue("events", 0.0)


def test_entities_that_forward_to_each_other_are_created_together() -> None:
    """In whatever order; alone, what one forwards to has to be there."""
    a, b = Queue("a", forward_to="B"), Queue("b", forward_dead_lettered_messages_to="a")
    broker = Broker()
    with refused("amqp:not-found", "'B'"):
        broker.create_queue(a, 0.0)
    with refused("amqp:not-found", "'nowhere'"):
        broker.create([a, b, Topic("t", subscriptions=(Subscription("s", forward_to="nowhere"),))], 0.0)
    assert broker.queues() == broker.topics() == []
    broker.create([a, b], 0.0)
    assert broker.queues() == [a, b]


def test_nothing_forwards_to_itself(bench: Bench) -> None:
    """Neither messages nor dead letters, from the start or later."""
    for queue in (Queue("q", forward_to="Q"), Queue("q", forward_dead_lettered_messages_to="q")):
        with refused("com.microsoft:argument-error", "itself"):
            bench.broker.create_queue(queue, 0.0)
    with refused("com.microsoft:argument-error", "itself"):
        bench.broker.update_queue(Queue("orders", forward_to="orders"), 0.0)
    with refused("amqp:not-found"):
        bench.broker.update_subscription("events", Subscription("all", forward_to="nowhere"), 0.0)


# -- change -----------------------------------------------------------------------------------------------


def test_settings_can_be_changed(bench: Bench) -> None:
    """What is read back is what was written, and the time of the change is known."""
    bench.broker.update_queue(Queue("Orders", user_metadata="x"), 5.0)
    bench.broker.update_topic(Topic("Events", user_metadata="y"), 6.0)
    bench.broker.update_subscription("events", Subscription("All", user_metadata="z"), 7.0)
    assert bench.broker.get_queue("orders").user_metadata == "x"
    assert bench.broker.get_topic("events").user_metadata == "y"
    subscription = bench.broker.get_subscription("events", "all")
    assert (subscription.user_metadata, [rule.name for rule in subscription.rules]) == ("z", ["$Default"])
    addresses = ("orders", "events", "events/subscriptions/all")
    assert [bench.broker.runtime(address).updated_at for address in addresses] == [5.0, 6.0, 7.0]
    assert [bench.broker.runtime(address).created_at for address in addresses] == [0.0, 0.0, 0.0]


# -- auto-delete ------------------------------------------------------------------------------------------


def test_an_idle_queue_deletes_itself() -> None:
    """After the time without sends, receivers or peeks."""
    bench = Bench(Queue("q", auto_delete_on_idle=300.0))
    bench.advance(200.0)
    bench.send("q")
    bench.advance(200.0)
    bench.peek("q")
    bench.advance(299.0)
    bench.broker.check_exists("q")
    bench.advance(1.0)
    with refused("amqp:not-found"):
        bench.broker.check_exists("q")


def test_a_queue_with_a_receiver_is_not_idle() -> None:
    """Its time begins when the last one leaves."""
    bench = Bench(Queue("q", auto_delete_on_idle=300.0))
    consumer = bench.open("q/$DeadLetterQueue")
    bench.advance(1000.0)
    bench.close(consumer)
    bench.advance(299.0)
    bench.broker.check_exists("q")
    bench.advance(301.0)
    with refused("amqp:not-found"):
        bench.broker.check_exists("q")


def test_idle_subscriptions_delete_themselves_and_idle_topics_with_them() -> None:
    """A topic is in use while one of its subscriptions is."""
    bench = Bench(
        Topic(
            "t",
            auto_delete_on_idle=600.0,
            subscriptions=(Subscription("a", auto_delete_on_idle=300.0), Subscription("b")),
        )
    )
    consumer = bench.open("t/subscriptions/b")
    bench.advance(300.0)
    assert [s.name for s in bench.broker.subscriptions("t")] == ["b"]
    bench.advance(1000.0)
    bench.close(consumer)
    bench.advance(1200.0)
    assert bench.broker.topics() == []
    assert bench.broker.next_timer() is None


def test_auto_delete_can_be_switched_on_later() -> None:
    """The time counts from the last use."""
    bench = Bench(Queue("q"))
    bench.advance(100.0)
    bench.broker.update_queue(Queue("q", auto_delete_on_idle=300.0), bench.now)
    bench.advance(199.0)
    bench.broker.check_exists("q")
    bench.advance(1.0)
    assert bench.broker.queues() == []


# -- description ------------------------------------------------------------------------------------------


def test_counts_tell_what_lies_where(bench: Bench) -> None:
    """Active, scheduled, dead, and in bytes."""
    bench.send("orders", message(), message(), message(time_to_live=5.0))
    bench.schedule("orders", 100.0)
    bench.broker.update_queue(Queue("Orders", dead_lettering_on_message_expiration=True), bench.now)
    bench.advance(5.0)
    bench.open("orders")
    runtime = bench.broker.runtime("orders")
    assert (runtime.active, runtime.scheduled, runtime.dead_letter) == (2, 1, 1)
    assert runtime.size == 300 + bench.dead("orders")[0].content.size
    assert runtime.consumers == 1
    assert bench.broker.runtime("orders/$deadletterqueue").active == 1
    assert bench.broker.runtime("events").subscriptions == 1


def test_counts_know_the_last_access(bench: Bench) -> None:
    """Sends, peeks and receivers are accesses."""
    bench.now = 10.0
    bench.send("orders")
    assert bench.broker.runtime("orders").accessed_at == 10.0
    bench.now = 20.0
    bench.peek("orders")
    assert bench.broker.runtime("orders").accessed_at == 20.0
    bench.now = 30.0
    bench.open("events/subscriptions/all")
    assert bench.broker.runtime("events").accessed_at == 30.0


def test_management_operations_are_booked_where_they_belong(bench: Bench) -> None:
    """On the account of the entity, and all accounts can begin anew."""
    bench.broker.book_management("ORDERS")
    bench.broker.book_management("events", 2)
    bench.broker.book_management("events/subscriptions/all")
    books = bench.broker.books()
    assert [books[name].credits for name in ("Orders", "Events", "Events/Subscriptions/All")] == [10, 20, 10]
    bench.broker.reset_books()
    assert sum(account.credits for account in bench.broker.books().values()) == 0
    with refused("amqp:not-found"):
        bench.broker.book_management("nothing")
