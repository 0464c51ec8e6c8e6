"""Values to bytes and back."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbrpc.emulator.amqp.codec import MAX_DEPTH, decode, decode_at, encode, encode_fields, skip
from sbrpc.emulator.amqp.types import (
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


def signed(kind: type[int], bits: int) -> st.SearchStrategy[Any]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).map(kind)


def unsigned(kind: type[int], bits: int) -> st.SearchStrategy[Any]:
    return st.integers(0, 2**bits - 1).map(kind)


texts = st.text(st.characters(codec="utf-8"))
symbols = st.text(st.characters(codec="ascii")).map(Symbol)

SCALARS: dict[type[Any], st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    UByte: unsigned(UByte, 8),
    UShort: unsigned(UShort, 16),
    UInt: unsigned(UInt, 32),
    ULong: unsigned(ULong, 64),
    Byte: signed(Byte, 8),
    Short: signed(Short, 16),
    Int: signed(Int, 32),
    Long: signed(Long, 64),
    Timestamp: signed(Timestamp, 64),
    Float32: st.floats(width=32, allow_nan=False).map(Float32),
    float: st.floats(allow_nan=False),
    Decimal32: st.binary(min_size=4, max_size=4).map(Decimal32),
    Decimal64: st.binary(min_size=8, max_size=8).map(Decimal64),
    Decimal128: st.binary(min_size=16, max_size=16).map(Decimal128),
    Char: st.characters(codec="utf-8").map(Char),
    UUID: st.uuids(),
    bytes: st.binary(max_size=300),
    str: texts,
    Symbol: symbols,
}

scalars = st.one_of(st.none(), *SCALARS.values())
described_by = st.one_of(unsigned(ULong, 64), symbols)


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any] | None = None) -> Array:
    """Arrays of any one type, sometimes of described values."""
    kinds: dict[type[Any], st.SearchStrategy[Any]] = dict(SCALARS)
    if inner is not None:
        kinds[list] = st.lists(inner, max_size=3)
        kinds[dict] = st.dictionaries(symbols, inner, max_size=3)
        kinds[Array] = arrays()
    of = draw(st.sampled_from(list(kinds)))
    return Array(of, draw(st.lists(kinds[of], max_size=5)), draw(st.none() | described_by))


values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(scalars, inner, max_size=5),
        arrays(inner),
        st.builds(Described, described_by, inner),
    ),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equal in value and in AMQP type, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, Array):
        return (
            left.of is right.of and same(left.descriptor, right.descriptor) and same(list(left), list(right))
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, tuple):
        return all(map(same, left, right))
    if isinstance(left, Described):
        return same(left.descriptor, right.descriptor) and same(left.value, right.value)
    return bool(left == right)


@given(values)
def test_values_keep_their_value_and_type(value: Any) -> None:
    """Decoding what was encoded gives the same value of the same AMQP type."""
    encoded = encode(value)
    assert same(decode(encoded), value)


@given(values)
def test_encoding_again_gives_the_same_bytes(value: Any) -> None:
    """What has been decoded is encoded to the bytes that the engine would have chosen."""
    encoded = encode(value)
    assert encode(decode(encoded)) == encoded


@given(values)
def test_skip_ends_where_decode_ends(value: Any) -> None:
    """Skipping a value finds the same end as decoding it."""
    encoded = b"\x40" + encode(value) + b"\x40"
    assert skip(encoded, 1) == decode_at(encoded, 1)[1] == len(encoded) - 1


@given(values, st.data())
def test_cut_off_values_are_refused(value: Any, data: st.DataObject) -> None:
    """No proper beginning of a value is a value."""
    encoded = encode(value)
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    with pytest.raises(DecodeError):
        decode(cut)
    with pytest.raises(DecodeError):
        skip(cut, 0)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_decode_error(data: bytes) -> None:
    """Random bytes are a value or a DecodeError, for decode and skip."""
    with suppress(DecodeError):
        decode(data)
    with suppress(DecodeError):
        skip(data, 0)


@given(values, st.data())
def test_damaged_values_decode_or_raise_decode_error(value: Any, data: st.DataObject) -> None:
    """A value with one byte changed is another value or a DecodeError."""
    encoded = bytearray(encode(value))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DecodeError):
        decode(bytes(encoded))


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        ("40", None),
        ("41", True),
        ("42", False),
        ("5601", True),
        ("5600", False),
        ("50ff", UByte(255)),
        ("60ffff", UShort(65535)),
        ("43", UInt(0)),
        ("5207", UInt(7)),
        ("7000000007", UInt(7)),
        ("44", ULong(0)),
        ("5307", ULong(7)),
        ("800000000000000007", ULong(7)),
        ("51ff", Byte(-1)),
        ("61ffff", Short(-1)),
        ("54ff", Int(-1)),
        ("71ffffffff", Int(-1)),
        ("55ff", Long(-1)),
        ("81ffffffffffffffff", Long(-1)),
        ("723f800000", Float32(1.0)),
        ("823ff0000000000000", 1.0),
        ("7401020304", Decimal32(b"\1\2\3\4")),
        ("840102030405060708", Decimal64(bytes(range(1, 9)))),
        ("94" + "01" * 16, Decimal128(b"\1" * 16)),
        ("7300000041", Char("A")),
        ("830000000000000001", Timestamp(1)),
        ("98" + "00" * 15 + "01", UUID(int=1)),
        ("a0020102", b"\1\2"),
        ("b0000000020102", b"\1\2"),
        ("a102c3bc", "ü"),
        ("b100000002c3bc", "ü"),
        ("a30161", Symbol("a")),
        ("b30000000161", Symbol("a")),
        ("45", []),
        ("c0020140", [None]),
        ("d0000000050000000140", [None]),
        ("c10402540141", {Int(1): True}),
        ("d10000000700000002540141", {Int(1): True}),
        ("e00402500102", Array(UByte, [UByte(1), UByte(2)])),
        ("f00000000700000002500102", Array(UByte, [UByte(1), UByte(2)])),
        ("e00100", Array(type(None))),
        ("e0080200a30161500102", Array(UByte, [UByte(1), UByte(2)], Symbol("a"))),
        ("00a3016141", Described(Symbol("a"), True)),
    ],
)
def test_every_constructor_is_understood(encoded: str, value: Any) -> None:
    """Each constructor of the standard decodes to a value of its type."""
    assert same(decode(bytes.fromhex(encoded)), value)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (Int(202), "71000000ca"),
        (5, "810000000000000005"),
        (Long(5), "810000000000000005"),
        (UUID(int=1), "98" + "00" * 15 + "01"),
        (Timestamp(1), "830000000000000001"),
        ([], "45"),
        ({}, "c10100"),
        (ULong(0x24), "5324"),
        (UInt(0), "43"),
        (UInt(255), "52ff"),
        (UInt(256), "7000000100"),
        (Int(-128), "5480"),
        (Int(-129), "71ffffff7f"),
        ((True, None), "c003024140"),
        (bytearray(b"a"), "a00161"),
        (Array(Long, [1]), "e00a01810000000000000001"),
        (Array(int, []), "e0020081"),
    ],
)
def test_bytes_that_clients_depend_on(value: Any, encoded: str) -> None:
    """Longs take eight bytes, status codes are ints, small values take the short form."""
    assert encode(value).hex() == encoded


def test_a_subclass_is_encoded_as_its_base() -> None:
    """A type the codec does not know is encoded as the nearest base it knows."""

    class Name(str):
        pass

    assert encode(Name("x")) == encode("x")


@pytest.mark.parametrize(
    "value",
    [
        UByte(256),
        UInt(-1),
        UInt(2**32),
        ULong(2**64),
        Int(2**31),
        2**63,
        Float32(1e300),
        Char("ab"),
        Decimal32(b"1"),
        Symbol("ü"),
        "\ud800",
        object(),
        Array(object, [1]),
        Array(type(None), [None] * 17),
    ],
)
def test_what_amqp_cannot_hold_is_an_encode_error(value: Any) -> None:
    """A value out of range, or of no AMQP type, raises EncodeError and names the value."""
    with pytest.raises(EncodeError):
        encode(value)


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "01",
        "3f",
        "5602",
        "7300110000",
        "a301ff",
        "a101ff",
        "c000",
        "c0010240",
        "c003014040",
        "c1020140",
        "c1030145",
        "c103024540",
        "c104024540",
        "d0ffffffff00000000",
        "d0000000040000ffff",
        "e003025001",
        "e00401500102",
        "e0020150",
        "e00301ff00",
        "e003010000",
        "e00301c000",
        "f0000000050000001140",
        "f0000000050000001145",
        "4040",
        "00",
        "0040",
    ],
)
def test_malformed_values_are_refused(encoded: str) -> None:
    """Wrong sizes, counts, keys, constructors and leftovers raise DecodeError."""
    with pytest.raises(DecodeError):
        decode(bytes.fromhex(encoded))


@pytest.mark.parametrize(
    "wrap", [lambda inner: encode_fields([inner]), lambda inner: b"\x00\xa3\x01a" + inner]
)
def test_nesting_is_limited(wrap: Any) -> None:
    """Nesting up to the limit decodes, one level more is refused before Python's own limit is near."""
    value = b"\x40"
    for _ in range(MAX_DEPTH):
        value = wrap(value)
    decode(value)
    with pytest.raises(DecodeError):
        decode(wrap(value))


