"""What a fault strikes: a broker, a service in this process or in two of its own, and a client of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.servicebus import ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient

from sbrpc import CallInfo, RpcClient, RpcServer
from sbrpc._sdk import without_tls
from sbrpc.emulator import Emulator
from sbrpc.middleware import Next
from sbrpc.topology import Queue

from .children import Child, child
from .load import Load
from .service import QUEUE, REPLIES, Service, serving

__all__ = ["Rig", "rigged"]

FORGED = "forged"


@dataclass
class Rig:
    """The parts, and who can be told from whom by the broker."""

    emulator: Emulator
    client: RpcClient
    load: Load
    service: Service
    server: RpcServer | None
    children: list[Child]
    journal: Path
    strangers: ServiceBusClient
    outage: float
    lock_duration: float
    during: Callable[[], None] = field(default=lambda: None)
    """Makes calls while a fault lasts."""
    call_ids: list[str] = field(default_factory=list)
    """Ids of calls that were answered."""

    def cut(self, name: str) -> int:
        """Cut the connections of the client or of the server; how many there were."""
        faults, connections = self.emulator.faults, list(self.emulator.front.connections)
        peers = [each.peer for each in connections if name in str(each.peer.amqp.properties)]
        return sum(faults.cut(container_id=peer.container_id).fired for peer in peers)

    def received(self) -> int:
        """How often a request was delivered to a server."""
        return self.emulator.books[QUEUE].receives

    def noted(self) -> set[str]:
        """Values of the one-way calls that were carried out."""
        if self.server is not None:
            return self.service.noted
        return set(self.journal.read_text().split()) if self.journal.exists() else set()

    async def forge(self, count: int) -> list[str]:
        """Requests as strangers send them, which must end in the dead-letter queue; their message ids.

        Half of them ask for a reply to a queue where none may be sent, half are no requests at all. Besides,
        replies that were given are given again, with another answer.
        """
        session = self.client.replies.epoch.session_id
        replayed = [
            ServiceBusMessage(
                json.dumps({"value": FORGED}),
                session_id=session,
                correlation_id=call_id,
                application_properties={"sbrpc-status": "OK"},
            )
            for call_id in (*self.call_ids[-count:], "no-such-call")
        ]
        messages: list[ServiceBusMessage] = []
        for number in range(count):
            to = {"reply_to": "elsewhere"} if number % 2 else {}
            name = f"{FORGED}-{number}"
            messages.append(ServiceBusMessage("{not json", subject="echo", message_id=name, **to))
        async with self.strangers.get_queue_sender(QUEUE) as sender:
            await sender.send_messages(messages)
        async with self.strangers.get_queue_sender(REPLIES) as sender:
            await sender.send_messages(replayed)
        return [str(message.message_id) for message in messages]

    async def dead_lettered(self) -> dict[str, str]:
        """Ids and reasons of what is in the dead-letter queue."""
        async with self.strangers.get_queue_receiver(
            QUEUE, sub_queue=ServiceBusSubQueue.DEAD_LETTER
        ) as receiver:
            found = await receiver.peek_messages(max_message_count=250)
        return {str(each.message_id): str(each.dead_letter_reason) for each in found}


@asynccontextmanager
async def rigged(journal: Path, *, processes: int = 0, outage: float = 1.0) -> AsyncIterator[Rig]:
    """Everything running and ready."""
    # Where servers are killed, the broker's clock ends the locks of those that live as well; they must not
    # have to renew besides, one round trip each.
    lock_duration = 15.0 if processes else 5.0
    queues = [
        Queue(QUEUE, lock_duration=lock_duration),
        Queue(REPLIES, requires_session=True, lock_duration=300),
        Queue("elsewhere"),
    ]
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(queues=queues))
        connection = emulator.connection_string

        async def named(name: str, retries: int = 0) -> ServiceBusClient:
            options = {"retry_total": retries, "user_agent": name, **without_tls(connection)}
            made = ServiceBusClient.from_connection_string(connection, **options)
            return await stack.enter_async_context(made)

        call_ids: list[str] = []

        async def listen(request: Any, info: CallInfo, call_next: Next) -> Any:
            answer = await call_next(request, info)
            call_ids.append(info.call_id)
            return answer

        children = [
            await stack.enter_async_context(child("faults.service", [connection, str(journal)]))
            for _ in range(processes)
        ]
        client = await stack.enter_async_context(
            RpcClient(
                await named("the-client"), reply_queue=REPLIES, name="rig", heartbeat=1.0, middleware=[listen]
            )
        )
        service, server = Service(client), None
        if not processes:
            server = await stack.enter_async_context(serving(await named("the-server"), service))
            await server.ready(30)
        for each in children:
            await each.line("ready")
        await client.ready(30)
        strangers = await named("a-stranger", retries=5)
        yield Rig(
            emulator=emulator,
            client=client,
            load=Load(client),
            service=service,
            server=server,
            children=children,
            journal=journal,
            strangers=strangers,
            outage=outage,
            lock_duration=lock_duration,
            call_ids=call_ids,
        )
