"""Contracts: the table they become, and every way to declare one wrongly."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

import pytest
from pydantic import BaseModel

from sbrpc.contract import (
    BoundMethod,
    BoundStream,
    CallOptions,
    Contract,
    MethodKind,
    MethodSpec,
    method,
    spec_of,
    stub_of,
)
from sbrpc.errors import Aborted, ContractError, NotFound, RpcError


class GetMovie(BaseModel):
    id: int


class Movie(BaseModel):
    id: int
    title: str


class Stale(Aborted):
    data: Movie


class Movies(Contract, name="movies"):
    @method(idempotent=True, timeout=5, errors=[NotFound, Stale], key=lambda request: str(request.id))
    async def get_movie(self, request: GetMovie) -> Movie:
        """One movie."""
        raise NotImplementedError

    @method
    def export(self, request: GetMovie) -> AsyncIterator[Movie]:
        raise NotImplementedError

    @method(one_way=True, name="movies.forget")
    async def forget(self, request: int) -> None:
        raise NotImplementedError


def test_methods_are_rows_of_a_table() -> None:
    """Name, kind and options of each method are known once the class exists."""
    rows = Movies.contract_methods
    assert list(rows) == ["get_movie", "export", "forget"]
    get = rows["get_movie"]
    assert (get.contract, get.subject, get.kind, get.idempotent, get.timeout) == (
        "movies",
        "get_movie",
        MethodKind.UNARY,
        True,
        5.0,
    )
    assert get.key is not None
    assert get.key(GetMovie(id=7)) == "7"
    assert set(get.errors) == {"NotFound", "Stale"}
    assert get.errors["Stale"].data is not None
    assert get.errors["NotFound"].data is None
    assert rows["export"].kind is MethodKind.STREAM
    assert rows["export"].cancellable
    assert (rows["forget"].kind, rows["forget"].subject) == (MethodKind.ONE_WAY, "movies.forget")
    assert str(get) == "movies.get_movie"


def test_the_table_is_frozen() -> None:
    """Nobody changes a contract after it was declared."""
    with pytest.raises(AttributeError):
        Movies.contract_methods["get_movie"].timeout = 9  # type: ignore[misc]
    with pytest.raises(TypeError):
        Movies.contract_methods["other"] = Movies.contract_methods["export"]  # type: ignore[index]


def test_codecs_know_the_types() -> None:
    """Requests and replies are encoded by the annotations, also those of a stream."""
    spec = Movies.contract_methods["export"]
    assert spec.request.decode(b'{"id": 1}') == GetMovie(id=1)
    assert spec.response.decode(b'{"id": 1, "title": "x"}') == Movie(id=1, title="x")


def test_a_method_on_the_class_is_its_declaration() -> None:
    """Servers register handlers for `Movies.get_movie`; its documentation is the function's."""
    assert spec_of(Movies.get_movie) is Movies.contract_methods["get_movie"]
    assert Movies.get_movie.__doc__ == "One movie."
    assert "movies.get_movie" in repr(Movies.get_movie)


class Recorder:
    """An invoker that notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, CallOptions]] = []

    def invoke(self, spec: MethodSpec, request: Any, options: CallOptions) -> Coroutine[Any, Any, Any]:
        self.calls.append((spec.name, request, options))

        async def reply() -> str:
            return "reply"

        return reply()

    async def invoke_stream(
        self, spec: MethodSpec, request: Any, options: CallOptions
    ) -> AsyncGenerator[Any, None]:
        self.calls.append((spec.name, request, options))
        yield 1
        yield 2


async def test_a_stub_calls_through_its_invoker() -> None:
    """Call options stand before the stub's: the shorter timeout, merged metadata, the nearer key."""
    recorder = Recorder()
    stub = stub_of(Movies, recorder, CallOptions(timeout=3, metadata={"a": "1", "b": "1"}, key="k"))
    assert isinstance(stub.get_movie, BoundMethod)
    assert isinstance(stub.export, BoundStream)
    assert await stub.get_movie(GetMovie(id=1)) == "reply"  # type: ignore[comparison-overlap]
    await stub.get_movie(GetMovie(id=2), timeout=9, metadata={"b": "2"}, key="l")
    assert [x async for x in stub.export(request=GetMovie(id=3), timeout=1)] == [1, 2]
    assert recorder.calls == [
        ("get_movie", GetMovie(id=1), CallOptions(3, {"a": "1", "b": "1"}, "k")),
        ("get_movie", GetMovie(id=2), CallOptions(3, {"a": "1", "b": "2"}, "l")),
        ("export", GetMovie(id=3), CallOptions(1, {"a": "1", "b": "1"}, "k")),
    ]


