"""Code around calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sbrpc.context import CallInfo
from sbrpc.middleware import Next, chain


async def test_the_first_is_the_outermost() -> None:
    """Each layer sees the request on its way in and the reply on its way out."""
    seen: list[str] = []

    def layer(name: str) -> Any:
        async def around(request: Any, info: CallInfo, call_next: Next) -> Any:
            seen.append(f"{name} in")
            reply = await call_next(request + name, replace(info, metadata={**info.metadata, name: "1"}))
            seen.append(f"{name} out")
            return reply + name

        return around

    async def endpoint(request: Any, info: CallInfo) -> Any:
        return f"[{request} {sorted(info.metadata)}]"

    call = chain([layer("a"), layer("b")], endpoint)
    assert await call("r", CallInfo("m", "1")) == "[rab ['a', 'b']]ba"
    assert seen == ["a in", "b in", "b out", "a out"]


async def test_a_layer_may_answer_by_itself() -> None:
    """The call does not happen then."""

    async def answer(request: Any, info: CallInfo, call_next: Next) -> Any:
        return "cached"

    async def endpoint(request: Any, info: CallInfo) -> Any:
        raise AssertionError

    assert await chain([answer], endpoint)(1, CallInfo("m", "1")) == "cached"


async def test_without_middleware_the_endpoint_is_called() -> None:
    """Nothing is wrapped around it."""

    async def endpoint(request: Any, info: CallInfo) -> Any:
        return request

    assert chain([], endpoint) is endpoint
