"""AMQP 1.0 values to bytes and back.

This module owns the constructors of the AMQP type system, all of them in both directions. It knows no
frames and no performatives. Whatever the bytes say, decoding ends in a value or in DecodeError, with memory
in proportion to the bytes given: element counts are checked against the bytes that are there, and
nesting ends at `MAX_DEPTH`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from struct import error as StructError
from typing import Any
from uuid import UUID

from .types import (
    Array,
    Byte,
    Char,
    Decimal32,
    Decimal64,
    Decimal128,
    DecodeError,
    Described,
    EncodeError,
    Float32,
    Int,
    Long,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
)

__all__ = [
    "MAX_DEPTH",
    "NULL",
    "decode",
    "decode_at",
    "encode",
    "encode_fields",
    "encode_uint",
    "skip",
]

MAX_DEPTH = 64
NULL = b"\x40"

# An array of elements that have no bytes could claim any count; no encoder in use writes more than a few.
MAX_EMPTY_ELEMENTS = 16

_U16 = Struct(">H")
_U32 = Struct(">I")
_U64 = Struct(">Q")
_u16_at = _U16.unpack_from
_u32_at = _U32.unpack_from
_u64_at = _U64.unpack_from

# ---------------------------------------------------------------------------------------------------------
# Decoding: one function per constructor, (bytes, position behind the constructor, depth) -> (value, end)

Decoder = Callable[[bytes, int, int], tuple[Any, int]]


def decode(data: bytes) -> Any:
    """The one value that `data` holds; DecodeError if it is not exactly one."""
    value, end = decode_at(data, 0)
    if end != len(data):
        raise DecodeError(f"{len(data) - end} bytes are left over behind the value")
    return value


def decode_at(data: bytes, position: int, depth: int = 0) -> tuple[Any, int]:
    """The value at `position` and where it ends."""
    try:
        return _DECODERS[data[position]](data, position + 1, depth)
    except DecodeError:
        raise
    except (IndexError, StructError):
        raise DecodeError(f"the value at byte {position} is cut off") from None
    except ValueError as error:
        raise DecodeError(f"the value at byte {position} is malformed: {error}") from None


def _unknown(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    raise DecodeError(f"unknown constructor 0x{data[position - 1]:02x} at byte {position - 1}")


def _constant(value: Any) -> Decoder:
    return lambda data, position, depth: (value, position)


def _fixed(layout: str, kind: Callable[[Any], Any]) -> Decoder:
    unpack, size = Struct(layout).unpack_from, Struct(layout).size
    return lambda data, position, depth: (kind(unpack(data, position)[0]), position + size)


def _raw(size: int, kind: Callable[[bytes], Any]) -> Decoder:
    def decoder(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        end = position + size
        if end > len(data):
            raise DecodeError(f"the value at byte {position} is cut off")
        return kind(data[position:end]), end

    return decoder


def _variable(wide: bool, kind: Callable[[bytes], Any]) -> Decoder:
    def narrow_decoder(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        position += 1
        end = position + data[position - 1]
        if end > len(data):
            raise DecodeError(f"the value at byte {position} is cut off")
        return kind(data[position:end]), end

    def wide_decoder(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        end = position + 4 + _u32_at(data, position)[0]
        if end > len(data):
            raise DecodeError(f"the value at byte {position} is cut off")
        return kind(data[position + 4 : end]), end

    return wide_decoder if wide else narrow_decoder


def _boolean(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    if data[position] > 1:
        raise DecodeError(f"0x{data[position]:02x} at byte {position} is no boolean")
    return data[position] == 1, position + 1


def _char(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    code_point = _u32_at(data, position)[0]
    if code_point > 0x10FFFF:
        raise DecodeError(f"0x{code_point:x} at byte {position} is no Unicode character")
    return Char(chr(code_point)), position + 4


def _text(data: bytes) -> str:
    return str(data, "utf-8")


def _symbol(data: bytes) -> Symbol:
    return Symbol(data, "ascii")


def _uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


def _compound(data: bytes, position: int, depth: int, wide: bool) -> tuple[int, int, int]:
    """Where the elements of a list, map or array begin, where they end, how many there are."""
    if depth >= MAX_DEPTH:
        raise DecodeError(f"values are nested more than {MAX_DEPTH} deep at byte {position}")
    if wide:
        end = position + 4 + _u32_at(data, position)[0]
        count = _u32_at(data, position + 4)[0]
        position += 8
    else:
        end = position + 1 + data[position]
        count = data[position + 1]
        position += 2
    if end > len(data) or position > end:
        raise DecodeError(f"the compound value at byte {position} is cut off")
    return position, end, count


def _list(wide: bool) -> Decoder:
    def decoder(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        position, end, count = _compound(data, position, depth, wide)
        if count > end - position:
            raise DecodeError(f"a list claims {count} elements in {end - position} bytes")
        depth += 1
        items = []
        decoders = _DECODERS
        for _ in range(count):
            item, position = decoders[data[position]](data, position + 1, depth)
            items.append(item)
        if position != end:
            raise DecodeError(f"the elements of a list end at byte {position}, the list at byte {end}")
        return items, end

    return decoder


def _map(wide: bool) -> Decoder:
    def decoder(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        position, end, count = _compound(data, position, depth, wide)
        if count & 1 or count > end - position:
            raise DecodeError(f"a map claims {count} keys and values in {end - position} bytes")
        depth += 1
        items: dict[Any, Any] = {}
        decoders = _DECODERS
        for _ in range(count >> 1):
            key, position = decoders[data[position]](data, position + 1, depth)
            value, position = decoders[data[position]](data, position + 1, depth)
            try:
                items[key] = value
            except TypeError:
                raise DecodeError(f"a {type(key).__name__} is the key of a map at byte {position}") from None
        if position != end:
            raise DecodeError(f"the elements of a map end at byte {position}, the map at byte {end}")
        return items, end

    return decoder


def _array(wide: bool) -> Decoder:
    def decoder(data: bytes, position: int, depth: int) -> tuple[Any, int]:
        position, end, count = _compound(data, position, depth, wide)
        descriptor = None
        depth += 1
        if not count and position == end:  # without even a constructor: malformed, but clear
            return Array(type(None)), end
        if data[position] == 0:
            descriptor, position = _DECODERS[data[position + 1]](data, position + 2, depth)
        code = data[position]
        position += 1
        of = _ARRAY_TYPES.get(code)
        if of is None:
            raise DecodeError(f"0x{code:02x} at byte {position - 1} is no constructor for array elements")
        width = _WIDTHS[code]
        if count * width > end - position or (not width and count > MAX_EMPTY_ELEMENTS):
            raise DecodeError(f"an array claims {count} elements in {end - position} bytes")
        element = _DECODERS[code]
        items = []
        for _ in range(count):
            item, position = element(data, position, depth)
            items.append(item)
        if position != end:
            raise DecodeError(f"the elements of an array end at byte {position}, the array at byte {end}")
        return Array(of, items, descriptor), end

    return decoder


def _described(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    if depth >= MAX_DEPTH:
        raise DecodeError(f"values are nested more than {MAX_DEPTH} deep at byte {position}")
    descriptor, position = _DECODERS[data[position]](data, position + 1, depth + 1)
    value, position = _DECODERS[data[position]](data, position + 1, depth + 1)
    return Described(descriptor, value), position


def _empty_list(data: bytes, position: int, depth: int) -> tuple[Any, int]:
    return [], position


_CONSTRUCTORS: dict[int, tuple[type[Any], Decoder]] = {
    0x40: (type(None), _constant(None)),
    0x41: (bool, _constant(True)),
    0x42: (bool, _constant(False)),
    0x43: (UInt, _constant(UInt(0))),
    0x44: (ULong, _constant(ULong(0))),
    0x45: (list, _empty_list),
    0x50: (UByte, _fixed(">B", UByte)),
    0x51: (Byte, _fixed(">b", Byte)),
    0x52: (UInt, _fixed(">B", UInt)),
    0x53: (ULong, _fixed(">B", ULong)),
    0x54: (Int, _fixed(">b", Int)),
    0x55: (Long, _fixed(">b", Long)),
    0x56: (bool, _boolean),
    0x60: (UShort, _fixed(">H", UShort)),
    0x61: (Short, _fixed(">h", Short)),
    0x70: (UInt, _fixed(">I", UInt)),
    0x71: (Int, _fixed(">i", Int)),
    0x72: (Float32, _fixed(">f", Float32)),
    0x73: (Char, _char),
    0x74: (Decimal32, _raw(4, Decimal32)),
    0x80: (ULong, _fixed(">Q", ULong)),
    0x81: (Long, _fixed(">q", Long)),
    0x82: (float, _fixed(">d", float)),
    0x83: (Timestamp, _fixed(">q", Timestamp)),
    0x84: (Decimal64, _raw(8, Decimal64)),
    0x94: (Decimal128, _raw(16, Decimal128)),
    0x98: (UUID, _raw(16, _uuid)),
    0xA0: (bytes, _variable(False, bytes)),
    0xA1: (str, _variable(False, _text)),
    0xA3: (Symbol, _variable(False, _symbol)),
    0xB0: (bytes, _variable(True, bytes)),
    0xB1: (str, _variable(True, _text)),
    0xB3: (Symbol, _variable(True, _symbol)),
    0xC0: (list, _list(False)),
    0xC1: (dict, _map(False)),
    0xD0: (list, _list(True)),
    0xD1: (dict, _map(True)),
    0xE0: (Array, _array(False)),
    0xF0: (Array, _array(True)),
}

# The high nibble of a constructor says how long its value is: that many bytes, or a length of that many.
_FIXED_WIDTH = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
_LENGTH_WIDTH = {0xA: 1, 0xB: 4, 0xC: 1, 0xD: 4, 0xE: 1, 0xF: 4}

_DECODERS: list[Decoder] = [
    _CONSTRUCTORS[code][1] if code in _CONSTRUCTORS else _unknown for code in range(256)
]
_DECODERS[0x00] = _described
_ARRAY_TYPES: dict[int, type[Any]] = {code: kind for code, (kind, _) in _CONSTRUCTORS.items()}
_WIDTHS: list[int] = [_FIXED_WIDTH.get(code >> 4, _LENGTH_WIDTH.get(code >> 4, 0)) for code in range(256)]


def skip(data: bytes, position: int) -> int:
    """Where the value at `position` ends, without decoding it."""
    try:
        code = data[position]
        described = 0
        while code == 0:
            described += 1
            # A described descriptor means nothing anywhere; refusing it keeps this function flat.
            if described > MAX_DEPTH or data[position + 1] == 0:
                raise DecodeError(f"values are nested more than {MAX_DEPTH} deep at byte {position}")
            position = skip(data, position + 1)
            code = data[position]
        category = code >> 4
        if category < 4:
            raise DecodeError(f"unknown constructor 0x{code:02x} at byte {position}")
        if category < 0xA:
            end = position + 1 + _WIDTHS[code]
        elif _WIDTHS[code] == 1:
            end = position + 2 + data[position + 1]
        else:
            end = position + 5 + _u32_at(data, position + 1)[0]
    except (IndexError, StructError):
        raise DecodeError(f"the value at byte {position} is cut off") from None
    if end > len(data):
        raise DecodeError(f"the value at byte {position} is cut off")
    return end


# ---------------------------------------------------------------------------------------------------------
# Encoding: by the exact type of the value, or of the nearest of its bases


def encode(value: Any) -> bytes:
    """The bytes of a value, in the shortest form; longs always in the long form of 8 bytes.

    The JavaScript client reads short longs as numbers and long ones as buffers and expects the latter.
    """
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        encoder = _encoder_of_base(value)
    try:
        return encoder(value)
    except (StructError, OverflowError):
        raise EncodeError(f"{value!r} is out of range for {type(value).__name__}") from None
    except UnicodeEncodeError as error:
        raise EncodeError(f"{value!r} cannot be encoded: {error.reason}") from None


def encode_fields(fields: Iterable[bytes]) -> bytes:
    """A list of values that are encoded already, never in the form of list0: some clients index into it."""
    parts = list(fields)
    body = b"".join(parts)
    if len(body) < 255 and len(parts) < 256:
        return bytes((0xC0, len(body) + 1, len(parts))) + body
    return b"\xd0" + _U32.pack(len(body) + 4) + _U32.pack(len(parts)) + body


def encode_uint(value: int) -> bytes:
    """A uint, in the shortest of its three forms."""
    if value == 0:
        return b"\x43"
    if 0 < value < 256:
        return bytes((0x52, value))
    return b"\x70" + _U32.pack(value)


def _encode_ulong(value: int) -> bytes:
    if value == 0:
        return b"\x44"
    if 0 < value < 256:
        return bytes((0x53, value))
    return b"\x80" + _U64.pack(value)


def _encode_int(value: int) -> bytes:
    if -128 <= value < 128:
        return bytes((0x54, value & 0xFF))
    return b"\x71" + _INT.pack(value)


def _encode_fixed(code: int, layout: str) -> Callable[[Any], bytes]:
    constructor, pack = bytes((code,)), Struct(layout).pack
    return lambda value: constructor + pack(value)


def _encode_variable(code: int, to_bytes: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def encoder(value: Any) -> bytes:
        data = to_bytes(value)
        if len(data) < 256:
            return bytes((code, len(data))) + data
        return bytes((code + 0x10,)) + _U32.pack(len(data)) + data

    return encoder


def _encode_list(value: Any) -> bytes:
    if not value:
        return b"\x45"
    return encode_fields([encode(item) for item in value])


def _encode_map(value: Any) -> bytes:
    parts = []
    for key, item in value.items():
        parts.append(encode(key))
        parts.append(encode(item))
    body = b"".join(parts)
    if len(body) < 255 and len(parts) < 256:
        return bytes((0xC1, len(body) + 1, len(parts))) + body
    return b"\xd1" + _U32.pack(len(body) + 4) + _U32.pack(len(parts)) + body


def _encode_array(value: Array) -> bytes:
    code, element = _ELEMENTS.get(value.of, (None, None))
    if code is None or element is None:
        raise EncodeError(f"{value.of.__name__} is no type for the elements of an AMQP array")
    if not _WIDTHS[code] and len(value) > MAX_EMPTY_ELEMENTS:
        raise EncodeError(f"an array of nulls holds at most {MAX_EMPTY_ELEMENTS}")
    head = b"" if value.descriptor is None else b"\x00" + encode(value.descriptor)
    body = head + bytes((code,)) + b"".join([element(item) for item in value])
    if len(body) < 255 and len(value) < 256:
        return bytes((0xE0, len(body) + 1, len(value))) + body
    return b"\xf0" + _U32.pack(len(body) + 4) + _U32.pack(len(value)) + body


def _encode_described(value: Described) -> bytes:
    return b"\x00" + encode(value.descriptor) + encode(value.value)


def _encoder_of_base(value: Any) -> Callable[[Any], bytes]:
    for base in type(value).__mro__[1:]:
        encoder = _ENCODERS.get(base)
        if encoder is not None:
            return encoder
    raise EncodeError(f"{type(value).__name__} has no AMQP type: {value!r}")


def _decimal(size: int) -> Callable[[bytes], bytes]:
    def to_bytes(value: bytes) -> bytes:
        if len(value) != size:
            raise EncodeError(f"{value!r} is not a decimal of {size} bytes")
        return bytes(value)

    return to_bytes


def _char_to_bytes(value: str) -> bytes:
    if len(value) != 1:
        raise EncodeError(f"{value!r} is not one character")
    return _U32.pack(ord(value))


def _wide(to_bytes: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def encoder(value: Any) -> bytes:
        data = to_bytes(value)
        return _U32.pack(len(data)) + data

    return encoder


def _wide_compound(encoder: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """The form with 4-byte size and count and without constructor, as it stands inside an array."""

    def element(value: Any) -> bytes:
        encoded = encoder(value)
        if encoded[0] == 0x45:
            return b"\x00\x00\x00\x04\x00\x00\x00\x00"
        if encoded[0] < 0xD0 or encoded[0] == 0xE0:
            return _U32.pack(encoded[1] + 3) + _U32.pack(encoded[2]) + encoded[3:]
        return encoded[1:]

    return element


def _utf8(value: str) -> bytes:
    return value.encode("utf-8")


def _ascii(value: str) -> bytes:
    return value.encode("ascii")


def _uuid_bytes(value: UUID) -> bytes:
    return value.bytes


def _constructor(code: int, to_bytes: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    constructor = bytes((code,))
    return lambda value: constructor + to_bytes(value)


_INT = Struct(">i")

_ENCODERS: dict[type[Any], Callable[[Any], bytes]] = {
    type(None): lambda value: NULL,
    bool: lambda value: b"\x41" if value else b"\x42",
    UByte: _encode_fixed(0x50, ">B"),
    UShort: _encode_fixed(0x60, ">H"),
    UInt: encode_uint,
    ULong: _encode_ulong,
    Byte: _encode_fixed(0x51, ">b"),
    Short: _encode_fixed(0x61, ">h"),
    Int: _encode_int,
    Long: _encode_fixed(0x81, ">q"),
    int: _encode_fixed(0x81, ">q"),
    Float32: _encode_fixed(0x72, ">f"),
    float: _encode_fixed(0x82, ">d"),
    Decimal32: _constructor(0x74, _decimal(4)),
    Decimal64: _constructor(0x84, _decimal(8)),
    Decimal128: _constructor(0x94, _decimal(16)),
    Char: _constructor(0x73, _char_to_bytes),
    Timestamp: _encode_fixed(0x83, ">q"),
    UUID: _constructor(0x98, _uuid_bytes),
    bytes: _encode_variable(0xA0, bytes),
    bytearray: _encode_variable(0xA0, bytes),
    memoryview: _encode_variable(0xA0, bytes),
    str: _encode_variable(0xA1, _utf8),
    Symbol: _encode_variable(0xA3, _ascii),
    list: _encode_list,
    tuple: _encode_list,
    dict: _encode_map,
    Array: _encode_array,
    Described: _encode_described,
}

# What stands in an array: the widest constructor of the type, so that every value of it fits.
_ELEMENTS: dict[type[Any], tuple[int, Callable[[Any], bytes]]] = {
    type(None): (0x40, lambda value: b""),
    bool: (0x56, lambda value: b"\x01" if value else b"\x00"),
    UByte: (0x50, Struct(">B").pack),
    UShort: (0x60, _U16.pack),
    UInt: (0x70, _U32.pack),
    ULong: (0x80, _U64.pack),
    Byte: (0x51, Struct(">b").pack),
    Short: (0x61, Struct(">h").pack),
    Int: (0x71, _INT.pack),
    Long: (0x81, Struct(">q").pack),
    Float32: (0x72, Struct(">f").pack),
    float: (0x82, Struct(">d").pack),
    Decimal32: (0x74, _decimal(4)),
    Decimal64: (0x84, _decimal(8)),
    Decimal128: (0x94, _decimal(16)),
    Char: (0x73, _char_to_bytes),
    Timestamp: (0x83, Struct(">q").pack),
    UUID: (0x98, _uuid_bytes),
    bytes: (0xB0, _wide(bytes)),
    str: (0xB1, _wide(_utf8)),
    Symbol: (0xB3, _wide(_ascii)),
    list: (0xD0, _wide_compound(_encode_list)),
    dict: (0xD1, _wide_compound(_encode_map)),
    Array: (0xF0, _wide_compound(_encode_array)),
}
