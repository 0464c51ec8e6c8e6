"""A message content for tests: properties in dictionaries, and a size that is told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sbrpc.emulator.broker import Incoming


@dataclass
class Text:
    """Content with application and standard properties; each new application property adds its length."""

    properties: dict[str, object] = field(default_factory=dict)
    standard: dict[str, object] = field(default_factory=dict)
    size: int = 100

    def system(self, name: str) -> object:
        return self.standard.get(name)

    def user(self) -> Mapping[str, object]:
        return self.properties

    def revised(
        self,
        *,
        system: Mapping[str, object] | None = None,
        user: Mapping[str, object] | None = None,
        removed: Collection[str] = (),
    ) -> Text:
        properties = {**self.properties, **(user or {})}
        for name in removed:
            properties.pop(name, None)
        grown = sum(len(name) + len(str(value)) for name, value in (user or {}).items())
        return Text(properties, {**self.standard, **(system or {})}, self.size + grown)


def message(properties: dict[str, object] | None = None, *, size: int = 100, **fields: Any) -> Incoming:
    """A message on its way in; fields that are standard properties are in its content, too."""
    standard = {
        name: fields.pop(name)
        for name in ("subject", "to", "correlation_id", "content_type", "reply_to")
        if name in fields
    }
    standard |= {name: fields[name] for name in ("message_id", "session_id") if name in fields}
    return Incoming(Text(properties or {}, standard, size), **fields)
