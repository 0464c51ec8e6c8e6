"""An AsyncAPI document as a page for people: HTML and CSS in one text, no script, nothing loaded.

Owns the page. Knows the document and nothing of what it was made from; all text is escaped on its way in.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["asyncapi_page"]

_STYLE = """\
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 22%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 small { font-weight: normal; opacity: .65; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
section { margin: 1.5rem 0; }
h3 { margin: 0; }
h4 { margin: 1rem 0 .25rem; }
code, pre { font: .875em/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); border-radius: .375rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; }
th { font-weight: 600; }
tr { border-bottom: 1px solid var(--line); }
.tag { border: 1px solid var(--line); border-radius: 1rem; padding: .05rem .6rem; font-size: .8125rem; }
nav ul { columns: 18rem; padding-left: 1.25rem; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
"""

# What the two actions are called where people read them.
_ACTIONS = {"receive": "takes", "send": "sends"}


def asyncapi_page(document: Mapping[str, Any]) -> str:
    """The page of a document as `asyncapi_document` makes it."""
    return "\n".join(_Page(document).lines()) + "\n"


class _Page:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def lines(self) -> Iterator[str]:
        info = self.document["info"]
        operations = self.document["operations"]
        schemas = self.document["components"]["schemas"]
        yield "<!doctype html>"
        yield '<html lang="en">'
        yield f'<head><meta charset="utf-8"><title>{_text(info["title"])}</title>'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield f"<style>\n{_STYLE}</style></head>"
        yield "<body>"
        yield f"<h1>{_text(info['title'])} <small>{_text(info['version'])}</small></h1>"
        if "description" in info:
            yield f"<p>{_text(info['description'])}</p>"
        for server in self.document["servers"].values():
            address = f"{server['protocol']}://{server['host']}"
            yield f"<p><code>{_text(address)}</code><br>{_text(server.get('description', ''))}</p>"
        yield "<nav><h2>Operations</h2><ul>"
        for name, operation in operations.items():
            yield f"<li>{_link('operation', name)} {_tag(_ACTIONS[operation['action']])}</li>"
        yield "</ul></nav>"
        for name, operation in operations.items():
            yield from self.operation(name, operation)
        yield "<h2>Channels</h2>"
        for name, channel in self.document["channels"].items():
            yield from self.channel(name, channel)
        yield "<h2>Types</h2>"
        for name, schema in schemas.items():
            yield f'<section id="{_id("type", name)}"><h3>{_text(name)}</h3>'
            yield from self.schema(schema)
            yield "</section>"
        yield "</body></html>"

    def operation(self, name: str, operation: Mapping[str, Any]) -> Iterator[str]:
        channel, action = _last(operation["channel"]), _tag(_ACTIONS[operation["action"]])
        yield f'<section id="{_id("operation", name)}"><h3>{_text(name)} {action}</h3>'
        if "summary" in operation:
            yield f"<p>{_text(operation['summary'])}</p>"
        yield f"<p>Channel {_link('channel', channel)}{self.facts(operation, '; ')}</p>"
        for reference in operation["messages"]:
            yield from self.message(self.resolve(reference))
        if "reply" in operation:
            reply = operation["reply"]
            where = _link("channel", _last(reply["channel"]))
            at = f" at <code>{_text(reply['address']['location'])}</code>" if "address" in reply else ""
            yield f"<h4>Replies on {where}{at}</h4>"
            for reference in reply["messages"]:
                yield from self.message(self.resolve(reference))
        yield "</section>"

    def channel(self, name: str, channel: Mapping[str, Any]) -> Iterator[str]:
        yield f'<section id="{_id("channel", name)}"><h3>{_text(name)}</h3>'
        if "description" in channel:
            yield f"<p>{_text(channel['description'])}</p>"
        fixed = channel["address"]
        address = f"Address <code>{_text(fixed)}</code>" if fixed else "No fixed address"
        yield f"<p>{address}{self.facts(channel, '; ')}</p></section>"

    def facts(self, thing: Mapping[str, Any], before: str) -> str:
        return "".join(
            f"{before}{_text(name.split('-', 2)[2].replace('-', ' '))}: <code>{_text(_shown(value))}</code>"
            for name, value in thing.items()
            if name.startswith(("x-sbrpc-", "x-servicebus-"))
        )

    def message(self, message: Mapping[str, Any]) -> Iterator[str]:
        yield f"<details><summary>{_text(message['title'])}</summary>"
        if "summary" in message:
            yield f"<p>{_text(message['summary'])}</p>"
        yield "<h4>Properties</h4>"
        yield from self.schema(message["headers"])
        yield "<h4>Body</h4>"
        yield from self.schema(message["payload"])
        yield "</details>"

    def schema(self, schema: Mapping[str, Any]) -> Iterator[str]:
        if "description" in schema:
            yield f"<p>{_text(schema['description'])}</p>"
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            yield f"<p>{_kind(schema)}</p>"
            return
        required = set(schema.get("required", ()))
        yield "<table><thead><tr><th>name</th><th>type</th><th></th></tr></thead><tbody>"
        for name, each in properties.items():
            need = "required" if name in required else "optional"
            about = _text(each.get("description", ""))
            what = f"<td>{_kind(each)}</td><td>{need}. {about}</td>"
            yield f"<tr><td><code>{_text(name)}</code></td>{what}</tr>"
        yield "</tbody></table>"

    def resolve(self, reference: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Any = self.document
        for part in reference["$ref"].removeprefix("#/").split("/"):
            found = found[_unescaped(part)]
        return dict(found)


def _kind(schema: Any) -> str:
    """A type in a few words, with a link where it has a name."""
    if not isinstance(schema, Mapping):
        return "anything"
    if "$ref" in schema:
        return _link("type", _last(schema))
    if "const" in schema:
        return f"<code>{_text(_shown(schema['const']))}</code>"
    if "enum" in schema:
        return "one of " + ", ".join(f"<code>{_text(_shown(each))}</code>" for each in schema["enum"])
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return (" and " if word == "allOf" else " or ").join(_kind(each) for each in schema[word])
    if schema.get("type") == "array":
        items = schema.get("items")
        inner = ", ".join(map(_kind, items)) if isinstance(items, list) else _kind(items)
        return f"array of {inner}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_kind(schema['additionalProperties'])}"
    limits = "".join(f", {_text(name)} {_text(_shown(schema[name]))}" for name in _LIMITS if name in schema)
    return _text(_shown(schema.get("type", "anything"))) + limits


_LIMITS = (
    "format",
    "pattern",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "default",
)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _last(reference: Mapping[str, Any]) -> str:
    return _unescaped(str(reference["$ref"]).rpartition("/")[2])


def _unescaped(part: str) -> str:
    """A part of a JSON pointer (RFC 6901)."""
    return part.replace("~1", "/").replace("~0", "~")


def _id(kind: str, name: str) -> str:
    return _text(f"{kind}-{name}".replace(" ", "-"))


def _link(kind: str, name: str) -> str:
    return f'<a href="#{_id(kind, name)}">{_text(name)}</a>'


def _tag(text: str) -> str:
    return f'<span class="tag">{_text(text)}</span>'


def _text(text: str) -> str:
    return html.escape(str(text))
