"""A Service Bus that fits in a process: for tests, for development, for demonstrations.

    async with Emulator(queues=["movies"]) as emulator:
        client = ServiceBusClient.from_connection_string(emulator.connection_string)

Everybody may do everything, as with the official emulator, unless it is given an `AccessKey` for each who may
do something, with the `Right`s that go with it. Needs `pip install "sbrpc[emulator]"`.
"""

try:
    from sbrpc.emulator.access import AccessKey, Right
    from sbrpc.emulator.broker import BrokerError
    from sbrpc.emulator.emulator import Emulator
    from sbrpc.emulator.http.tls import TlsUnavailable
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'sbrpc.emulator needs {error.name}: pip install "sbrpc[emulator]"', name=error.name
    ) from error

__all__ = ["AccessKey", "BrokerError", "Emulator", "Right", "TlsUnavailable"]
