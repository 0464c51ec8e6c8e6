"""Values to JSON and back; what two peers agree on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from sbrpc._codec import Codec, difference, fingerprint
from sbrpc.errors import DecodeError


class Person(BaseModel):
    name: str
    age: int = 0


class Film(BaseModel):
    title: str = Field(alias="Title", description="for people")
    director: Person | None = None


@given(
    st.builds(
        lambda title, name: Film(Title=title, director=Person(name=name)),
        st.text().filter(lambda text: "\x00" not in text),
        st.text(),
    )
)
def test_models_come_back(film: Film) -> None:
    """What was encoded decodes to the same value."""
    codec = Codec(Film)
    assert codec.decode(codec.encode(film)) == film


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(None, None), (int, 7), (list[Person], [Person(name="a")]), (dict[str, int], {"a": 1}), (bytes, b"x")],
)
def test_any_annotation_is_a_codec(annotation: Any, value: Any) -> None:
    """Requests and replies need not be models."""
    codec = Codec(annotation)
    assert codec.decode(codec.encode(value)) == value


def test_each_wrong_field_is_named() -> None:
    """A decode error says which fields are wrong and how, and never repeats the input."""
    with pytest.raises(DecodeError) as caught:
        Codec(Film).decode(b'{"Title": 7, "director": {"age": "secret"}}')
    assert {d["field"] for d in caught.value.details} == {"Title", "director.name", "director.age"}
    assert "secret" not in str(caught.value)


def test_many_wrong_fields_are_summed_up() -> None:
    """A thousand problems make a short error."""
    with pytest.raises(DecodeError) as caught:
        Codec(list[int]).decode(b"[" + b",".join([b'"x"'] * 1000) + b"]")
    assert len(caught.value.details) == 21
    assert "980 more" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[1,", b'"x"', b"null"])
def test_what_is_no_json_or_no_model_is_a_decode_error(data: bytes) -> None:
    """There is one kind of error, whatever arrives."""
    with pytest.raises(DecodeError):
        Codec(Film).decode(data)


def test_a_wrong_value_is_not_encoded() -> None:
    """A handler that returns something else is found out before anything is sent."""
    with pytest.raises(DecodeError, match="name"):
        Codec(Person).encode({"age": 3})
    with pytest.raises(DecodeError):
        Codec(Person).encode(None)


def test_fingerprints_follow_types_not_words() -> None:
    """Titles and descriptions may change; a field may not."""

    class Same(BaseModel):
        """Another docstring."""

        title: str = Field(alias="Title", description="another description", examples=["x"])
        director: Person | None = None

    class Other(BaseModel):
        title: str = Field(alias="Title")
        director: Person | None = None
        year: int

    Same.__name__ = "Film"
    reply = Codec(None)
    original = fingerprint("unary", Codec(Film), reply)
    assert fingerprint("unary", Codec(Same), reply) == original
    assert fingerprint("unary", Codec(Other), reply) != original
    assert fingerprint("stream", Codec(Film), reply) != original
    assert len(original) == 16


def test_a_property_may_be_called_title() -> None:
    """Only the schema's own words are left out of a fingerprint, not fields that have their names."""

    class Titled(BaseModel):
        title: str

    class Untitled(BaseModel):
        other: str

    reply = Codec(None)
    assert fingerprint("unary", Codec(Titled), reply) != fingerprint("unary", Codec(Untitled), reply)


def test_differences_are_said_in_words() -> None:
    """Each place where two schemas differ is one readable line."""

    class Here(BaseModel):
        id: int
        tags: list[str] = []
        gone: str
        who: Person

    class Elder(BaseModel):
        name: str
        age: str = ""

    class There(BaseModel):
        id: str
        tags: list[int] = []
        new: Annotated[int, Field(ge=1)]
        who: Elder

    lines = difference(Codec(Here).schema(), Codec(There).schema())
    assert lines == [
        "gone: only here, required",
        "id: type is 'integer' here, 'string' there",
        "new: only there, required",
        "tags[]: type is 'string' here, 'integer' there",
        "who.age: default is 0 here, '' there",
        "who.age: type is 'integer' here, 'string' there",
    ]
    assert difference(Codec(Here).schema(), Codec(Here).schema()) == []


def test_recursive_models_have_an_end() -> None:
    """A model that contains itself can be compared."""

    class Node(BaseModel):
        value: int
        next: Node | None = None

    Node.model_rebuild(_types_namespace={"Node": Node})
    assert difference(Codec(Node).schema(), Codec(Node).schema()) == []
    assert fingerprint("unary", Codec(Node), Codec(None))


def test_a_type_without_schema_has_no_differences() -> None:
    """What has no JSON Schema cannot be compared, and that is no error."""

    class Odd:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
            from pydantic_core import core_schema

            return core_schema.is_instance_schema(cls)

    assert Codec(Odd).schema() is None
    assert difference(Codec(Odd).schema(), Codec(int).schema()) == []


def test_what_cannot_be_a_codec_is_refused() -> None:
    """pydantic refuses at once; contracts turn that into an error of their own."""
    with pytest.raises(Exception, match="schema"):
        Codec(AsyncIterator[threading_lock_type()])


def threading_lock_type() -> Any:
    import threading

    return type(threading.Lock())
