"""Composite types: described lists whose fields are checked and encoded by a table.

This module owns the machinery and the kinds of fields there are. It knows no single performative.
"""

from __future__ import annotations

from collections.abc import Callable
from reprlib import repr as shown
from typing import Any, ClassVar, NamedTuple, TypeVar

from .codec import NULL, encode, encode_fields
from .codec import encode_uint as _encode_uint
from .types import Array, DecodeError, Described, Symbol, Timestamp, UByte, ULong, UShort

__all__ = [
    "Composite",
    "Kind",
    "descriptor_of",
    "must",
    "one_of",
    # kinds of fields
    "ANY",
    "BINARY",
    "BOOLEAN",
    "MAP",
    "STRING",
    "SYMBOL",
    "SYMBOLS",
    "TIMESTAMP",
    "UBYTE",
    "UINT",
    "ULONG",
    "USHORT",
]

# The standard's symbols for the descriptors, as an alternative to the codes. Each class adds its own.
_CODES: dict[str, int] = {}

C = TypeVar("C", bound="Composite")


class Kind(NamedTuple):
    """What may stand in a field: `check` raises DecodeError or returns the value, `encode` makes bytes."""

    check: Callable[[Any], Any]
    encode: Callable[[Any], bytes]
    mandatory: bool = False


class Composite:
    """A described list. Subclasses are frozen dataclasses whose fields stand in the order of `KINDS`."""

    __slots__ = ()

    CODE: ClassVar[int]
    NAME: ClassVar[str]
    KINDS: ClassVar[tuple[Kind, ...]]

    def __init_subclass__(cls) -> None:
        if "NAME" in cls.__dict__:
            _CODES[cls.NAME] = cls.CODE

    def encode(self) -> bytes:
        """The descriptor and all fields."""
        parts = []
        names: tuple[str, ...] = self.__slots__
        for kind, name in zip(self.KINDS, names, strict=True):
            value = getattr(self, name)
            parts.append(NULL if value is None else kind.encode(value))
        return b"\x00\x53" + bytes((self.CODE,)) + encode_fields(parts)

    @classmethod
    def of(cls: type[C], values: list[Any]) -> C:
        """An instance from decoded values; DecodeError says which field is wrong."""
        kinds = cls.KINDS
        if len(values) > len(kinds):
            raise DecodeError(f"{cls.NAME} has {len(kinds)} fields, not {len(values)}")
        checked = []
        for index, kind in enumerate(kinds):
            value = values[index] if index < len(values) else None
            if value is not None:
                try:
                    value = kind.check(value)
                except DecodeError as error:
                    raise DecodeError(f"{cls.NAME}, {cls.__slots__[index]}: {error}") from None
            elif kind.mandatory:
                raise DecodeError(f"{cls.NAME}, {cls.__slots__[index]}: the field is mandatory")
            checked.append(value)
        return cls(*checked)


def descriptor_of(descriptor: Any) -> int | None:
    """The numeric code of a descriptor that is a ulong or one of the standard's symbols, else None."""
    if isinstance(descriptor, ULong):
        return int(descriptor)
    return _CODES.get(descriptor) if isinstance(descriptor, Symbol) else None


# ---------------------------------------------------------------------------------------------------------
# Kinds of fields. Integers are accepted in any integer type that holds the value: some clients are careless.


def _integer(limit: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit:
            return int(value)
        raise DecodeError(f"{shown(value)} is no integer between 0 and {limit}")

    return check


def _timestamp(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    raise DecodeError(f"{shown(value)} is no timestamp")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise DecodeError(f"{shown(value)} is no boolean")


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise DecodeError(f"{shown(value)} is no string")


def _binary(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    raise DecodeError(f"{shown(value)} is no binary")


def _map(value: Any) -> dict[Any, Any]:
    if isinstance(value, dict):
        return value
    raise DecodeError(f"{shown(value)} is no map")


def _anything(value: Any) -> Any:
    return value


def _symbols(value: Any) -> tuple[Symbol, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise DecodeError(f"{shown(value)} is neither a symbol nor an array of symbols")
    return tuple(Symbol(item) for item in items)


def _encode_symbols(value: tuple[str, ...]) -> bytes:
    return encode(Array(Symbol, value))


def _encode_composite(value: Composite) -> bytes:
    return value.encode()


def one_of(*kinds: type[Composite]) -> Kind:
    """A field that holds a composite of one of these classes."""
    by_code = {kind.CODE: kind for kind in kinds}
    names = " or ".join(kind.NAME for kind in kinds)

    def check(value: Any) -> Composite:
        if isinstance(value, kinds):
            return value
        if isinstance(value, Described) and isinstance(value.value, list):
            kind = by_code.get(descriptor_of(value.descriptor) or -1)
            if kind is not None:
                return kind.of(value.value)
        raise DecodeError(f"{shown(value)} is no {names}")

    return Kind(check, _encode_composite)


BOOLEAN = Kind(_boolean, encode)
UBYTE = Kind(_integer(0xFF), lambda value: encode(UByte(value)))
USHORT = Kind(_integer(0xFFFF), lambda value: encode(UShort(value)))
UINT = Kind(_integer(0xFFFFFFFF), _encode_uint)
ULONG = Kind(_integer(0xFFFFFFFFFFFFFFFF), lambda value: encode(ULong(value)))
STRING = Kind(_string, lambda value: encode(str(value)))
SYMBOL = Kind(_string, lambda value: encode(Symbol(value)))
SYMBOLS = Kind(_symbols, _encode_symbols)
BINARY = Kind(_binary, encode)
MAP = Kind(_map, encode)
ANY = Kind(_anything, encode)
TIMESTAMP = Kind(_timestamp, lambda value: encode(Timestamp(value)))


def must(kind: Kind) -> Kind:
    """The same kind of field, which may not be null."""
    return kind._replace(mandatory=True)
