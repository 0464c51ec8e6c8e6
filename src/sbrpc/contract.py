"""Contracts: what a service offers, declared once as a class, imported by the server and by its callers.

    class Movies(Contract, name="movies"):
        @method(idempotent=True, timeout=5)
        async def get_movie(self, request: GetMovie) -> Movie: ...

        @method
        def export(self, request: ExportMovies) -> AsyncIterator[Movie]: ...

The class is checked when it is defined; every mistake is a `ContractError` that names the method and the
remedy. On the class, `Movies.get_movie` is a `Method`, which is what a server registers a handler for; on
the object that `client.of(Movies)` returns it is a typed coroutine function. This module knows no Service
Bus: what calling does is the `Invoker`'s business.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
import typing
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, TypeVar, overload

from ._codec import Codec, fingerprint
from .errors import ContractError, RpcError

__all__ = ["Contract", "Method", "MethodKind", "MethodSpec", "StreamMethod", "UnaryMethod", "method"]

Req = TypeVar("Req")
Res = TypeVar("Res")

# A subject travels in every message and doubles as a filter value: short, printable, no spaces.
_SUBJECT = re.compile(r"[A-Za-z][\w.\-]{0,127}", re.ASCII)
_QUEUE = re.compile(r"[A-Za-z0-9]([\w\-./]*[A-Za-z0-9_])?", re.ASCII)


class MethodKind(Enum):
    """How a method answers."""

    UNARY = "unary"
    """One request, one reply."""
    ONE_WAY = "one-way"
    """One request, no reply: the caller waits only until Service Bus has it."""
    STREAM = "stream"
    """One request, any number of replies in order."""


@dataclass(frozen=True)
class MethodSpec:
    """One method of a contract, as both sides need it."""

    contract: str
    name: str
    """The name in Python."""
    subject: str
    """The name on the wire."""
    kind: MethodKind
    request: Codec
    response: Codec
    idempotent: bool = False
    timeout: float | None = None
    """The most seconds that any call may take."""
    cancellable: bool = False
    window: int = 32
    """How many streamed replies may be on their way unread."""
    bundle: bool = True
    """Whether its calls may share a message with others."""
    key: Callable[[Any], str] | None = None
    errors: Mapping[str, ErrorSpec] = field(default_factory=dict)
    """Those that the method declares, by the names of their classes."""
    fingerprint: str = ""
    """What both sides have in common who agree on its types."""

    def __str__(self) -> str:
        return f"{self.contract}.{self.name}"


@dataclass(frozen=True)
class ErrorSpec:
    """An error that a contract declares: its class, and the codec of its `data`."""

    kind: type[RpcError]
    data: Codec | None


@dataclass(frozen=True)
class CallOptions:
    """What a caller says about one call, or about every call through one stub."""

    timeout: float | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    key: str | None = None

    def __post_init__(self) -> None:
        # One that is over already is the business of the call, which then raises DeadlineExceeded.
        timeout = self.timeout
        if timeout is not None and (not isinstance(timeout, int | float) or math.isnan(timeout)):
            raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")

    def over(self, general: CallOptions) -> CallOptions:
        """These options with the general ones behind them: the shorter timeout, both metadata, our key."""
        timeouts = [t for t in (self.timeout, general.timeout) if t is not None]
        return CallOptions(
            timeout=min(timeouts, default=None),
            metadata={**general.metadata, **self.metadata},
            key=self.key if self.key is not None else general.key,
        )


class Invoker(Protocol):
    """What makes the calls of a stub: the client."""

    def invoke(self, spec: MethodSpec, request: Any, options: CallOptions) -> Coroutine[Any, Any, Any]:
        """Call a unary or one-way method."""
        ...

    def invoke_stream(
        self, spec: MethodSpec, request: Any, options: CallOptions
    ) -> AsyncGenerator[Any, None]:
        """Call a streaming method."""
        ...


class BoundMethod(Generic[Req, Res]):
    """A unary or one-way method of a stub: call it with the request, await the reply."""

    def __init__(self, stub: Contract, spec: MethodSpec) -> None:
        self._stub = stub
        self.spec = spec

    def __call__(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Coroutine[Any, Any, Res]:
        """Call the method. `timeout` is in seconds; the nearest of all deadlines in force wins.

        What it raises, and what becomes of a call that is cancelled, `RpcClient` says.
        """
        invoker, options = self._stub._bound()
        if timeout is not None or metadata or key is not None:
            options = CallOptions(timeout, metadata or {}, key).over(options)
        return invoker.invoke(self.spec, request, options)


class BoundStream(Generic[Req, Res]):
    """A streaming method of a stub: call it with the request, iterate over the replies."""

    def __init__(self, stub: Contract, spec: MethodSpec) -> None:
        self._stub = stub
        self.spec = spec

    def __call__(
        self,
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> AsyncGenerator[Res, None]:
        """Call the method. `timeout` is in seconds and covers the whole stream.

        Iterating raises what a call raises, as `RpcClient` says. Whoever stops early, by `aclose()` or
        cancelled, stops the handler too.
        """
        invoker, general = self._stub._bound()
        options = CallOptions(timeout, metadata or {}, key).over(general)
        return invoker.invoke_stream(self.spec, request, options)


class Method(Generic[Req, Res]):
    """A declared method; `spec` is complete once its contract's class exists."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self.function = function
        self.options = options
        self.__doc__ = function.__doc__
        self._spec: MethodSpec | None = None

    @property
    def spec(self) -> MethodSpec:
        """The method as a frozen table row."""
        if self._spec is None:
            raise ContractError(
                f"{self.function.__qualname__} is not part of a contract; "
                "declare it in a class that derives from Contract"
            )
        return self._spec

    def __repr__(self) -> str:
        return f"<method {self._spec or self.function.__qualname__}>"


