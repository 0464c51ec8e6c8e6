"""What a change means, as a table: one row per kind of change, one column per direction.

A request is written by whoever knows the old contract and read by who knows the new one: what the new side
accepts may only grow. A reply goes the other way: what the new side writes may only shrink. An event goes
both ways: old ones are still on their way, and old handlers still run, when the new code starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

__all__ = ["RULES", "Rule", "Side", "Verdict"]


class Verdict(Enum):
    """How bad a change is."""

    BREAKING = "breaking"
    """Somebody who knows the old contract will fail."""
    RISKY = "risky"
    """Somebody may: it depends on what they do, or on what is deployed first."""
    COMPATIBLE = "compatible"
    """Nobody will notice."""


class Side(Enum):
    """Who reads what has changed."""

    REQUEST = "request"
    """The new side reads what the old one writes."""
    REPLY = "reply"
    """The old side reads what the new one writes."""


@dataclass(frozen=True)
class Rule:
    """What a change means when the new side reads, and when it writes."""

    request: Verdict
    reply: Verdict
    words: str
    """What happened, with `{}` for the detail."""
    advice: str = ""

    def on(self, side: Side) -> Verdict:
        """The verdict for one direction."""
        return self.request if side is Side.REQUEST else self.reply


_BAD, _RISKY, _FINE = Verdict.BREAKING, Verdict.RISKY, Verdict.COMPATIBLE

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        # -- types
        "type-changed": Rule(_BAD, _BAD, "is {}"),
        "type-narrowed": Rule(_BAD, _FINE, "is {}"),
        "type-widened": Rule(_FINE, _BAD, "is {}"),
        "choice-removed": Rule(_BAD, _FINE, "can no longer be {}"),
        "choice-added": Rule(_FINE, _BAD, "can now also be {}"),
        "value-removed": Rule(_BAD, _FINE, "can no longer be {}"),
        "value-added": Rule(_FINE, _BAD, "can now also be {}"),
        "bound-tightened": Rule(_BAD, _FINE, "is limited to {}"),
        "bound-loosened": Rule(_FINE, _BAD, "is less limited: {}"),
        "form-changed": Rule(_BAD, _BAD, "has another form: {}"),
        "default-changed": Rule(_RISKY, _FINE, "means something else where it is absent: {}"),
        "otherwise-changed": Rule(_RISKY, _RISKY, "has changed: {}", "look at it yourself"),
        # -- fields
        "required-field-added": Rule(_BAD, _FINE, "is new and required", "give it a default"),
        "optional-field-added": Rule(_FINE, _FINE, "is new"),
        "field-added-to-closed": Rule(
            _RISKY, _BAD, "is new, where the old side allows no other field", "deploy the servers first"
        ),
        "field-removed": Rule(_RISKY, _BAD, "is gone", "keep it until nobody uses it"),
        "field-removed-from-closed": Rule(_BAD, _BAD, "is gone, and no longer allowed"),
        "field-became-required": Rule(_BAD, _FINE, "is required now", "give it a default"),
        "field-became-optional": Rule(_FINE, _RISKY, "may be absent now", "go on sending it"),
        "fields-closed": Rule(_BAD, _FINE, "no longer allows other fields"),
        "fields-opened": Rule(_FINE, _RISKY, "may have other fields now"),
        # -- methods
        "contract-removed": Rule(_BAD, _BAD, "is gone"),
        "contract-added": Rule(_FINE, _FINE, "is new"),
        "method-removed": Rule(_BAD, _BAD, "is gone", "keep it until nobody calls it"),
        "method-added": Rule(_FINE, _FINE, "is new"),
        "kind-changed": Rule(_BAD, _BAD, "is {}", "add a method of another name"),
        "no-longer-idempotent": Rule(
            _RISKY, _RISKY, "is no longer idempotent, and old callers go on repeating it"
        ),
        "idempotent-now": Rule(_FINE, _FINE, "is idempotent now"),
        "timeout-lowered": Rule(_RISKY, _RISKY, "may take {}"),
        "timeout-raised": Rule(_FINE, _FINE, "may take {}"),
        "no-longer-cancellable": Rule(_RISKY, _RISKY, "is no longer cancellable"),
        "cancellable-now": Rule(_FINE, _FINE, "is cancellable now"),
        "order-changed": Rule(
            _RISKY, _RISKY, "is {}", "a queue with sessions takes no message without one, and the reverse"
        ),
        # -- errors
        "error-added": Rule(_RISKY, _RISKY, "is new; old callers see only its code, {}"),
        "error-removed": Rule(_FINE, _FINE, "is gone"),
        "error-code-changed": Rule(_BAD, _BAD, "has the code {}"),
        # -- events
        "event-removed": Rule(_BAD, _BAD, "is gone", "publish the new version beside it for a while"),
        "event-replaced": Rule(
            _RISKY,
            _RISKY,
            "is gone, and {} is made from it",
            "whoever handles it must know the new one before the first is published",
        ),
        "event-added": Rule(_FINE, _FINE, "is new"),
        "version-dropped": Rule(_BAD, _BAD, "is no longer made from {}, of which some may be on their way"),
        "version-accepted": Rule(_FINE, _FINE, "is made from {} too"),
        "key-changed": Rule(_RISKY, _RISKY, "keeps order {}"),
    }
)
