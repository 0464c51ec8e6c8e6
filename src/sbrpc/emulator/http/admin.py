"""The management API: entities created, changed, described, listed and deleted with Atom documents over HTTP.

Owns paths, methods, status codes and paging. A request and `now` come in, a response goes out. What documents
look like is the business of `atom` and `descriptions`, what an entity is that of the broker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, unquote

from sbrpc.emulator.access import Access, AccessKey, Right
from sbrpc.emulator.broker import Broker, BrokerError
from sbrpc.emulator.http import atom, descriptions
from sbrpc.emulator.http.atom import Entry, Facts
from sbrpc.emulator.http.descriptions import AuthorizationRule, Description
from sbrpc.emulator.http.messages import Request, Response

__all__ = ["Admin"]

_SUBSCRIPTIONS = re.compile(
    r"(?P<topic>.+?)/subscriptions(?:/(?P<subscription>.+?)(?:/rules(?:/(?P<rule>.+))?)?)?", re.IGNORECASE
)
_LARGEST_PAGE = 100

# The service's status for what the broker refuses; everything else is a bad request.
_STATUS = {
    "amqp:not-found": 404,
    "com.microsoft:entity-already-exists": 409,
    "amqp:unauthorized-access": 401,
    "amqp:resource-limit-exceeded": 403,
    "com.microsoft:server-busy": 503,
}
_PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    412: "Precondition Failed",
    503: "Server Busy",
}


class _Refused(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class _Target(NamedTuple):
    """What a path names: an entity, or with an empty last name all of a kind."""

    kind: str
    topic: str = ""
    name: str = ""
    rule: str = ""

    @property
    def address(self) -> str:
        """The broker's address of the entity, or of the subscription that a rule belongs to."""
        return (
            f"{self.topic}/Subscriptions/{self.name}" if self.topic and self.name else self.topic or self.name
        )


@dataclass
class _Flags:
    """What clients set on an entity that has no meaning here, kept to be given back."""

    created_at: float
    values: dict[str, bool]


