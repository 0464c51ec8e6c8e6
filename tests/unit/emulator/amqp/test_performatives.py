"""Field lists of performatives, terminus and delivery states."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbrpc.emulator.amqp import performatives as p
from sbrpc.emulator.amqp.codec import decode
from sbrpc.emulator.amqp.composites import Composite, descriptor_of
from sbrpc.emulator.amqp.sections import Header, Properties
from sbrpc.emulator.amqp.types import DecodeError, Described, Symbol, ULong

uints = st.integers(0, 2**32 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=300)
symbols = st.text(st.characters(codec="ascii"), min_size=1, max_size=20).map(Symbol)
maps = st.dictionaries(symbols, texts | uints.map(ULong), max_size=3)
maybe = st.none

errors = st.builds(p.Error, symbols, maybe() | texts, maybe() | maps)
sources = st.builds(
    p.Source,
    maybe() | texts,
    maybe() | uints,
    maybe() | symbols,
    filter=maybe() | maps,
    dynamic=maybe() | st.booleans(),
)
targets = st.builds(p.Target, maybe() | texts, maybe() | uints) | st.builds(p.Coordinator)
outcomes = st.one_of(
    st.just(p.ACCEPTED),
    st.just(p.RELEASED),
    st.builds(p.Rejected, maybe() | errors),
    st.builds(p.Modified, maybe() | st.booleans(), maybe() | st.booleans(), maybe() | maps),
)
states = outcomes | st.builds(p.Received, uints, uints)
many = maybe() | st.lists(symbols, max_size=3).map(tuple)

COMPOSITES: dict[type[Composite], st.SearchStrategy[Composite]] = {
    p.Open: st.builds(
        p.Open,
        container_id=texts,
        hostname=maybe() | texts,
        max_frame_size=maybe() | uints,
        channel_max=maybe() | st.integers(0, 65535),
        offered_capabilities=many,
        properties=maybe() | maps,
    ),
    p.Begin: st.builds(p.Begin, maybe() | st.integers(0, 65535), uints, uints, uints, maybe() | uints),
    p.Attach: st.builds(
        p.Attach,
        name=texts,
        handle=uints,
        role=st.booleans(),
        snd_settle_mode=maybe() | st.integers(0, 2),
        source=maybe() | sources,
        target=maybe() | targets,
        max_message_size=maybe() | st.integers(0, 2**64 - 1),
        properties=maybe() | maps,
    ),
    p.Flow: st.builds(
        p.Flow, maybe() | uints, uints, uints, uints, maybe() | uints, drain=maybe() | st.booleans()
    ),
    p.Transfer: st.builds(
        p.Transfer, uints, maybe() | uints, maybe() | st.binary(max_size=32), state=maybe() | states
    ),
    p.Disposition: st.builds(
        p.Disposition, st.booleans(), uints, maybe() | uints, st.booleans(), maybe() | states
    ),
    p.Detach: st.builds(p.Detach, uints, maybe() | st.booleans(), maybe() | errors),
    p.End: st.builds(p.End, maybe() | errors),
    p.Close: st.builds(p.Close, maybe() | errors),
    p.SaslMechanisms: st.builds(p.SaslMechanisms, st.lists(symbols, max_size=4).map(tuple)),
    p.SaslInit: st.builds(p.SaslInit, symbols, maybe() | st.binary(), maybe() | texts),
    p.SaslOutcome: st.builds(p.SaslOutcome, st.integers(0, 4), maybe() | st.binary()),
    Header: st.builds(Header, maybe() | st.booleans(), maybe() | st.integers(0, 255), maybe() | uints),
    Properties: st.builds(Properties, maybe() | texts | st.uuids() | st.binary(), to=maybe() | texts),
}


@given(st.one_of(*COMPOSITES.values()))
def test_composites_survive_the_wire(composite: Composite) -> None:
    """A composite that is encoded and decoded is the same composite."""
    described = decode(composite.encode())
    assert isinstance(described, Described)
    assert descriptor_of(described.descriptor) == composite.CODE
    assert type(composite).of(described.value) == composite


@given(st.one_of(*COMPOSITES.values(), errors, sources, targets))
def test_all_fields_are_written(composite: Composite) -> None:
    """Trailing nulls are written too, and the descriptor is a smallulong: clients rely on both."""
    encoded = composite.encode()
    assert encoded[:3] == bytes((0, 0x53, composite.CODE))
    assert encoded[3] in (0xC0, 0xD0)
    assert len(decode(encoded).value) == len(fields(composite))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        *((p.Open, 10), (p.Begin, 8), (p.Attach, 14), (p.Source, 11), (p.Target, 7), (p.Flow, 11)),
        *((p.Transfer, 11), (p.Disposition, 6), (p.Detach, 3), (p.End, 1), (p.Close, 1), (p.Error, 3)),
    ],
)
def test_field_counts_are_those_of_the_standard(kind: type[Composite], count: int) -> None:
    """Each list has as many fields as AMQP 1.0 gives it."""
    assert len(kind.KINDS) == len(kind.__slots__) == count


@pytest.mark.parametrize(
    ("outcome", "encoded"),
    [
        (p.ACCEPTED, "00532445"),
        (p.RELEASED, "00532645"),
        (p.Rejected(), "00532545"),
        (p.Modified(), "00532745"),
        (p.Rejected(p.Error("a:b", "c")), "005325c0100100531dc00a03a303613a62a1016340"),
        (p.Modified(True, False), "005327c00403414240"),
    ],
)
def test_outcomes_have_the_bytes_clients_know(outcome: p.Outcome, encoded: str) -> None:
    """Outcomes without content are empty lists, and an error always has three elements."""
    assert outcome.encode().hex() == encoded


def test_one_symbol_may_stand_for_an_array() -> None:
    """A field of several symbols accepts a single one."""
    assert p.SaslMechanisms.of([Symbol("PLAIN")]).mechanisms == ("PLAIN",)


def test_symbolic_descriptors_are_understood() -> None:
    """The standard's symbols stand for the codes."""
    state = Described(Symbol("amqp:accepted:list"), [])
    assert p.Disposition.of([True, 0, None, True, state]).state == p.ACCEPTED
    assert descriptor_of(Symbol("nonsense")) is None
    assert descriptor_of("amqp:accepted:list") is None


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (p.Open, [], "container_id"),
        (p.Open, [5], "container_id"),
        (p.Open, ["c", None, -1], "max_frame_size"),
        (p.Open, ["c", None, True], "max_frame_size"),
        (p.Open, ["c", None, None, 65536], "channel_max"),
        (p.Open, ["c", *[None] * 4, 5], "outgoing_locales"),
        (p.Open, ["c", *[None] * 8, []], "properties"),
        (p.Attach, ["n", 1, 1], "role"),
        (p.Attach, ["n", 1, True, None, None, "source"], "source"),
        (p.Attach, ["n", 1, True, None, None, Described(ULong(0x29), [])], "source"),
        (p.Attach, ["n", 1, True, None, None, Described(ULong(0x28), {})], "source"),
        (p.Transfer, [1, 1, "tag"], "delivery_tag"),
        (p.Disposition, [True, 0, None, True, Described(ULong(0x34), [])], "state"),
        (Properties, [*[None] * 8, "tomorrow"], "absolute_expiry_time"),
    ],
)
def test_wrong_fields_are_named(kind: type[Composite], values: list[object], field: str) -> None:
    """A field of the wrong type, out of range or missing raises DecodeError with its name."""
    with pytest.raises(DecodeError, match=field):
        kind.of(values)


def test_too_many_fields_are_refused() -> None:
    """A list with more fields than the standard gives it raises DecodeError."""
    with pytest.raises(DecodeError, match="1 fields, not 2"):
        p.End.of([None, None])


def test_codes_lead_to_classes() -> None:
    """Every performative is found by its code, and nothing by another."""
    assert p.by_code(0x10) is p.Open
    assert p.by_code(0x99) is None
