"""What an entity's use would cost on Azure.

Owns the counting rules: one credit for each message sent, delivered or peeked, ten for a management
operation, one for each evaluation of a filter (azure-docs, service-bus-throttling). Knows nothing of what
was counted.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Books"]


@dataclass(slots=True)
class Books:
    """The account of one entity."""

    sends: int = 0
    receives: int = 0
    peeks: int = 0
    management: int = 0
    filters: int = 0

    @property
    def operations(self) -> int:
        """Everything a client asked for or got; filters run inside the broker and are none."""
        return self.sends + self.receives + self.peeks + self.management

    @property
    def credits(self) -> int:
        """What throttling in the Standard tier counts."""
        return self.sends + self.receives + self.peeks + 10 * self.management + self.filters

    def clear(self) -> None:
        """Begin anew."""
        self.sends = self.receives = self.peeks = self.management = self.filters = 0
