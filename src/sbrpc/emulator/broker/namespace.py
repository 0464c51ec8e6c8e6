"""The entities of a namespace by name, and what can be done with them as a whole.

Owns names, addresses and the lives of entities, auto-delete on idle included. What happens to messages is
the entities' business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sbrpc.emulator.broker import errors
from sbrpc.emulator.broker.books import Books
from sbrpc.emulator.broker.exchange import Exchange
from sbrpc.emulator.broker.queues import DEAD_LETTERS, TRANSFERS, QueueEntity, Trio
from sbrpc.emulator.broker.runtime import Runtime
from sbrpc.emulator.broker.sessions import SessionStore
from sbrpc.emulator.broker.stores import Store
from sbrpc.emulator.broker.topics import SubscriptionEntity, TopicEntity
from sbrpc.topology import Queue, Subscription, Topic

__all__ = ["Namespace", "Place"]


class Place(NamedTuple):
    """What an address that can be received from leads to."""

    store: Store
    trio: Trio
    entity: QueueEntity | SubscriptionEntity
    intake: QueueEntity | TopicEntity


class Namespace:
    """Queues, topics and subscriptions. All lookups ignore case and raise `BrokerError` for unknown names."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.intakes: dict[str, QueueEntity | TopicEntity] = {}
        self.places: dict[str, Place] = {}

    # -- lookup ------------------------------------------------------------------------------------------

    def intake(self, address: str) -> QueueEntity | TopicEntity:
        """The queue or topic that can be sent to at an address."""
        intake = self.intakes.get(address.lower())
        if intake is None:
            if address.lower() in self.places:
                raise errors.not_allowed(
                    f"Messages cannot be sent to '{address}': it is a subscription or a sub-queue."
                )
            raise errors.not_found(address)
        return intake

    def place(self, address: str) -> Place:
        """What can be received from at an address."""
        place = self.places.get(address.lower())
        if place is None:
            if address.lower() in self.intakes:
                raise errors.not_allowed(
                    f"Messages cannot be received from the topic '{address}', only from its subscriptions."
                )
            raise errors.not_found(address)
        return place

    def queue(self, name: str) -> QueueEntity:
        """A queue by its name."""
        entity = self.intakes.get(name.lower())
        if not isinstance(entity, QueueEntity):
            raise errors.not_found(name)
        return entity

    def topic(self, name: str) -> TopicEntity:
        """A topic by its name."""
        entity = self.intakes.get(name.lower())
        if not isinstance(entity, TopicEntity):
            raise errors.not_found(name)
        return entity

    def subscription(self, topic: str, name: str) -> SubscriptionEntity:
        """A subscription by its topic's and its own name."""
        entity = self.topic(topic).subscriptions.get(name.lower())
        if entity is None:
            raise errors.not_found(f"{topic}/Subscriptions/{name}")
        return entity

    # -- creation ----------------------------------------------------------------------------------------

    def create(self, entities: Iterable[Queue | Topic], now: float) -> None:
        """Create several entities that may forward to each other, or none of them."""
        made: list[str] = []
        try:
            for settings in entities:
                if isinstance(settings, Queue):
                    self._make_queue(settings, now)
                else:
                    self._make_topic(settings, now)
                made.append(settings.name)
            for name in made:
                self._check_ways(self.intakes[name.lower()])
        except errors.BrokerError:
            for name in made:
                self.delete(name, now)
            raise

    def create_subscription(self, topic: str, settings: Subscription, now: float) -> None:
        """Add a subscription to a topic."""
        parent = self.topic(topic)
        self._check_way(f"{parent.name}/Subscriptions/{settings.name}", settings)
        self._make_subscription(parent, settings, now)
        parent.updated_at = now

    def _make_queue(self, settings: Queue, now: float) -> None:
        self._check_free(settings.name)
        entity = QueueEntity(self._exchange, settings, now)
        self._add_intake(entity)
        self._add_places(Place(entity.store, entity.trio, entity, entity))
        self._expect_idle(entity, now)

    def _make_topic(self, settings: Topic, now: float) -> None:
        self._check_free(settings.name)
        entity = TopicEntity(self._exchange, settings, now)
        self._add_intake(entity)
        try:
            for subscription in settings.subscriptions:
                self._make_subscription(entity, subscription, now)
        except errors.BrokerError:
            self.delete(settings.name, now)
            raise
        self._expect_idle(entity, now)

    def _make_subscription(self, topic: TopicEntity, settings: Subscription, now: float) -> None:
        if settings.name.lower() in topic.subscriptions:
            raise errors.already_exists(f"{topic.name}/Subscriptions/{settings.name}")
        entity = SubscriptionEntity(self._exchange, topic.name, settings, topic.usage, now)
        topic.subscriptions[settings.name.lower()] = entity
        self._add_places(Place(entity.store, entity.trio, entity, topic))
        self._expect_idle(entity, now)

    def _add_intake(self, entity: QueueEntity | TopicEntity) -> None:
        self.intakes[entity.name.lower()] = entity
        self._exchange.targets[entity.name.lower()] = entity

    def _add_places(self, place: Place) -> None:
        address = place.trio.address.lower()
        self.places[address] = place
        self.places[address + DEAD_LETTERS.lower()] = place._replace(store=place.trio.dead_letters)
        self.places[address + TRANSFERS.lower()] = place._replace(store=place.trio.transfers)

    def _check_free(self, name: str) -> None:
        if name.lower() in self.intakes or name.lower() in self.places:
            raise errors.already_exists(name)

    def _check_ways(self, entity: QueueEntity | TopicEntity) -> None:
        if isinstance(entity, QueueEntity):
            self._check_way(entity.name, entity.settings)
        else:
            for subscription in entity.subscriptions.values():
                self._check_way(subscription.trio.address, subscription.settings)

    def _check_way(self, address: str, settings: Queue | Subscription) -> None:
        for to in (settings.forward_to, settings.forward_dead_lettered_messages_to):
            if to is None:
                continue
            if to.lower() == address.lower():
                raise errors.argument(f"'{address}' cannot forward to itself.")
            if to.lower() not in self.intakes:
                raise errors.not_found(to)

    # -- change ------------------------------------------------------------------------------------------

    def update_queue(self, settings: Queue, now: float) -> None:
        """Give a queue new settings."""
        entity = self.queue(settings.name)
        self._check_window(entity, settings)
        self._check_way(entity.name, settings)
        entity.follow(settings, now)
        self._expect_idle(entity, now)

    def update_topic(self, settings: Topic, now: float) -> None:
        """Give a topic new settings; its subscriptions stay as they are."""
        entity = self.topic(settings.name)
        self._check_window(entity, settings)
        entity.follow(settings, now)
        self._expect_idle(entity, now)

    def update_subscription(self, topic: str, settings: Subscription, now: float) -> None:
        """Give a subscription new settings; its rules stay as they are."""
        entity = self.subscription(topic, settings.name)
        self._check_way(entity.trio.address, settings)
        entity.follow(settings, now)
        self._expect_idle(entity, now)

    def _check_window(self, entity: QueueEntity | TopicEntity, settings: Queue | Topic) -> None:
        now_on, was_on = settings.duplicate_detection_window, entity.settings.duplicate_detection_window
        if (now_on is None) != (was_on is None):
            raise errors.argument(f"Whether '{entity.name}' detects duplicates is fixed at its creation.")

    # -- deletion ----------------------------------------------------------------------------------------

    def delete(self, name: str, now: float) -> None:
        """Delete a queue, or a topic with its subscriptions; whoever is attached is told."""
        entity = self.intakes.get(name.lower())
        if entity is None:
            raise errors.not_found(name)
        if isinstance(entity, TopicEntity):
            for subscription in list(entity.subscriptions.values()):
                self.delete_subscription(name, subscription.name, now)
            entity.clear()
        else:
            self._drop_places(entity.trio, now)
        del self.intakes[name.lower()]
        del self._exchange.targets[name.lower()]
        self._exchange.timers.disarm(entity)

    def delete_subscription(self, topic: str, name: str, now: float) -> None:
        """Delete a subscription; whoever is attached is told."""
        entity = self.subscription(topic, name)
        self._drop_places(entity.trio, now)
        del self.topic(topic).subscriptions[name.lower()]
        self._exchange.timers.disarm(entity)

    def _drop_places(self, trio: Trio, now: float) -> None:
        trio.clear(errors.not_found(trio.address), now)
        for store in trio.stores:
            del self.places[store.address.lower()]

    # -- auto-delete on idle --------------------------------------------------------------------------------

    def _expect_idle(self, entity: QueueEntity | TopicEntity | SubscriptionEntity, now: float) -> None:
        """Delete the entity once nobody has used it for as long as its settings say."""
        idle = entity.settings.auto_delete_on_idle
        if idle is None:
            return
        end = now + idle if entity.in_use else entity.last_used + idle
        if end > now:
            self._exchange.timers.arm(entity, end, self._expect_idle)
        elif isinstance(entity, SubscriptionEntity):
            self.delete_subscription(entity.topic, entity.name, now)
        else:
            self.delete(entity.name, now)

    # -- description -------------------------------------------------------------------------------------

    def runtime(self, address: str) -> Runtime:
        """Counts, sizes and times of whatever an address leads to."""
        place = self.places.get(address.lower())
        if place is None:
            return self._topic_runtime(self.topic(address))
        store, trio, entity, intake = place
        main = store is trio.main
        return Runtime(
            active=store.active,
            dead_letter=len(trio.dead_letters.messages) if main else 0,
            scheduled=store.scheduled,
            deferred=store.deferred,
            transfer_dead_letter=len(trio.transfers.messages) if main else 0,
            size=intake.usage.size if entity is intake else 0,
            created_at=entity.created_at,
            updated_at=entity.updated_at,
            accessed_at=entity.last_used,
            consumers=len(store.consumers),
            sessions=len(store.sessions) if isinstance(store, SessionStore) else 0,
        )

    def _topic_runtime(self, topic: TopicEntity) -> Runtime:
        return Runtime(
            scheduled=topic.scheduled,
            size=topic.usage.size,
            created_at=topic.created_at,
            updated_at=topic.updated_at,
            accessed_at=topic.last_used,
            subscriptions=len(topic.subscriptions),
        )

    def books(self) -> dict[str, Books]:
        """The accounts by address."""
        accounts = {topic.name: topic.books for topic in self.intakes.values()}
        for place in self.places.values():
            store = place.store
            if store is place.trio.main or store.books.operations:
                accounts[store.address] = store.books
        return accounts

    def reset_books(self) -> None:
        """Begin all accounts anew."""
        for holder in (*self.intakes.values(), *(place.store for place in self.places.values())):
            holder.books.clear()