class UnaryMethod(Method[Req, Res]):
    """A method with one reply, or none."""

    @overload
    def __get__(self, instance: None, owner: type) -> UnaryMethod[Req, Res]: ...
    @overload
    def __get__(self, instance: Contract, owner: type) -> BoundMethod[Req, Res]: ...
    def __get__(
        self, instance: Contract | None, owner: type
    ) -> UnaryMethod[Req, Res] | BoundMethod[Req, Res]:
        if instance is None:
            return self
        bound = BoundMethod[Req, Res](instance, self.spec)
        instance.__dict__[self.spec.name] = bound
        return bound


class StreamMethod(Method[Req, Res]):
    """A method with any number of replies."""

    @overload
    def __get__(self, instance: None, owner: type) -> StreamMethod[Req, Res]: ...
    @overload
    def __get__(self, instance: Contract, owner: type) -> BoundStream[Req, Res]: ...
    def __get__(
        self, instance: Contract | None, owner: type
    ) -> StreamMethod[Req, Res] | BoundStream[Req, Res]:
        if instance is None:
            return self
        bound = BoundStream[Req, Res](instance, self.spec)
        instance.__dict__[self.spec.name] = bound
        return bound


class MethodDecorator(Protocol):
    """What `@method(...)` with options returns."""

    @overload
    def __call__(self, function: Callable[[Any, Req], AsyncIterator[Res]], /) -> StreamMethod[Req, Res]: ...
    @overload
    def __call__(
        self, function: Callable[[Any, Req], Coroutine[Any, Any, Res]], /
    ) -> UnaryMethod[Req, Res]: ...