def test_a_contract_itself_cannot_be_called() -> None:
    """The error names what to use instead."""
    with pytest.raises(ContractError, match=r"client.of\(Movies\)"):
        Movies().get_movie(GetMovie(id=1))


def test_only_contracts_have_stubs() -> None:
    """Anything else is refused with the reason."""
    for wrong in (int, Contract, "movies"):
        with pytest.raises(ContractError, match="not a contract"):
            stub_of(wrong, Recorder(), CallOptions())  # type: ignore[type-var]


def test_versions_stand_side_by_side() -> None:
    """Two versions of a method are two methods with names of their own on the wire."""

    class Versioned(Contract, name="movies"):
        @method(name="get.v1")
        async def get_v1(self, request: int) -> str:
            raise NotImplementedError

        @method(name="get.v2")
        async def get_v2(self, request: GetMovie) -> Movie:
            raise NotImplementedError

    assert [spec.subject for spec in Versioned.contract_methods.values()] == ["get.v1", "get.v2"]


def test_local_types_are_found() -> None:
    """A contract in a function may use the function's own classes."""

    class Local(BaseModel):
        x: int

    class Locals(Contract, name="locals"):
        @method
        async def get(self, request: Local) -> Local:
            raise NotImplementedError

    assert Locals.contract_methods["get"].request.decode(b'{"x": 1}') == Local(x=1)


def test_a_name_is_needed() -> None:
    """Without the service's name there is no queue; the error shows how to give it."""
    with pytest.raises(ContractError, match='name="unnamed"'):

        class Unnamed(Contract):
            @method
            async def get(self, request: int) -> int:
                raise NotImplementedError

    with pytest.raises(ContractError, match="a b"):

        class Spaced(Contract, name="a b"):
            @method
            async def get(self, request: int) -> int:
                raise NotImplementedError


def test_contracts_are_flat() -> None:
    """A contract that derives from another would share names with it by accident."""
    with pytest.raises(ContractError, match="alone"):

        class More(Movies, name="more"):
            pass


def test_an_empty_contract_is_a_mistake() -> None:
    """Most likely `@method` was forgotten."""
    with pytest.raises(ContractError, match="declares no method"):

        class Empty(Contract, name="empty"):
            pass


def test_a_forgotten_decorator_is_found() -> None:
    """A public function without `@method` would silently not be served."""
    with pytest.raises(ContractError, match=r"Forgot.get is not declared.*@method"):

        class Forgot(Contract, name="forgot"):
            async def get(self, request: int) -> int:
                raise NotImplementedError


def declare(function: Any, **options: Any) -> None:
    """Define a contract whose one method is the given function."""
    declared = method(**options)(function) if options else method(function)
    type(Contract)("Wrong", (Contract,), {"get": declared, "__module__": __name__}, name="wrong")


async def fine(self: Any, request: int) -> int:
    raise NotImplementedError


async def silent(self: Any, request: int) -> None:
    raise NotImplementedError


async def too_many(self: Any, request: int, more: int) -> int:
    raise NotImplementedError


async def none_at_all(self: Any) -> int:
    raise NotImplementedError


