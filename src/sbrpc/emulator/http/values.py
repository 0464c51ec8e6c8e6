"""Texts of the management API's XML and the values they stand for.

Owns durations, times, booleans, entity paths and the typed values of filter properties, in both directions.
Knows no element and no entity. Whatever is wrong with a text is a `ValueError` that shows it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote, urlsplit

from sbrpc.emulator.config import parse_duration

__all__ = [
    "attribute",
    "boolean",
    "decode_typed",
    "encode_typed",
    "format_boolean",
    "format_duration",
    "format_time",
    "number",
    "optional_duration",
    "path",
    "required_duration",
    "text",
]

# The longest .NET TimeSpan stands for "never"; what clients make of it in their own types is a little less.
_NEVER = "P10675199DT2H48M5.4775807S"
_NEARLY_NEVER = 10675199 * 86400.0

# XML 1.0 has no way at all to write these characters.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(value: object) -> str:
    """A value as the content of an element."""
    return html.escape(_UNWRITABLE.sub("\ufffd", str(value)), quote=False)


def attribute(value: object) -> str:
    """A value as an attribute, quotes included."""
    return f'"{html.escape(_UNWRITABLE.sub(chr(0xFFFD), str(value)))}"'


def boolean(value: str) -> bool:
    """`true` or `false`, as XML Schema writes them."""
    known = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower())
    if known is None:
        raise ValueError(f"'{value}' is neither true nor false")
    return known


def format_boolean(value: bool) -> str:
    """`true` or `false`."""
    return "true" if value else "false"


def number(value: str) -> int:
    """A whole number."""
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", value):
        raise ValueError(f"'{value}' is not a whole number")
    return int(value)


def required_duration(value: str) -> float:
    """Seconds of an ISO 8601 duration that is not endless."""
    seconds = parse_duration(value.strip())
    if seconds >= _NEARLY_NEVER:
        raise ValueError(f"'{value}' is too long")
    return seconds


def optional_duration(value: str) -> float | None:
    """Seconds of an ISO 8601 duration; `None` for the longest there is, which means never."""
    seconds = parse_duration(value.strip())
    return None if seconds >= _NEARLY_NEVER else seconds


def format_duration(seconds: float | None) -> str:
    """An ISO 8601 duration as .NET writes it; `None` is the longest there is."""
    if seconds is None:
        return _NEVER
    micros = round(seconds * 1_000_000)
    days, micros = divmod(micros, 86_400_000_000)
    hours, micros = divmod(micros, 3_600_000_000)
    minutes, micros = divmod(micros, 60_000_000)
    whole, fraction = divmod(micros, 1_000_000)
    clock = f"{hours}H" if hours else ""
    clock += f"{minutes}M" if minutes else ""
    if fraction:
        clock += f"{whole}.{fraction:06d}".rstrip("0") + "S"
    elif whole:
        clock += f"{whole}S"
    if not days and not clock:
        return "PT0S"
    return "P" + (f"{days}D" if days else "") + (f"T{clock}" if clock else "")


def format_time(seconds: float) -> str:
    """A point in time in UTC."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def path(value: str) -> str | None:
    """An entity's path; clients write whole URIs, and nothing for none."""
    value = value.strip()
    if "://" in value:
        value = unquote(urlsplit(value).path)
    return value.strip("/") or None


# -- values of filter properties and SQL parameters ---------------------------------------------------------


def _moment(value: str) -> datetime:
    # Before Python 3.11 neither `Z` nor seven digits of a second are understood.
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?", value.strip())
    if match is None:
        raise ValueError(f"'{value}' is not a time such as 2024-05-31T12:00:00Z")
    whole, fraction, zone = match.groups()
    micros = (fraction or ".0")[1:7].ljust(6, "0")
    moment = datetime.fromisoformat(f"{whole}.{micros}" + (zone or "Z").replace("Z", "+00:00"))
    return moment.astimezone(timezone.utc)


def _long(value: str) -> int:
    found = number(value)
    if not -(2**63) <= found < 2**63:
        raise ValueError(f"'{value}' does not fit into 64 bits")
    return found


_DECODERS: dict[str, Callable[[str], Any]] = {
    "string": str,
    "char": str,
    "guid": str,
    "anyURI": str,
    "int": _long,
    "long": _long,
    "short": _long,
    "byte": _long,
    "unsignedByte": _long,
    "unsignedShort": _long,
    "unsignedInt": _long,
    "unsignedLong": _long,
    "double": float,
    "float": float,
    "decimal": float,
    "boolean": boolean,
    "dateTime": _moment,
    "duration": lambda value: timedelta(seconds=parse_duration(value.strip())),
}


def decode_typed(kind: str, value: str) -> Any:
    """The value of a text with an XML Schema type such as `d6p1:int`; raises `ValueError`."""
    decoder = _DECODERS.get(kind.rpartition(":")[2])
    if decoder is None:
        raise ValueError(f"values of type '{kind}' are not supported")
    return decoder(value)


def encode_typed(value: object) -> tuple[str, str]:
    """The XML Schema type of a value, and its text."""
    if isinstance(value, bool):
        return "boolean", format_boolean(value)
    if isinstance(value, int):
        return "int" if -(2**31) <= value < 2**31 else "long", str(value)
    if isinstance(value, float):
        return "double", repr(value)
    if isinstance(value, datetime):
        return "dateTime", format_time(value.timestamp())
    if isinstance(value, timedelta):
        return "duration", format_duration(value.total_seconds())
    return "string", value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