@overload
def method(function: Callable[[Any, Req], AsyncIterator[Res]], /) -> StreamMethod[Req, Res]: ...
@overload
def method(function: Callable[[Any, Req], Coroutine[Any, Any, Res]], /) -> UnaryMethod[Req, Res]: ...
@overload
def method(
    *,
    name: str | None = None,
    idempotent: bool = False,
    timeout: float | None = None,
    one_way: bool = False,
    cancellable: bool = False,
    errors: Sequence[type[RpcError]] = (),
    key: Callable[[Any], str] | None = None,
    window: int = 32,
    bundle: bool = True,
) -> MethodDecorator: ...
def method(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Declare a method of a contract.

    Options: `name` on the wire, if it is not the Python name; `idempotent`, so that clients may repeat the
    call when the service is unavailable; `timeout` in seconds, the most any call may take; `one_way` for a
    command without a reply; `cancellable`, so that a caller that gives up also stops the handler (costs one
    message per call); `errors`, the `RpcError` subclasses that arrive at the caller as themselves; `key`, a
    function from request to ordering key; `window`, how many streamed replies may be on their way unread;
    `bundle=False`, so that no call of this method shares a message with others: its request is then completed
    as soon as it is answered, not when all of the bundle is.
    """
    if function is not None:
        return _declare(function, {})
    return lambda decorated: _declare(decorated, options)


def _declare(function: object, options: Mapping[str, Any]) -> Method[Any, Any]:
    if not inspect.isfunction(function):
        raise ContractError(f"@method decorates functions, not {function!r}; use it right above the `def`")
    if inspect.iscoroutinefunction(function):
        return UnaryMethod(function, options)
    return StreamMethod(function, options)


class Contract:
    """The base of all contracts; `name` is the service's name and the default name of its request queue.

    Raises:
        ContractError: at definition, when a method or the name cannot be what it is declared to be.
    """

    contract_name: ClassVar[str] = ""
    contract_methods: ClassVar[Mapping[str, MethodSpec]] = MappingProxyType({})

    _invoker: Invoker | None = None
    _options: CallOptions = CallOptions()

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__bases__ != (Contract,):
            raise ContractError(
                f"{cls.__name__} derives from {', '.join(b.__name__ for b in cls.__bases__)}; a contract "
                "derives from Contract alone. Several contracts can share one server instead"
            )
        if not isinstance(name, str) or not _QUEUE.fullmatch(name):
            example = cls.__name__.lower()
            raise ContractError(
                f"{cls.__name__} needs the name of its service, which is also its queue's: "
                f'`class {cls.__name__}(Contract, name="{example}")`, not {name!r}'
            )
        # Annotations of a contract defined inside a function may name that function's local classes.
        scope = sys._getframe(1).f_locals
        specs: dict[str, MethodSpec] = {}
        subjects: dict[str, str] = {}
        for attribute, declared in list(vars(cls).items()):
            if not isinstance(declared, Method):
                _check_undeclared(cls, attribute, declared)
                continue
            spec = _specify(cls, name, attribute, declared, scope)
            if spec.subject in subjects:
                raise ContractError(
                    f"{cls.__name__}.{subjects[spec.subject]} and .{attribute} are both named "
                    f'"{spec.subject}" on the wire; give one of them another `name=`'
                )
            subjects[spec.subject] = attribute
            declared._spec = specs[attribute] = spec
        if not specs:
            raise ContractError(f"{cls.__name__} declares no method; put `@method` above at least one `def`")
        cls.contract_name = name
        cls.contract_methods = MappingProxyType(specs)

    def _bound(self) -> tuple[Invoker, CallOptions]:
        if self._invoker is None:
            kind = type(self).__name__
            raise ContractError(f"{kind} describes a service; to call it, use `client.of({kind})`")
        return self._invoker, self._options


C = TypeVar("C", bound=Contract)


def check_contract(contract: object) -> None:
    """Raise `ContractError` unless it is a class that derives from `Contract`."""
    if not (isinstance(contract, type) and issubclass(contract, Contract)) or contract is Contract:
        raise ContractError(f"{contract!r} is not a contract; pass a class that derives from Contract")


def stub_of(contract: type[C], invoker: Invoker, options: CallOptions) -> C:
    """An object with the contract's methods, which calls through the invoker."""
    check_contract(contract)
    stub = contract()
    stub._invoker = invoker
    stub._options = options
    return stub


def spec_of(declared: Method[Any, Any] | MethodSpec) -> MethodSpec:
    """The table row of a declared method."""
    if isinstance(declared, MethodSpec):
        return declared
    if not isinstance(declared, Method):
        if inspect.isfunction(declared):
            raise ContractError(
                f"{declared.__qualname__} is a function, not a contract's method; say which one it handles, "
                "as in `@server.method(Movies.get_movie)`"
            )
        raise ContractError(f"{declared!r} is not a contract's method; pass for instance `Movies.get_movie`")
    return declared.spec


def _check_undeclared(cls: type, attribute: str, value: object) -> None:
    if inspect.isfunction(value) and not attribute.startswith("_"):
        raise ContractError(
            f"{cls.__name__}.{attribute} is not declared as a method; put `@method` above it, "
            "or begin its name with an underscore"
        )


def _specify(
    cls: type, contract: str, name: str, declared: Method[Any, Any], scope: Mapping[str, Any]
) -> MethodSpec:
    function, options = declared.function, declared.options
    where = f"{cls.__name__}.{name}"
    if name.startswith("_") or hasattr(Contract, name):
        raise ContractError(f"{where}: this name is taken or private; choose another")
    request, response, streams = _annotations(where, function, {**scope, cls.__name__: cls})
    subject = options.get("name") or name
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise ContractError(
            f"{where}: {subject!r} cannot be a name on the wire; use letters, digits and . - _ "
            "(at most 128), beginning with a letter"
        )
    if subject.startswith("sbrpc."):
        raise ContractError(f'{where}: names that begin with "sbrpc." are the library\'s own')
    kind = MethodKind.STREAM if streams else MethodKind.UNARY
    if options.get("one_way"):
        if streams or response is not type(None):
            raise ContractError(f"{where}: a one-way method has no reply, so it must return None")
        kind = MethodKind.ONE_WAY
    if kind is not MethodKind.UNARY and options.get("idempotent"):
        raise ContractError(f"{where}: only a method with one reply can be repeated; drop `idempotent`")
    if kind is MethodKind.ONE_WAY and (options.get("cancellable") or options.get("errors")):
        raise ContractError(f"{where}: nobody waits for a one-way method; drop `cancellable` and `errors`")
    timeout = options.get("timeout")
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < float("inf")):
        raise ContractError(f"{where}: timeout must be a positive number of seconds, not {timeout!r}")
    window = options.get("window", 32)
    if not isinstance(window, int) or not 2 <= window <= 1000:
        raise ContractError(f"{where}: window must be between 2 and 1000 replies, not {window!r}")
    codecs = {"request": _codec(where, "request", request), "response": _codec(where, "reply", response)}
    return MethodSpec(
        contract=contract,
        name=name,
        subject=subject,
        kind=kind,
        idempotent=bool(options.get("idempotent")),
        timeout=float(timeout) if timeout is not None else None,
        cancellable=bool(options.get("cancellable")) or streams,
        window=window,
        bundle=bool(options.get("bundle", True)),
        key=options.get("key"),
        errors=_error_specs(where, options.get("errors", ()), scope),
        # Who takes anything has no idea of the types that the other side could be told about.
        fingerprint="" if request is Any else fingerprint(kind.value, codecs["request"], codecs["response"]),
        **codecs,
    )


