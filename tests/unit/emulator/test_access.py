"""`sbrpc.emulator.access`: tokens, claims and what they allow."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from sbrpc.emulator.access import Access, AccessKey, Right, signature
from sbrpc.emulator.broker import BrokerError

ROOT = AccessKey("root", "cm9vdA==", frozenset({Right.MANAGE}))
SENDER = AccessKey("sender", "c2VuZA==", frozenset({Right.SEND}), entity="movies")
NOW = 1_000_000.0


def token(key: AccessKey, path: str, *, expires: int = 2_000_000, secret: str | None = None) -> str:
    """A shared access signature as the SDK makes it."""
    resource = quote(f"sb://127.0.0.1:5672/{path}", safe="")
    signed = quote(signature(secret or key.key, resource, str(expires)), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signed}&se={expires}&skn={key.name}"


def claims_of(access: Access, path: str, text: str) -> dict[str, Any]:
    """The claims a connection has after presenting one token."""
    claims: dict[str, Any] = {}
    access.authenticate(claims, f"sb://127.0.0.1:5672/{path}", text, NOW)
    return claims


def test_without_keys_everything_is_allowed() -> None:
    """No keys means no checks, as with the official emulator."""
    access = Access()
    claims = claims_of(access, "movies", "whatever")
    access.check(claims, "movies", Right.MANAGE, NOW)


def test_a_genuine_token_allows_what_its_key_has() -> None:
    """The right of the key holds on the entity of the token and on nothing else."""
    access = Access([ROOT, SENDER])
    claims = claims_of(access, "movies", token(SENDER, "movies"))
    access.check(claims, "Movies", Right.SEND, NOW)
    with pytest.raises(BrokerError, match=r"'Listen' claim\(s\) are required"):
        access.check(claims, "movies", Right.LISTEN, NOW)
    with pytest.raises(BrokerError, match="'Send'"):
        access.check(claims, "movies2", Right.SEND, NOW)


def test_manage_includes_send_and_listen() -> None:
    """A key with Manage may do everything, below its audience too."""
    access = Access([ROOT])
    claims = claims_of(access, "topic", token(ROOT, "topic"))
    for right in Right:
        access.check(claims, "topic/Subscriptions/s/$DeadLetterQueue", right, NOW)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "MalformedToken"),
        ("SharedAccessSignature sr=a&sig=b&se=c", "MalformedToken"),
        (token(ROOT, "movies", secret="other"), "InvalidSignature"),
        (token(AccessKey("nobody", "eA==", frozenset({Right.SEND})), "movies"), "InvalidSignature"),
        (token(ROOT, "movies", expires=999_999), "ExpiredToken"),
        (token(ROOT, "other"), "InvalidAudience"),
    ],
)
def test_a_token_that_is_not_genuine_is_refused(text: str, says: str) -> None:
    """Malformed, forged, expired and foreign tokens each have their own message."""
    with pytest.raises(BrokerError, match=says) as caught:
        claims_of(Access([ROOT, SENDER]), "movies", text)
    assert caught.value.condition == "amqp:unauthorized-access"


def test_a_claim_ends_when_its_token_expires() -> None:
    """What a token allowed is over at its expiry."""
    access = Access([ROOT])
    claims = claims_of(access, "movies", token(ROOT, "movies", expires=int(NOW) + 10))
    access.check(claims, "movies", Right.SEND, NOW + 9)
    with pytest.raises(BrokerError, match="Unauthorized access"):
        access.check(claims, "movies", Right.SEND, NOW + 11)


def test_a_key_without_rights_is_refused() -> None:
    """A key must allow something."""
    with pytest.raises(ValueError, match="has no rights"):
        AccessKey("empty", "eA==", frozenset())