def test_endless_descriptors_are_refused() -> None:
    """Descriptors of descriptors end in DecodeError, alone and as the constructor of an array."""
    with pytest.raises(DecodeError):
        decode(b"\x00" * 5000)
    with pytest.raises(DecodeError):
        skip(b"\x00" * 5000, 0)
    with pytest.raises(DecodeError):
        decode(b"\xf0\x00\x00\x13\x88\x00\x00\x00\x01" + b"\x00" * 5000)


def test_counts_are_checked_before_memory_is_taken() -> None:
    """A count of billions over a few bytes is refused at once, whatever the elements are."""
    for constructor in (0xD0, 0xD1, 0xF0):
        for element in (0x40, 0x43, 0x45, 0x50, 0xA0):
            body = struct.pack(">I", 0xFFFFFFFE) + bytes((element,)) + b"\x00" * 20
            with pytest.raises(DecodeError):
                decode(bytes((constructor,)) + struct.pack(">I", len(body)) + body)


def test_not_a_number_survives() -> None:
    """NaN decodes as NaN in both widths."""
    assert math.isnan(decode(encode(float("nan"))))
    assert type(decode(encode(Float32("nan")))) is Float32


def test_values_say_what_they_are() -> None:
    """Arrays and described values compare by content and type, and have a repr that says so."""
    assert Array(int, [1]) == Array(Long, [1])
    assert Array(Long, [1]) != Array(Int, [1])
    assert Array(Long, [1]) == [1]
    assert Described(Symbol("a"), 1) != 1
    assert hash(Described(Symbol("a"), 1)) == hash(Described(Symbol("a"), 1))
    assert repr(Array(Long, [1], Symbol("d"))) == "Array(Long, [1], descriptor='d')"
    assert repr(Described(Symbol("a"), 1)) == "Described('a', 1)"
