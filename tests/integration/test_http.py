"""The HTTP port on a real socket: the server's manners, TLS beside plain HTTP, and the JSON API."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from sbrpc.emulator import Emulator
from sbrpc.emulator.http.messages import Request, Response
from sbrpc.emulator.http.server import HttpFront, HttpLimits
from sbrpc.emulator.http.tls import Certificate
from sbrpc.topology import Queue, Subscription, Topic

LIMITS = HttpLimits(header_size=2000, body_size=1000, connections=3, idle_time=0.3, request_time=0.3)


async def echo(request: Request) -> Response:
    """Answers with what it was asked."""
    if request.path == "/fail":
        raise RuntimeError("the handler fails")
    if request.path == "/slow":
        await asyncio.sleep(0.2)
    return Response(200, f"{request.method} {request.path} {len(request.body)} {request.scheme}".encode())


class Server:
    """A server on a free port, and raw connections to it."""

    def __init__(self, front: HttpFront, port: int) -> None:
        self.front = front
        self.port = port

    async def say(self, *pieces: bytes, end: bool = False) -> bytes:
        """Everything that is answered to some bytes until the server hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if end:
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), 10)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    certificate = Certificate()
    front = HttpFront(echo, certificate=certificate, limits=LIMITS)
    yield Server(front, await front.listen("127.0.0.1", 0))
    await front.close()
    await front.close()
    certificate.remove()


def request(path: str = "/x", method: str = "GET", *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


LAST = "Connection: close"


async def test_keep_alive_and_pipelining(server: Server) -> None:
    """Requests on one connection are answered in order, however their bytes are cut."""
    stream = request("/1") + request("/2", "POST", body=b"abc") + request("/3", "GET", LAST)
    whole = await server.say(stream)
    bytewise = await server.say(*(stream[index : index + 1] for index in range(len(stream))))
    for answer in (whole, bytewise):
        assert answer.count(b"HTTP/1.1 200 OK") == 3
        places = [answer.index(text) for text in (b"GET /1 0 http", b"POST /2 3 http", b"GET /3 0 http")]
        assert places == sorted(places)


async def test_head_has_no_body(server: Server) -> None:
    """A HEAD request gets the length of the body and not the body."""
    answer = await server.say(request("/x", "HEAD", LAST))
    assert b"Content-Length: 14" in answer or b"content-length: 14" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_expect_continue(server: Server) -> None:
    """A client that waits for permission to send its body gets it."""
    head = request("/x", "PUT", "Expect: 100-continue", "Content-Length: 3", LAST)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(head)
    assert (await reader.readline()).startswith(b"HTTP/1.1 100")
    writer.write(b"abc")
    assert b"PUT /x 3" in await reader.read()
    writer.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00garbage\r\n\r\n", b"400"),
        (b"AMQP\x00\x01\x00\x00\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (request("/x", "GET", "X: " + "y" * 4000), b"431"),
        (request("/x", "POST", body=b"z" * 5000), b"413"),
        (request("/x", "POST", "Transfer-Encoding: chunked") + b"7d0\r\n" + b"z" * 2000, b"413"),
        (request("/x", "POST", "Content-Length: 3", "Content-Length: 4"), b"400"),
    ],
)
async def test_what_is_refused(server: Server, data: bytes, status: bytes) -> None:
    """What is no HTTP, or too much of it, gets an error and the end of its connection."""
    answer = await server.say(data)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"200 OK" in await server.say(request("/x", "GET", LAST))


