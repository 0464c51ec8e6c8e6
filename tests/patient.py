"""A server behind whose handlers requests wait, and a queue that nobody opens; for the doctor's tests."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from sbrpc import Contract, Queue, RpcServer, connect, method


class Patient(Contract, name="patient"):
    """Takes its time."""

    @method(timeout=60)
    async def wait(self, request: int) -> None: ...


server = RpcServer(connect(), Patient, concurrency=1, prefetch=2)
declared = Queue("stock")