class Admin:
    """Answers for one broker."""

    def __init__(self, broker: Broker, access: Access, *, namespace: str, created_at: float) -> None:
        self.broker = broker
        self.access = access
        self.namespace = namespace
        self.created_at = created_at
        self._flags: dict[str, _Flags] = {}

    def handle(self, request: Request, now: float) -> Response:
        """Answer a request; never raises for what it asks."""
        try:
            path = unquote(request.path).strip("/")
            self._authorize(request, path, now)
            return self._dispatch(request, _target(path), now)
        except _Refused as error:
            return _error(error.status, error.detail)
        except BrokerError as error:
            return _error(_STATUS.get(error.condition, 400), error.description)
        except ValueError as error:
            return _error(400, str(error))

    def _authorize(self, request: Request, path: str, now: float) -> None:
        if not self.access.enforced:
            return
        token = request.headers.get("authorization")
        if token is None:
            raise _Refused(401, "MissingToken: the request has no Authorization header.")
        claim = self.access.verify(token, now)
        if not path.startswith("$"):
            # Whoever may manage a topic may manage what belongs to it.
            path = _target(path).address
        else:
            path = ""
        self.access.check({"": claim}, path, Right.MANAGE, now)

    def _dispatch(self, request: Request, target: _Target, now: float) -> Response:
        methods: dict[str, Callable[[Request, _Target, float], Response]]
        if target.kind == "namespace":
            methods = {"GET": self._namespace}
        elif target.kind in _LISTS:
            methods = {"GET": self._list}
        else:
            methods = {"GET": self._get, "PUT": self._put, "DELETE": self._delete}
        method = methods.get(request.method)
        if method is None:
            raise _Refused(405, f"{request.method} is not possible here, only {', '.join(methods)}.")
        return method(request, target, now)

    # -- one entity -------------------------------------------------------------------------------------

    def _get(self, request: Request, target: _Target, now: float) -> Response:
        target = self._resolve(target)
        self.broker.book_management(target.address)
        return self._entry(request, target, 200)

    def _delete(self, request: Request, target: _Target, now: float) -> Response:
        target = self._resolve(target)
        self._check_match(request, target)
        if target.kind == "queue":
            self.broker.delete_queue(target.name, now)
        elif target.kind == "topic":
            self.broker.delete_topic(target.topic, now)
        elif target.kind == "subscription":
            self.broker.delete_subscription(target.topic, target.name, now)
        else:
            self.broker.remove_rule(target.topic, target.name, target.rule, now)
        if target.kind != "rule":
            self._flags.pop(target.address.lower(), None)
            self.access.replace(target.address, ())
        return Response(200)

    def _put(self, request: Request, target: _Target, now: float) -> Response:
        description = descriptions.parse(request.body)
        kind = _KINDS.get(description.kind)
        if kind is None:
            raise _Refused(400, f"'{description.kind}' is not a description of an entity.")
        if target.kind == "entity":
            target = _target_of(kind, target.name)
        if target.kind != kind:
            raise _Refused(400, f"A {description.kind} cannot describe '{unquote(request.path)}'.")
        changes = "if-match" in request.headers
        if changes:
            self._check_match(request, target)
        self._store(target, description, now, changes=changes)
        self.broker.book_management(target.address)
        return self._entry(request, target, 200 if changes else 201)

    def _store(self, target: _Target, description: Description, now: float, *, changes: bool) -> None:
        broker, element, name = self.broker, description.element, target.name
        if target.kind == "queue":
            queue = descriptions.queue_from(element, name, broker.get_queue(name) if changes else None)
            (broker.update_queue if changes else broker.create_queue)(queue, now)
        elif target.kind == "topic":
            topic = descriptions.topic_from(
                element, target.topic, broker.get_topic(target.topic) if changes else None
            )
            (broker.update_topic if changes else broker.create_topic)(topic, now)
        elif target.kind == "subscription":
            subscription = descriptions.subscription_from(
                element, name, broker.get_subscription(target.topic, name) if changes else None
            )
            (broker.update_subscription if changes else broker.create_subscription)(
                target.topic, subscription, now
            )
        else:
            rule = descriptions.rule_from(element, target.rule)
            (broker.update_rule if changes else broker.add_rule)(target.topic, name, rule, now)
            return
        self._remember(target, description, changes=changes)

    # -- lists ------------------------------------------------------------------------------------------

    def _list(self, request: Request, target: _Target, now: float) -> Response:
        skip = _bounded(request.query, "$skip", 0)
        top = min(_bounded(request.query, "$top", _LARGEST_PAGE), _LARGEST_PAGE)
        targets = self._members(target)
        entries = [self._describe(request, each) for each in targets[skip : skip + top]]
        following = None
        if top and skip + top < len(targets):
            following = f"{_href(request, unquote(request.path))}&$skip={skip + top}&$top={top}"
        if target.topic:
            self.broker.book_management(target.address)
        return Response(
            200,
            atom.feed(
                target.kind.capitalize(),
                _href(request, request.path),
                now,
                entries,
                following,
                self.namespace,
            ),
            atom.ATOM_FEED,
        )

    def _members(self, target: _Target) -> list[_Target]:
        topic, name = target.topic, target.name
        if target.kind == "queues":
            found = [_Target("queue", name=queue.name) for queue in self.broker.queues()]
        elif target.kind == "topics":
            found = [_Target("topic", each.name) for each in self.broker.topics()]
        elif target.kind == "subscriptions":
            found = [_Target("subscription", topic, each.name) for each in self.broker.subscriptions(topic)]
        else:
            found = [_Target("rule", topic, name, rule.name) for rule in self.broker.rules(topic, name)]
        return sorted(found, key=lambda each: (each.address.lower(), each.rule.lower()))

    def _namespace(self, request: Request, target: _Target, now: float) -> Response:
        href = _href(request, request.path)
        description = atom.namespace_description(self.namespace, self.created_at)
        entry = Entry(self.namespace, href, self.created_at, self.created_at, description)
        return Response(200, atom.entry(entry, self.namespace), atom.ATOM_ENTRY)

    # -- descriptions -----------------------------------------------------------------------------------

    def _resolve(self, target: _Target) -> _Target:
        """A target whose kind is known: a name alone may be a queue's or a topic's."""
        if target.kind != "entity":
            return target
        queue = _Target("queue", name=target.name)
        try:
            self.broker.get_queue(target.name)
        except BrokerError:
            self.broker.get_topic(target.name)
            return _Target("topic", target.name)
        return queue

    def _entry(self, request: Request, target: _Target, status: int) -> Response:
        entry = self._describe(request, target)
        headers = {} if target.kind == "rule" else {"ETag": _etag(entry.updated)}
        return Response(status, atom.entry(entry, self.namespace), atom.ATOM_ENTRY, headers)

    def _describe(self, request: Request, target: _Target) -> Entry:
        if target.kind == "rule":
            return self._describe_rule(request, target)
        facts = self._facts(target.address)
        flags = self._known_flags(target, facts)
        if target.kind == "queue":
            queue = self.broker.get_queue(target.name)
            title = queue.name
            text = atom.queue_description(queue, facts, flags, self._rules_of(title, facts))
        elif target.kind == "topic":
            topic = self.broker.get_topic(target.topic)
            title = topic.name
            text = atom.topic_description(topic, facts, flags, self._rules_of(title, facts))
        else:
            subscription = self.broker.get_subscription(target.topic, target.name)
            title = subscription.name
            text = atom.subscription_description(subscription, facts, flags)
        href = _href(request, target.address)
        return Entry(title, href, facts.created_at, facts.updated_at, text)

    def _describe_rule(self, request: Request, target: _Target) -> Entry:
        rule = self.broker.get_rule(target.topic, target.name, target.rule)
        created = self.broker.rule_created_at(target.topic, target.name, target.rule)
        href = _href(request, f"{target.address}/Rules/{rule.name}")
        return Entry(rule.name, href, created, created, atom.rule_description(rule, created))

    def _facts(self, address: str) -> Facts:
        runtime = self.broker.runtime(address)
        counts = atom.Counts(
            # Deferred messages count as active ones, as they do in the service.
            active=runtime.active + runtime.deferred,
            dead_letter=runtime.dead_letter,
            scheduled=runtime.scheduled,
            transfer=runtime.transfer,
            transfer_dead_letter=runtime.transfer_dead_letter,
        )
        return Facts(
            runtime.created_at,
            runtime.updated_at,
            runtime.accessed_at,
            runtime.size,
            counts,
            runtime.subscriptions,
        )

    # -- what the broker does not keep --------------------------------------------------------------------

    def _remember(self, target: _Target, description: Description, *, changes: bool) -> None:
        address = target.address
        created_at = self.broker.runtime(address).created_at
        known = self._flags.get(address.lower())
        before = known.values if changes and known is not None and known.created_at == created_at else {}
        self._flags[address.lower()] = _Flags(created_at, {**before, **description.flags})
        rules = description.authorization_rules
        if rules is not None or not changes:
            self.access.replace(address, [key for rule in rules or () for key in _keys(rule, address)])

    def _known_flags(self, target: _Target, facts: Facts) -> Mapping[str, bool]:
        """The flags, unless they were an earlier entity's of the same name that deleted itself."""
        known = self._flags.get(target.address.lower())
        return known.values if known is not None and known.created_at == facts.created_at else {}

    def _rules_of(self, name: str, facts: Facts) -> Sequence[AuthorizationRule]:
        by_name: dict[str, list[AccessKey]] = {}
        for key in self.access.keys_of(name):
            by_name.setdefault(key.name, []).append(key)
        return [
            AuthorizationRule(
                key_name,
                tuple(right.value for right in Right if right in keys[0].rights),
                keys[0].key,
                keys[-1].key,
                facts.created_at,
            )
            for key_name, keys in by_name.items()
        ]

    def _check_match(self, request: Request, target: _Target) -> None:
        """Refuse a change of an entity that is not there, or not any more as the client knows it."""
        wanted = request.headers.get("if-match", "*").strip()
        if target.kind == "rule":
            self.broker.get_rule(target.topic, target.name, target.rule)
            return
        etag = _etag(self.broker.runtime(target.address).updated_at)
        if wanted not in ("*", etag, f"W/{etag}"):
            raise _Refused(412, f"The entity has changed: its ETag is {etag}, the request wants {wanted}.")


