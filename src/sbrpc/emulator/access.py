"""Who may do what: shared access keys, the tokens made from them, and the claims they carry.

Owns the check of a token's signature, expiry and audience, and of a claim per entity. Without keys everything
is allowed, as with the official emulator. Knows no AMQP and no clock.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote, urlsplit

from sbrpc.emulator.broker import BrokerError

__all__ = ["Access", "AccessKey", "Right"]

UNAUTHORIZED = "amqp:unauthorized-access"


class Right(str, Enum):
    """What a key may allow; Manage includes the other two."""

    SEND = "Send"
    LISTEN = "Listen"
    MANAGE = "Manage"


@dataclass(frozen=True)
class AccessKey:
    """A shared access key: its rights hold for `entity` and everything below it, or the whole namespace."""

    name: str
    key: str
    rights: frozenset[Right]
    entity: str | None = None

    def __post_init__(self) -> None:
        rights = frozenset(Right(right) for right in self.rights)
        if not rights:
            raise ValueError(f"the access key {self.name!r} has no rights; give Send, Listen or Manage")
        if Right.MANAGE in rights:
            rights = frozenset(Right)
        object.__setattr__(self, "rights", rights)

    def covers(self, path: str) -> bool:
        """Whether the key holds for an entity path."""
        return self.entity is None or _within(self.entity, path)


@dataclass(frozen=True)
class Claim:
    """What one accepted token allows: rights of a key, on what its audience names, until it expires."""

    key: AccessKey
    audience: str
    expires: float


def _within(outer: str, path: str) -> bool:
    outer, path = outer.lower().strip("/"), path.lower().strip("/")
    return not outer or path == outer or path.startswith(outer + "/")


def _path(uri: str) -> str:
    """The entity path of a resource URI, of whatever scheme and host."""
    return urlsplit(uri).path.strip("/") if "://" in uri else uri.strip("/")


def signature(key: str, resource: str, expires: str) -> str:
    """The signature of a shared access token, in base64 (azure-docs, Service Bus SAS)."""
    digest = hmac.new(key.encode(), f"{resource}\n{expires}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


class Access:
    """The namespace's keys. No keys: everything is accepted and allowed."""

    def __init__(self, keys: Iterable[AccessKey] = ()) -> None:
        self.keys = tuple(keys)
        self.enforced = bool(self.keys)
        """Whether tokens are checked at all: it is decided once, by whether there are keys from the start."""

    def keys_of(self, entity: str) -> list[AccessKey]:
        """The keys that belong to one entity alone."""
        return [key for key in self.keys if key.entity is not None and key.entity.lower() == entity.lower()]

    def replace(self, entity: str, keys: Iterable[AccessKey]) -> None:
        """Give an entity new keys in place of those it had."""
        old = self.keys_of(entity)
        self.keys = (*(key for key in self.keys if key not in old), *keys)

    def authenticate(self, claims: dict[str, Claim], audience: str, token: str, now: float) -> None:
        """Check a token and remember what it allows in `claims`; raises `BrokerError` (unauthorized)."""
        if not self.enforced:
            return
        claim = self.verify(token, now)
        if not _within(claim.audience, _path(audience)):
            raise BrokerError(
                UNAUTHORIZED,
                f"InvalidAudience: the token is for '{claim.audience}', it was presented for "
                f"'{_path(audience)}'.",
            )
        claims[_path(audience).lower()] = claim

    def verify(self, token: str, now: float) -> Claim:
        """The claim a `SharedAccessSignature` makes, when it is genuine and has not expired."""
        kind, _, rest = token.partition(" ")
        fields = dict(part.partition("=")[::2] for part in rest.split("&"))
        if kind != "SharedAccessSignature" or not {"sr", "sig", "se", "skn"} <= set(fields):
            raise BrokerError(
                UNAUTHORIZED, "MalformedToken: a SharedAccessSignature with sr, sig, se and skn is expected."
            )
        name = unquote(fields["skn"])
        for key in (key for key in self.keys if key.name == name):
            expected = signature(key.key, fields["sr"], fields["se"])
            if hmac.compare_digest(expected.encode(), unquote(fields["sig"]).encode()):
                break
        else:
            raise BrokerError(
                UNAUTHORIZED, f"InvalidSignature: the token has an invalid signature for key '{name}'."
            )
        if not fields["se"].isdigit() or int(fields["se"]) <= now:
            raise BrokerError(UNAUTHORIZED, "ExpiredToken: the token has expired.")
        return Claim(key, _path(unquote(fields["sr"])), float(fields["se"]))

    def check(self, claims: dict[str, Claim], path: str, right: Right, now: float) -> None:
        """Raise `BrokerError` (unauthorized) unless some claim allows `right` on the entity at `path`."""
        if not self.enforced:
            return
        path = path.removesuffix("/$management")
        for claim in claims.values():
            if (
                right in claim.key.rights
                and claim.expires > now
                and claim.key.covers(path)
                and _within(claim.audience, path)
            ):
                return
        raise BrokerError(
            UNAUTHORIZED,
            f"Unauthorized access. '{right.value}' claim(s) are required to perform this operation. "
            f"Resource: '{path}'.",
        )