async def test_no_bytes_end_anything_but_their_own_connection(server: Server) -> None:
    """Requests with bytes changed, taken out or put in are answered or not, and others are answered still."""
    chance = random.Random(7)
    whole = request("/x?a=%20", "POST", "X-Header: value", "Expect: 100-continue", LAST, body=b"body" * 10)
    for _ in range(150):
        mutated = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(mutated))
            mutated[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        await server.say(bytes(mutated), end=True)
    assert b"200 OK" in await server.say(request("/x", "GET", LAST))


async def test_slow_and_silent_clients_are_hung_up_on(server: Server) -> None:
    """A connection that sends nothing, or never finishes, ends by itself."""
    assert await server.say() == b""
    assert await server.say(b"GET / HT") == b""
    assert await server.say(request("/x", "POST", "Content-Length: 10") + b"abc") == b""


async def test_client_that_goes_away(server: Server) -> None:
    """A client that ends in the middle of a request ends only its own connection."""
    assert b"200 OK" not in await server.say(request("/x", "POST", "Content-Length: 10") + b"abc", end=True)
    assert await server.say(end=True) == b""
    assert b"200 OK" in await server.say(request("/x", "GET", LAST))


async def test_failing_handler(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake of ours is a 500 without its inside, and a log entry with it."""
    answer = await server.say(request("/fail", "GET", LAST))
    assert b"500 Internal Server Error" in answer
    assert b"the handler fails" not in answer
    assert "the handler fails" in caplog.text


async def test_number_of_connections_is_limited(server: Server) -> None:
    """Above the limit connections end at once, and there is room again when others have ended."""
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert await server.say(request("/x", "GET", LAST)) == b""
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert b"200 OK" in await server.say(request("/x", "GET", LAST))


async def test_closing_lets_requests_finish(server: Server) -> None:
    """What has begun when the server closes is answered, and told that it was the last."""
    answer = asyncio.create_task(server.say(request("/slow")))
    await asyncio.sleep(0.1)
    await server.front.close()
    assert b"GET /slow" in await answer
    assert b"connection: close" in (await answer).lower()
    with pytest.raises(OSError):
        await server.say(request())


async def test_tls_and_plain_on_the_same_port(server: Server) -> None:
    """The first byte tells TLS from HTTP; both are served side by side, with keep-alive."""
    context = ssl.create_default_context(cafile=str(server.front.certificate.file))
    for host in ("localhost", "127.0.0.1"):
        async with httpx.AsyncClient(verify=context) as client:
            for _ in range(2):
                assert (await client.get(f"https://{host}:{server.port}/x")).text == "GET /x 0 https"
            assert (await client.get(f"http://{host}:{server.port}/x")).text == "GET /x 0 http"
            body = b"z" * 1000
            assert (
                await client.put(f"https://{host}:{server.port}/x", content=body)
            ).text == "PUT /x 1000 https"


async def test_broken_tls_ends_only_its_connection(server: Server) -> None:
    """Garbage that begins like TLS is answered with an alert at most."""
    assert b"HTTP" not in await server.say(b"\x16\x03\x01\x00\x05garbage and more of it")
    assert b"200 OK" in await server.say(request("/x", "GET", LAST))


async def test_tls_without_the_package(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the package for certificates TLS is refused, the log says what to install, plain HTTP works."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "sbrpc.emulator.http.certificate", raising=False)
    caplog.set_level(logging.WARNING)
    async with Emulator(http_port=0) as emulator, httpx.AsyncClient(verify=False) as client:
        with pytest.raises(httpx.ConnectError, match=r"(?i)handshake.failure"):
            await client.get(emulator.http_url.replace("http", "https"))
        assert "pip install 'sbrpc[emulator-tls]'" in caplog.text
        assert (await client.get(f"{emulator.http_url}/health")).status_code == 200
        with pytest.raises(RuntimeError, match="emulator-tls"):
            _ = emulator.certificate_file


# -- the emulator's site ------------------------------------------------------------------------------------


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    queues = [Queue("movies", max_delivery_count=1), Queue("replies", requires_session=True)]
    topics = [Topic("events", (Subscription("all"),))]
    async with Emulator(queues=queues, topics=topics, http_port=0) as emulator:
        yield emulator


@pytest.fixture
async def api(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=emulator.http_url + "/api") as client:
        yield client


async def fill(emulator: Emulator) -> None:
    """One active message, one dead letter, and a session with state in use afterwards."""
    async with ServiceBusClient.from_connection_string(emulator.connection_string) as client:
        sender, receiver = client.get_queue_sender("movies"), client.get_queue_receiver("movies")
        async with sender, receiver:
            message = ServiceBusMessage(
                '{"id": 1}',
                subject="get_movie",
                message_id="m1",
                content_type="application/json",
                application_properties={"text": "x", "number": 5},
            )
            await sender.send_messages(message)
            (received,) = await receiver.receive_messages(max_wait_time=5)
            await receiver.dead_letter_message(received, "Poison", "it kills")
            await sender.send_messages(ServiceBusMessage(b"\x00\xff", message_id="m2"))
        async with client.get_queue_sender("replies") as sender:
            await sender.send_messages(ServiceBusMessage("r", session_id="s1"))


async def get(api: httpx.AsyncClient, path: str, **query: Any) -> Any:
    response = await api.get(path, params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def test_messages_can_be_looked_at(emulator: Emulator, api: httpx.AsyncClient) -> None:
    """Looking shows what a message says and changes nothing: no lock, no count, no cost."""
    await fill(emulator)
    emulator.broker.reset_books()
    (dead,) = (await get(api, "/messages", entity="movies/$DeadLetterQueue"))["messages"]
    assert (dead["message_id"], dead["subject"], dead["state"]) == ("m1", "get_movie", "active")
    assert (dead["dead_letter_reason"], dead["dead_letter_description"]) == ("Poison", "it kills")
    assert dead["properties"] == {"text": "x", "number": 5}
    assert dead["body"] == {"kind": "text", "text": '{"id": 1}', "size": 9}
    (active,) = (await get(api, "/messages", entity="MOVIES"))["messages"]
    assert active["body"] == {"kind": "binary", "text": "00 ff", "size": 2}
    assert (await get(api, "/messages", entity="movies", **{"from": active["sequence_number"] + 1})) == {
        "messages": []
    }
    assert (await get(api, "/sessions", entity="replies"))["sessions"] == [
        {
            "session_id": "s1",
            "messages": 1,
            "locked": False,
            "locked_until": None,
            "locked_for": None,
            "state_size": None,
        }
    ]
    assert all(account["operations"] == 0 for account in (await get(api, "/books"))["books"].values())


async def test_replay_and_purge(emulator: Emulator, api: httpx.AsyncClient) -> None:
    """Dead letters go back to their entity without their reason; a purge leaves nothing active."""
    await fill(emulator)
    (dead,) = (await get(api, "/messages", entity="movies/$DeadLetterQueue"))["messages"]
    body = {"entity": "movies", "sequence_numbers": [dead["sequence_number"] + 99]}
    assert (await api.post("/replay", json=body)).json() == {"replayed": 0}
    body = {"entity": "movies/$DeadLetterQueue", "sequence_numbers": [dead["sequence_number"]]}
    assert (await api.post("/replay", json=body)).json() == {"replayed": 1}
    messages = (await get(api, "/messages", entity="movies"))["messages"]
    assert [each["message_id"] for each in messages] == ["m2", "m1"]
    assert messages[1]["dead_letter_reason"] is None
    assert messages[1]["delivery_count"] == 0
    async with (
        ServiceBusClient.from_connection_string(emulator.connection_string) as client,
        client.get_queue_receiver("movies") as receiver,
    ):
        (held,) = await receiver.receive_messages(max_wait_time=5)
        assert held.message_id == "m2"
        assert (await api.post("/purge", json={"entity": "movies"})).json() == {"purged": 1}
    assert (await get(api, "/messages", entity="movies"))["messages"][0]["state"] == "locked"


async def test_clock(emulator: Emulator, api: httpx.AsyncClient) -> None:
    """The emulator's time can be read and moved, and what is due happens."""
    before = (await get(api, "/clock"))["clock"]
    after = (await api.post("/clock", json={"advance": 3600})).json()["clock"]
    assert after["now"] - before["now"] >= 3600
    assert after["ahead"] == pytest.approx(3600, abs=1)


async def test_connections_can_be_seen_and_cut(emulator: Emulator, api: httpx.AsyncClient) -> None:
    """Each connection is listed with its links, and ends when it is cut."""
    async with (
        ServiceBusClient.from_connection_string(emulator.connection_string) as client,
        client.get_queue_receiver("replies", session_id="s9"),
    ):
        (connection,) = (await get(api, "/connections"))["connections"]
        (link,) = connection["links"]
        assert (link["role"], link["entity"], link["session_id"]) == ("receives from", "replies", "s9")
        assert connection["container_id"].startswith("SBReceiver-")
        assert "servicebus" in connection["product"]
        assert (await api.delete("/connections/99")).status_code == 404
        assert (await api.delete(f"/connections/{connection['id']}")).json() == {"cut": 1}
        await asyncio.sleep(0.05)
        assert (await get(api, "/connections"))["connections"] == []
        assert (await api.delete("/connections")).json() == {"cut": 0}


async def test_books_and_traffic(emulator: Emulator, api: httpx.AsyncClient) -> None:
    """What happened is counted per entity, and told in order."""
    await fill(emulator)
    account = (await get(api, "/books"))["books"]["movies"]
    assert (account["sends"], account["receives"]) == (2, 1)
    assert emulator.books["movies"].sends == 2
    traffic = (await get(api, "/traffic"))["traffic"]
    told = [entry["what"] for entry in traffic if entry["entity"] == "movies"]
    assert [what for what in told if what != "managed"] == ["sent", "delivered", "dead-lettered", "sent"]
    assert (await get(api, "/traffic", after=traffic[-1]["number"])) == {"traffic": []}
    assert (await api.delete("/books")).json()["books"]["movies"]["operations"] == 0


async def test_state_is_everything_at_once(emulator: Emulator, api: httpx.AsyncClient) -> None:
    """The page gets all it shows with one request."""
    await fill(emulator)
    state = await get(api, "/state")
    assert state["namespace"] == "sbemulatorns"
    movies, replies = state["queues"]
    assert (movies["active"], movies["dead_letter"], replies["sessions"]) == (1, 1, 1)
    (topic,) = state["topics"]
    assert topic["subscriptions"][0]["rules"] == [
        {"name": "$Default", "filter": "everything", "action": None}
    ]
    assert {"connections", "faults", "clock", "traffic"} <= set(state)


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "problem"),
    [
        ("GET", "/nothing", None, 404, "There are: /api/state"),
        ("PUT", "/state", None, 405, "only GET"),
        ("GET", "/messages", None, 400, "?entity=queue"),
        ("GET", "/messages?entity=nowhere", None, 404, "could not be found"),
        ("GET", "/messages?entity=movies&count=-1", None, 400, "'count' must be a number"),
        ("GET", "/sessions?entity=movies", None, 409, "session"),
        ("POST", "/purge", {}, 400, "entity"),
        ("POST", "/purge", {"entity": "nowhere"}, 404, "could not be found"),
        ("POST", "/replay", {"entity": "movies", "sequence_numbers": ["x"]}, 400, "sequence_numbers.0"),
        ("POST", "/clock", {"advance": -1}, 400, "advance"),
        ("POST", "/clock", {"advance": "NaN"}, 400, "advance"),
        ("POST", "/faults", {"kind": "magic"}, 400, "magic"),
        ("DELETE", "/faults/7", None, 404, "No fault '7'"),
    ],
)
async def test_wrong_requests(
    api: httpx.AsyncClient, method: str, path: str, sent: Any, status: int, problem: str
) -> None:
    """What cannot be answered is told with what is wrong."""
    response = await api.request(method, path, json=sent)
    assert (response.status_code, problem in response.text) == (status, True), response.text


