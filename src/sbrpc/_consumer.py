"""Consumes one subscription: picks the pump that fits it and says so when none does.

Knows the SDK's receivers and both pumps; what happens to an event is `_handling`'s business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio
from azure.servicebus import NEXT_AVAILABLE_SESSION
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver

from ._competing import MessagePump
from ._handling import Handling
from ._sdk import MustNotRequireSessions, MustRequireSessions
from ._sessions import ACCEPT_WAIT, SessionPump
from ._subscriptions import Subscribed
from .errors import ContractError

__all__ = ["Consumer"]


class Consumer:
    """Runs the handlers of one subscription until it is stopped."""

    def __init__(
        self,
        connect: Callable[[], ServiceBusClient],
        topic: str,
        subscription: Subscribed,
        counts: Counter[str],
    ) -> None:
        self._client = connect
        self._topic = topic
        self._subscription = subscription
        self._counts = counts
        self._what = f"subscription {subscription.name!r} of topic {topic!r}"
        self._pump: SessionPump | MessagePump | None = None
        self._stopped = False
        self.ended = anyio.Event()
        """Set when nothing is handled any more; `run()` may still be closing its links."""

    async def run(self) -> None:
        """Consume until `stop()`; what is being handled then is finished.

        Raises:
            ContractError: the subscription requires sessions and the handlers do not, or the other way round.
            BusError: the subscription does not exist, or may not be listened to.
        """
        try:
            await self._run()
        finally:
            self.ended.set()

    async def _run(self) -> None:
        size = self._subscription.batch if self._subscription.batch > 1 else None
        if self._subscription.ordered is not False:
            try:
                await self._pump_with(
                    SessionPump(
                        self._next_session,
                        Handling(self._subscription, self._counts, in_session=True),
                        what=self._what,
                        sessions=self._subscription.max_concurrent_sessions,
                        size=size,
                        on_done=self.ended.set,
                    )
                )
            except MustRequireSessions as error:
                if self._subscription.ordered:
                    raise ContractError(
                        f"{self._what} does not require sessions, so its events come in no order. Recreate "
                        "it with requires_session=True, or declare its handlers with ordered=False"
                    ) from error
            else:
                return
        try:
            await self._pump_with(
                MessagePump(
                    self._receiver,
                    Handling(self._subscription, self._counts, in_session=False),
                    what=self._what,
                    concurrency=self._subscription.concurrency,
                    size=size,
                    on_done=self.ended.set,
                )
            )
        except MustNotRequireSessions as error:
            raise ContractError(
                f"{self._what} requires sessions, so its events come in order; "
                "declare its handlers with ordered=True, or leave `ordered` out"
            ) from error

    @property
    def listening(self) -> bool:
        """Whether Service Bus lets us listen, as far as anybody knows."""
        return self._pump is not None and self._pump.listening

    def stop(self) -> None:
        """Take no more events; `run()` returns when what is being handled is done."""
        self._stopped = True
        if self._pump is not None:
            self._pump.stop()

    def give_up(self) -> None:
        """Cancel what is being handled and give it back."""
        self._stopped = True
        if self._pump is not None:
            self._pump.give_up()

    async def _pump_with(self, pump: SessionPump | MessagePump) -> None:
        self._pump = pump
        if self._stopped:
            pump.stop()
        await pump.run()

    def _next_session(self) -> ServiceBusReceiver:
        return self._client().get_subscription_receiver(
            self._topic,
            self._subscription.name,
            session_id=NEXT_AVAILABLE_SESSION,
            max_wait_time=ACCEPT_WAIT,
        )

    def _receiver(self, prefetch: int) -> ServiceBusReceiver:
        return self._client().get_subscription_receiver(
            self._topic, self._subscription.name, prefetch_count=prefetch
        )
