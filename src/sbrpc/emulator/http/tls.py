"""TLS on a port that also speaks plain HTTP: a certificate made when it is needed, a layer without sockets.

Owns where the certificate's files are and how long, and the two kinds of layer between socket and HTTP. Knows
no HTTP. What the certificate says is the business of `certificate`; without its package TLS is refused.
"""

from __future__ import annotations

import shutil
import ssl
import tempfile
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

__all__ = ["TLS_HANDSHAKE", "Certificate", "Layer", "PlainLayer", "TlsLayer", "TlsUnavailable"]

TLS_HANDSHAKE = 0x16
"""The first byte of a TLS connection; no HTTP request begins with it."""

_NAMES = ("localhost", "127.0.0.1", "::1")


class TlsUnavailable(RuntimeError):
    """The package that makes certificates is not installed: `pip install "sbrpc[emulator-tls]"`."""

    def __str__(self) -> str:
        return "TLS needs the cryptography package: pip install 'sbrpc[emulator-tls]'"


class Certificate:
    """A certificate for `localhost`, `127.0.0.1`, `::1` and `names`, made at the first use of it.

    `file` is the certificate authority to trust, in PEM. It lives in a directory of its own until `remove`.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = tuple(dict.fromkeys((*_NAMES, *names)))
        self._directory: Path | None = None
        self._context: ssl.SSLContext | None = None

    @property
    def file(self) -> Path:
        """The file with the authority's certificate. Raises `TlsUnavailable` without `cryptography`."""
        self._make()
        assert self._directory is not None
        return self._directory / "ca.pem"

    @property
    def context(self) -> ssl.SSLContext:
        """What a server needs to speak TLS. Raises `TlsUnavailable` without `cryptography`."""
        self._make()
        assert self._context is not None
        return self._context

    def remove(self) -> None:
        """Delete the files; a later use makes a new certificate."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = self._context = None

    def _make(self) -> None:
        if self._directory is not None:
            return
        try:
            from sbrpc.emulator.http.certificate import issue
        except ImportError as error:
            raise TlsUnavailable from error
        authority, chain, key = issue(self.names, datetime.now(timezone.utc))
        # Only this user can look into the directory; the key is gone again as soon as it is loaded.
        directory = Path(tempfile.mkdtemp(prefix="sbrpc-emulator-"))
        (directory / "ca.pem").write_bytes(authority)
        chain_file, key_file = directory / "chain.pem", directory / "key.pem"
        chain_file.write_bytes(chain)
        key_file.write_bytes(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(chain_file, key_file)
        finally:
            key_file.unlink()
        self._directory, self._context = directory, context


class Layer(Protocol):
    """What lies between the socket and HTTP."""

    scheme: str

    def receive(self, data: bytes) -> bytes:
        """Bytes from the socket in, bytes for HTTP out. Raises `ssl.SSLError` when the peer breaks TLS."""

    def send(self, data: bytes) -> None:
        """Bytes from HTTP in."""

    def end(self) -> None:
        """Nothing more will be sent."""

    def data_to_send(self) -> bytes:
        """Bytes for the socket: swap and return."""


class PlainLayer(Layer):
    """No encryption."""

    scheme = "http"

    def __init__(self) -> None:
        self._out: list[bytes] = []

    def receive(self, data: bytes) -> bytes:
        return data

    def send(self, data: bytes) -> None:
        self._out.append(data)

    def end(self) -> None:
        return

    def data_to_send(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)


class TlsLayer(Layer):
    """The server's side of TLS over two buffers."""

    scheme = "https"

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._established = False

    def receive(self, data: bytes) -> bytes:
        self._in.write(data)
        received = []
        try:
            if not self._established:
                self._tls.do_handshake()
                self._established = True
            while chunk := self._tls.read(65536):
                received.append(chunk)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass  # All there is has been read; the end of the connection shows on the socket.
        return b"".join(received)

    def send(self, data: bytes) -> None:
        self._tls.write(data)

    def end(self) -> None:
        if not self._established:
            return
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # Our good-bye is in the buffer; nobody waits for the peer's.

    def data_to_send(self) -> bytes:
        return self._out.read()