async def test_bodies_must_say_that_they_are_json(api: httpx.AsyncClient) -> None:
    """Other bodies, which a foreign page could send without asking, are refused; so is what is no JSON."""
    form = {"Content-Type": "text/plain"}
    assert (await api.post("/purge", content='{"entity":"movies"}', headers=form)).status_code == 415
    broken = await api.post("/purge", content="{", headers={"Content-Type": "application/json"})
    assert (broken.status_code, "not JSON" in broken.text) == (400, True)


async def test_restart_keeps_the_ports(emulator: Emulator, api: httpx.AsyncClient) -> None:
    """A restart drops the connections and listens again where it did, with the same certificate."""
    before = (emulator.http_url, emulator.certificate_file)
    assert (await get(api, "/clock"))["clock"]["ahead"] == 0
    await emulator.restart()
    assert (emulator.http_url, emulator.certificate_file) == before
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{emulator.http_url}/health")).status_code == 200


async def test_a_taken_port_leaves_nothing_behind() -> None:
    """When the HTTP port is taken the emulator does not start, and its other port is free again."""
    async with Emulator(http_port=0) as emulator:
        second = Emulator(port=0, http_port=emulator.http_port)
        with pytest.raises(OSError):
            await second.start()
        with pytest.raises(RuntimeError, match="not running"):
            _ = second.connection_string
    without = Emulator()
    async with without:
        with pytest.raises(RuntimeError, match="http_port"):
            _ = without.http_url
