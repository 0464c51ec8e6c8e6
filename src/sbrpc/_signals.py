"""Waiting for the operating system to ask for an end. Shared by everything that has a `serve()`.

Any number of waiters in a loop hear the first SIGTERM or SIGINT. The handlers are gone after that, so that a
second signal ends the process the way it would without us.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from weakref import WeakKeyDictionary

__all__ = ["asked_to_stop"]

_log = logging.getLogger("sbrpc")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_waiters: WeakKeyDictionary[asyncio.AbstractEventLoop, set[asyncio.Event]] = WeakKeyDictionary()


async def asked_to_stop() -> None:
    """Return on SIGTERM or SIGINT.

    Outside of the main thread, and on Windows, where loops do not hear signals, it waits for ever; Ctrl-C
    raises KeyboardInterrupt there as usual.
    """
    loop = asyncio.get_running_loop()
    waiters = _waiters.setdefault(loop, set())
    asked = asyncio.Event()
    if not waiters:
        _listen(loop)
    waiters.add(asked)
    try:
        await asked.wait()
    finally:
        waiters.discard(asked)
        if not waiters:
            _stop_listening(loop)


def _listen(loop: asyncio.AbstractEventLoop) -> None:
    try:
        for number in _SIGNALS:
            loop.add_signal_handler(number, _heard, loop, number)
    except (NotImplementedError, ValueError, RuntimeError) as error:
        _log.debug("this event loop does not hear signals: %r", error)


def _stop_listening(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(NotImplementedError, ValueError, RuntimeError):
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _heard(loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    _log.info("%s: stopping", number.name)
    for asked in _waiters.get(loop, ()):
        asked.set()
    _stop_listening(loop)
