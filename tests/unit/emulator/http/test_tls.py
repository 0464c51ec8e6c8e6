"""TLS over buffers: a real client and our server with a fake wire between them."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator

import pytest

from sbrpc.emulator.http.tls import Certificate, PlainLayer, TlsLayer


@pytest.fixture(scope="module")
def certificate() -> Iterator[Certificate]:
    certificate = Certificate(["emulator.test"])
    yield certificate
    certificate.remove()


class Client:
    """The client's end, verifying as strictly as Python can."""

    def __init__(self, certificate: Certificate, name: str) -> None:
        context = ssl.create_default_context(cafile=str(certificate.file))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.server = TlsLayer(certificate.context)
        self.received = b""

    def exchange(self) -> None:
        """Carry bytes both ways until nothing moves, in pieces of one byte from the client."""
        while True:
            data = self.outgoing.read()
            for index in range(len(data)):
                self.received += self.server.receive(data[index : index + 1])
            answer = self.server.data_to_send()
            self.incoming.write(answer)
            if not data and not answer:
                return

    def shake_hands(self) -> None:
        for _ in range(4):
            if self.is_done():
                return
        raise AssertionError("the handshake does not end")

    def is_done(self) -> bool:
        done = True
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        self.exchange()
        return done


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "emulator.test"])
def test_clients_trust_the_certificate_for_its_names(certificate: Certificate, name: str) -> None:
    """A client that trusts the authority verifies each name, and bytes go both ways."""
    client = Client(certificate, name)
    client.shake_hands()
    client.tls.write(b"question")
    client.exchange()
    assert client.received == b"question"
    client.server.send(b"answer")
    client.exchange()
    assert client.tls.read(100) == b"answer"
    client.server.end()
    client.exchange()
    assert client.tls.read(100) == b""


def test_other_names_are_not_covered(certificate: Certificate) -> None:
    """A client that asks for another name notices."""
    with pytest.raises(ssl.SSLCertVerificationError):
        Client(certificate, "example.org").shake_hands()


def test_garbage_ends_the_layer_with_an_error(certificate: Certificate) -> None:
    """What is no TLS raises, and ending such a layer does not."""
    layer = TlsLayer(certificate.context)
    with pytest.raises(ssl.SSLError):
        layer.receive(b"\x16\x03\x01garbage, and enough of it to be looked at")
    layer.end()


def test_files_are_private_and_go_away() -> None:
    """Only this user can see the certificate's directory, no file has the key, and nothing is left behind."""
    certificate = Certificate()
    directory = certificate.file.parent
    assert certificate.context is certificate.context
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not any(b"PRIVATE KEY" in file.read_bytes() for file in directory.iterdir())
    first = certificate.file.read_bytes()
    certificate.remove()
    certificate.remove()
    assert not directory.exists()
    assert certificate.file.read_bytes() != first
    certificate.remove()


def test_without_tls_bytes_pass_as_they_are() -> None:
    """The plain layer changes nothing and keeps order."""
    layer = PlainLayer()
    assert layer.receive(b"in") == b"in"
    layer.send(b"a")
    layer.send(b"b")
    assert layer.data_to_send() == b"ab"
    layer.end()
    assert layer.data_to_send() == b""