def _annotations(where: str, function: Callable[..., Any], scope: Mapping[str, Any]) -> tuple[Any, Any, bool]:
    parameters = list(inspect.signature(function).parameters.values())
    plain = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if len(parameters) != 2 or any(p.kind not in plain for p in parameters):
        raise ContractError(
            f"{where}: a method takes `self` and one request, as in "
            f"`async def {function.__name__}(self, request: Request) -> Reply: ...`; "
            "put several values into one model"
        )
    try:
        hints = typing.get_type_hints(function, localns=dict(scope), include_extras=True)
    except NameError as error:
        raise ContractError(
            f"{where}: the annotation {error.name!r} is not defined where the contract is; import it at run "
            "time, not only under TYPE_CHECKING"
        ) from error
    request_name = parameters[1].name
    for needed, what in ((request_name, f"the parameter `{request_name}`"), ("return", "the reply")):
        if needed not in hints:
            raise ContractError(f"{where}: {what} has no annotation; both sides need to know its type")
    returned = hints["return"]
    origin = typing.get_origin(returned)
    streams = isinstance(origin, type) and issubclass(origin, AsyncIterator)
    if streams and inspect.iscoroutinefunction(function):
        raise ContractError(f"{where}: declare a streaming method with `def`, not `async def`")
    if not streams and not inspect.iscoroutinefunction(function):
        raise ContractError(f"{where}: declare it with `async def`, or return an AsyncIterator to stream")
    return hints[request_name], typing.get_args(returned)[0] if streams else returned, streams


def _codec(where: str, what: str, annotation: Any) -> Codec:
    try:
        return Codec(annotation)
    except Exception as error:  # pydantic raises several kinds; the author of the contract sees this one
        raise ContractError(f"{where}: the {what} type {annotation!r} cannot be JSON: {error}") from error


def _error_specs(where: str, kinds: Sequence[Any], scope: Mapping[str, Any]) -> Mapping[str, ErrorSpec]:
    specs: dict[str, ErrorSpec] = {}
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, RpcError)):
            raise ContractError(f"{where}: errors lists subclasses of RpcError, not {kind!r}")
        if kind.default_code is None:
            raise ContractError(f"{where}: {kind.__name__} has no code; derive it from one like NotFound")
        hints = typing.get_type_hints(kind, localns=dict(scope), include_extras=True)
        data = None if hints.get("data", Any) is Any else _codec(where, kind.__name__, hints["data"])
        specs[kind.__name__] = ErrorSpec(kind, data)
    return MappingProxyType(specs)
