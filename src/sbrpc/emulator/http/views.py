"""What lies in an emulator, turned into JSON values for people and scripts to read.

Owns names and shapes of these values, and how much of a message's body is shown. Decides nothing and changes
nothing.
"""

from __future__ import annotations

import math
from codecs import getincrementaldecoder
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sbrpc.emulator.amqp import sections
from sbrpc.emulator.amqp.link import Link
from sbrpc.emulator.broker import Books, Broker, Message, MessageState, Runtime, SessionInfo
from sbrpc.emulator.broker.onward import REASONS
from sbrpc.emulator.content import AmqpContent
from sbrpc.emulator.nodes import ReceiverNode, SenderNode
from sbrpc.emulator.tcp import ServerConnection
from sbrpc.emulator.traffic import TrafficEntry
from sbrpc.topology import CorrelationFilter, Rule, SqlFilter

__all__ = ["account", "connection", "entities", "message", "session", "traffic_entry"]

_MOST_TEXT = 16 * 1024


def plain(value: Any) -> Any:
    """A value as JSON can say it."""
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, dict):
        return {str(plain(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return str(value)


# -- entities -----------------------------------------------------------------------------------------------


def entities(broker: Broker) -> dict[str, Any]:
    """Queues, and topics with their subscriptions, by name."""
    queues = [
        {
            "name": queue.name,
            "address": queue.name,
            "status": queue.status,
            "requires_session": queue.requires_session,
            "forward_to": queue.forward_to,
            **_counts(broker.runtime(queue.name)),
        }
        for queue in sorted(broker.queues(), key=lambda each: each.name.lower())
    ]
    topics = []
    for topic in sorted(broker.topics(), key=lambda each: each.name.lower()):
        subscriptions = []
        for each in sorted(topic.subscriptions, key=lambda each: each.name.lower()):
            address = f"{topic.name}/Subscriptions/{each.name}"
            subscriptions.append(
                {
                    "name": each.name,
                    "address": address,
                    "status": each.status,
                    "requires_session": each.requires_session,
                    "forward_to": each.forward_to,
                    "rules": [_rule(rule) for rule in each.rules],
                    **_counts(broker.runtime(address)),
                }
            )
        runtime = broker.runtime(topic.name)
        topics.append(
            {
                "name": topic.name,
                "status": topic.status,
                "size": runtime.size,
                "scheduled": runtime.scheduled,
                "subscriptions": subscriptions,
            }
        )
    return {"queues": queues, "topics": topics}


def _counts(runtime: Runtime) -> dict[str, int]:
    return {
        "active": runtime.active,
        "dead_letter": runtime.dead_letter,
        "transfer_dead_letter": runtime.transfer_dead_letter,
        "scheduled": runtime.scheduled,
        "deferred": runtime.deferred,
        "size": runtime.size,
        "consumers": runtime.consumers,
        "sessions": runtime.sessions,
    }


def _rule(rule: Rule) -> dict[str, Any]:
    wanted = rule.filter
    if isinstance(wanted, SqlFilter):
        text = wanted.expression
    elif isinstance(wanted, CorrelationFilter):
        fields = wanted.fields() | {k: v for k, v in wanted.properties.items() if v is not None}
        text = ", ".join(f"{name} = {plain(value)!r}" for name, value in fields.items())
    else:
        text = "everything" if type(wanted).__name__ == "TrueFilter" else "nothing"
    return {"name": rule.name, "filter": text, "action": rule.action}


def session(info: SessionInfo, now: float) -> dict[str, Any]:
    """A session; the lock's end is left out where there is no lock."""
    return {
        "session_id": info.session_id,
        "messages": info.messages,
        "locked": info.locked,
        "locked_until": info.locked_until if info.locked else None,
        "locked_for": max(0.0, info.locked_until - now) if info.locked else None,
        "state_size": info.state_size,
    }


def account(books: Books) -> dict[str, int]:
    """What an entity's use would cost."""
    return {
        "operations": books.operations,
        "credits": books.credits,
        "sends": books.sends,
        "receives": books.receives,
        "peeks": books.peeks,
        "management": books.management,
        "filters": books.filters,
    }


# -- messages -----------------------------------------------------------------------------------------------


def message(item: Message) -> dict[str, Any]:
    """A message with its properties and the beginning of its body."""
    content = item.content
    properties = dict(content.user())
    reason, description = (properties.pop(name, None) for name in REASONS)
    state = "locked" if item.state is MessageState.LOCKED else item.shown_state.name.lower()
    return {
        "sequence_number": item.sequence_number,
        "state": state,
        "enqueued_at": item.enqueued_at,
        "scheduled_at": item.scheduled_at if state == "scheduled" else None,
        "expires_at": item.expires_at if math.isfinite(item.expires_at) else None,
        "locked_until": item.locked_until if state == "locked" else None,
        "delivery_count": item.delivery_count,
        "message_id": plain(item.message_id),
        "session_id": item.session_id,
        **{
            name: plain(content.system(name))
            for name in (
                "subject",
                "content_type",
                "correlation_id",
                "reply_to",
                "reply_to_session_id",
                "to",
            )
        },
        "size": content.size,
        "properties": plain(properties),
        "dead_letter_reason": plain(reason),
        "dead_letter_description": plain(description),
        "dead_letter_source": item.dead_letter_source,
        "body": _body(content),
    }


def _body(content: object) -> dict[str, Any]:
    """The beginning of a body: text where it is text, hexadecimal digits where it is not."""
    if not isinstance(content, AmqpContent):
        return {"kind": "none", "text": "", "size": 0}
    try:
        found = sections.split(content.bare)
        if found.body_code == 0:
            return {"kind": "none", "text": "", "size": 0}
        data = found.data()
    except ValueError:
        return _value_body(content)
    shown = data[:_MOST_TEXT]
    try:
        # A cut in the middle of a character is not the sender's mistake.
        text = getincrementaldecoder("utf-8")().decode(shown, len(shown) == len(data))
        kind = "text"
    except UnicodeDecodeError:
        text, kind = shown[:1024].hex(" "), "binary"
    return {"kind": kind, "text": text, "size": len(data)}


def _value_body(content: AmqpContent) -> dict[str, Any]:
    try:
        text = str(plain(sections.split(content.bare).value()))
    except ValueError:
        return {"kind": "sequence", "text": "", "size": len(content.bare)}
    return {"kind": "value", "text": text[:_MOST_TEXT], "size": len(text)}


# -- connections and traffic --------------------------------------------------------------------------------


def connection(item: ServerConnection) -> dict[str, Any]:
    """A connection with its links to entities."""
    amqp = item.peer.amqp
    links = (_link(link) for link in amqp.links)
    return {
        "id": item.number,
        "container_id": amqp.container_id,
        "product": plain(amqp.properties.get("product")),
        "version": plain(amqp.properties.get("version")),
        "remote": item.remote,
        "since": item.since,
        "links": [link for link in links if link is not None],
    }


def _link(link: Link) -> dict[str, Any] | None:
    node = link.user
    if isinstance(node, SenderNode):
        return {"role": "sends to", "entity": node.address, "credit": link.credit, "session_id": None}
    if isinstance(node, ReceiverNode):
        session_id = node.consumer.session_id if node.consumer is not None else None
        return {
            "role": "receives from",
            "entity": node.address,
            "credit": link.credit,
            "session_id": session_id,
            "unsettled": len(node.tokens),
        }
    return None


def traffic_entry(entry: TrafficEntry) -> dict[str, Any]:
    """One thing that happened."""
    return {
        "number": entry.number,
        "at": entry.at,
        "what": entry.what,
        "entity": entry.address,
        "container_id": entry.container_id,
        "message_id": entry.message_id,
        "session_id": entry.session_id,
        "size": entry.size,
        "detail": entry.detail,
    }
