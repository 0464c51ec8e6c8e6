"""The AMQP types that Python has no type of its own for.

This module owns the vocabulary of values: thin subclasses that remember which AMQP type a value had, so
that what was decoded is encoded as the same type again. It knows no bytes and no performatives.

    null None · boolean bool · long int (or Long) · double float · binary bytes · string str · list list
    map dict · uuid uuid.UUID; everything else has a class here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = [
    "Array",
    "Byte",
    "Char",
    "Decimal32",
    "Decimal64",
    "Decimal128",
    "DecodeError",
    "Described",
    "EncodeError",
    "Float32",
    "Int",
    "Long",
    "Short",
    "Symbol",
    "Timestamp",
    "UByte",
    "UInt",
    "ULong",
    "UShort",
]


class DecodeError(ValueError):
    """Bytes from a peer that are not AMQP."""


class EncodeError(ValueError):
    """A value that its AMQP type cannot hold, or that has no AMQP type: fix the caller."""


class UByte(int):
    """ubyte: 8 bits, unsigned."""

    __slots__ = ()


class UShort(int):
    """ushort: 16 bits, unsigned."""

    __slots__ = ()


class UInt(int):
    """uint: 32 bits, unsigned."""

    __slots__ = ()


class ULong(int):
    """ulong: 64 bits, unsigned."""

    __slots__ = ()


class Byte(int):
    """byte: 8 bits, signed."""

    __slots__ = ()


class Short(int):
    """short: 16 bits, signed."""

    __slots__ = ()


class Int(int):
    """int: 32 bits, signed."""

    __slots__ = ()


class Long(int):
    """long: 64 bits, signed. A plain `int` is encoded the same way."""

    __slots__ = ()


class Timestamp(int):
    """timestamp: milliseconds since 1970-01-01 UTC."""

    __slots__ = ()


class Float32(float):
    """float: 32 bits. A plain `float` is a double."""

    __slots__ = ()


class Char(str):
    """char: one Unicode character."""

    __slots__ = ()


class Symbol(str):
    """symbol: an ASCII name from a constrained domain."""

    __slots__ = ()


class Decimal32(bytes):
    """decimal32, as it stands on the wire: 4 bytes."""

    __slots__ = ()


class Decimal64(bytes):
    """decimal64, as it stands on the wire: 8 bytes."""

    __slots__ = ()


class Decimal128(bytes):
    """decimal128, as it stands on the wire: 16 bytes."""

    __slots__ = ()


class Described:
    """A value with a descriptor (a symbol or a ulong) that says what the value means."""

    __slots__ = ("descriptor", "value")

    def __init__(self, descriptor: Any, value: Any) -> None:
        self.descriptor = descriptor
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Described):
            return NotImplemented
        return bool(self.descriptor == other.descriptor and self.value == other.value)

    def __hash__(self) -> int:
        return hash((self.descriptor, self.value))

    def __repr__(self) -> str:
        return f"Described({self.descriptor!r}, {self.value!r})"


class Array(list[Any]):
    """An AMQP array: values of one type `of`; with a `descriptor`, each is described by it.

    It equals a list of the same values, and an array only if types and descriptors are the same too.
    """

    __slots__ = ("descriptor", "of")

    def __init__(self, of: type[Any], items: Iterable[Any] = (), descriptor: Any = None) -> None:
        super().__init__(items)
        self.of: type[Any] = Long if of is int else of
        self.descriptor = descriptor

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array):
            return list.__eq__(self, other)
        return self.of is other.of and self.descriptor == other.descriptor and list.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # mutable, like the list it is

    def __repr__(self) -> str:
        described = f", descriptor={self.descriptor!r}" if self.descriptor is not None else ""
        return f"Array({self.of.__name__}, {list(self)!r}{described})"