async def keyword(self: Any, *, request: int) -> int:
    raise NotImplementedError


async def untyped_request(self: Any, request) -> int:  # type: ignore[no-untyped-def]
    raise NotImplementedError


async def untyped_reply(self: Any, request: int):  # type: ignore[no-untyped-def]
    raise NotImplementedError


async def unknown_type(self: Any, request: Nowhere) -> int:  # type: ignore[name-defined]  # noqa: F821
    raise NotImplementedError


def plain(self: Any, request: int) -> int:
    raise NotImplementedError


async def awaited_stream(self: Any, request: int) -> AsyncIterator[int]:
    raise NotImplementedError


def stream(self: Any, request: int) -> AsyncIterator[int]:
    raise NotImplementedError


class Coded(RpcError):
    pass


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (too_many, {}, "takes `self` and one request"),
        (none_at_all, {}, "takes `self` and one request"),
        (keyword, {}, "takes `self` and one request"),
        (untyped_request, {}, "parameter `request` has no annotation"),
        (untyped_reply, {}, "the reply has no annotation"),
        (unknown_type, {}, "'Nowhere' is not defined"),
        (plain, {}, "`async def`, or return an AsyncIterator"),
        (awaited_stream, {}, "with `def`, not `async def`"),
        (fine, {"name": "two words"}, "cannot be a name on the wire"),
        (fine, {"name": "sbrpc.get"}, "library's own"),
        (fine, {"one_way": True}, "must return None"),
        (stream, {"one_way": True}, "must return None"),
        (stream, {"idempotent": True}, "drop `idempotent`"),
        (silent, {"one_way": True, "idempotent": True}, "drop `idempotent`"),
        (silent, {"one_way": True, "cancellable": True}, "drop `cancellable`"),
        (fine, {"timeout": 0}, "positive number of seconds"),
        (fine, {"timeout": "5"}, "positive number of seconds"),
        (fine, {"timeout": float("inf")}, "positive number of seconds"),
        (stream, {"window": 1}, "between 2 and 1000"),
        (fine, {"errors": [ValueError]}, "subclasses of RpcError"),
        (fine, {"errors": [Coded]}, "has no code"),
    ],
)
def test_mistakes_are_named_where_they_are_made(function: Any, options: dict[str, Any], says: str) -> None:
    """Each wrong declaration fails when the class is defined, naming the method and the remedy."""
    with pytest.raises(ContractError, match=r"Wrong\.get") as caught:
        declare(function, **options)
    assert says in str(caught.value)


def test_two_methods_cannot_share_a_name() -> None:
    """The error names both."""
    with pytest.raises(ContractError, match=r"\.a and \.b are both named"):

        class Twins(Contract, name="twins"):
            @method(name="x")
            async def a(self, request: int) -> int:
                raise NotImplementedError

            @method(name="x")
            async def b(self, request: int) -> int:
                raise NotImplementedError


def test_names_of_the_base_class_are_taken() -> None:
    """A method cannot hide what a contract is made of."""
    with pytest.raises(ContractError, match="taken or private"):

        class Taken(Contract, name="taken"):
            @method
            async def contract_name(self, request: int) -> int:  # type: ignore[assignment]
                raise NotImplementedError


def test_method_decorates_functions() -> None:
    """Anything else was probably meant to be decorated the other way round."""
    with pytest.raises(ContractError, match="decorates functions"):
        method(property(lambda self: 1))  # type: ignore[call-overload]


def test_a_method_outside_of_a_contract_has_no_row() -> None:
    """The error says where it belongs."""
    with pytest.raises(ContractError, match="not part of a contract"):
        spec_of(method(fine))
    with pytest.raises(ContractError, match=r"@server\.method\(Movies\.get_movie\)"):
        spec_of(fine)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match=r"for instance `Movies\.get_movie`"):
        spec_of("get_movie")  # type: ignore[arg-type]