_LISTS = ("queues", "topics", "subscriptions", "rules")
_KINDS = {
    "QueueDescription": "queue",
    "TopicDescription": "topic",
    "SubscriptionDescription": "subscription",
    "RuleDescription": "rule",
}


def _target(path: str) -> _Target:
    lowered = path.lower()
    if lowered == "$namespaceinfo":
        return _Target("namespace")
    if lowered in ("$resources/queues", "$resources/topics"):
        return _Target(lowered.rpartition("/")[2])
    if not path or path.startswith("$"):
        raise _Refused(404, f"There is nothing at '/{path}'.")
    match = _SUBSCRIPTIONS.fullmatch(path)
    if match is None:
        return _Target("entity", name=path)
    topic, subscription, rule = match.group("topic", "subscription", "rule")
    if subscription is None:
        return _Target("subscriptions", topic)
    if rule is not None:
        return _Target("rule", topic, subscription, rule)
    kind = "rules" if lowered.endswith("/rules") else "subscription"
    return _Target(kind, topic, subscription)


def _target_of(kind: str, name: str) -> _Target:
    return _Target("topic", name) if kind == "topic" else _Target(kind, name=name)


def _href(request: Request, path: str) -> str:
    version = request.query.get("api-version", "2021-05")
    return f"{request.base}/{quote(unquote(path).strip('/'))}?api-version={quote(version)}"


def _etag(updated_at: float) -> str:
    return f'"{round(updated_at * 10_000_000)}"'


def _bounded(query: Mapping[str, str], name: str, default: int) -> int:
    value = query.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", value):
        raise _Refused(400, f"{name} must be a number that is not negative, not '{value}'.")
    return int(value)


def _keys(rule: AuthorizationRule, entity: str) -> list[AccessKey]:
    rights = frozenset(Right(right) for right in rule.rights)
    secrets = dict.fromkeys((rule.primary_key, rule.secondary_key))
    return [AccessKey(rule.key_name, secret, rights, entity) for secret in secrets]


def _error(status: int, detail: str) -> Response:
    text = f"SubCode={status}00. {_PHRASES.get(status, 'Error')}. {detail}"
    headers = {"WWW-Authenticate": "SharedAccessSignature"} if status == 401 else {}
    return Response(status, atom.error_body(status, text), "application/xml; charset=utf-8", headers)
