"""The management API without a wire: requests in, responses out, against a real broker."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbrpc.emulator.access import Access, AccessKey, Right
from sbrpc.emulator.broker import Broker
from sbrpc.emulator.http.admin import Admin
from sbrpc.emulator.http.descriptions import ATOM, BUS
from sbrpc.emulator.http.messages import Request, Response
from sbrpc.topology import Queue, Rule, SqlFilter, Subscription, Topic

NOW = 1_700_000_000.0
XSI = 'xmlns:i="http://www.w3.org/2001/XMLSchema-instance"'


class Client:
    """Sends requests to the management API of a broker of its own."""

    def __init__(self, *keys: AccessKey) -> None:
        self.broker = Broker()
        self.access = Access(keys)
        self.admin = Admin(self.broker, self.access, namespace="ns", created_at=NOW)
        self.now = NOW

    def __call__(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Response:
        path, _, query = path.partition("?")
        return self.admin.handle(
            Request(
                method,
                path,
                dict(pair.split("=") for pair in query.split("&")) if query else {},
                {"host": "localhost:5300", **(headers or {})},
                body,
            ),
            self.now,
        )

    def put(self, path: str, kind: str, inside: str = "", *, match: str | None = None) -> Response:
        body = (
            f'<entry xmlns="{ATOM}"><content><{kind} xmlns="{BUS}" {XSI}>{inside}</{kind}></content></entry>'
        )
        return self("PUT", path, body.encode(), {} if match is None else {"if-match": match})


@pytest.fixture
def client() -> Client:
    return Client()


def tree(response: Response) -> ElementTree.Element:
    return ElementTree.fromstring(response.body)


def value(response: Response, name: str) -> str | None:
    return tree(response).findtext(f".//{{{BUS}}}{name}")


def titles(response: Response) -> list[str | None]:
    return [title.text for title in tree(response).iterfind(f"{{{ATOM}}}entry/{{{ATOM}}}title")]


def detail(response: Response) -> str:
    return tree(response).findtext("Detail") or ""


def test_queue_from_creation_to_deletion(client: Client) -> None:
    """A queue is created once, found, changed, listed and deleted, each with the service's status."""
    created = client.put(
        "/q?api-version=2021-05", "QueueDescription", "<MaxDeliveryCount>3</MaxDeliveryCount>"
    )
    assert (created.status, value(created, "MaxDeliveryCount")) == (201, "3")
    assert created.content_type == "application/atom+xml;type=entry;charset=utf-8"
    again = client.put("/Q", "QueueDescription")
    assert (again.status, tree(again).findtext("Code")) == (409, "409")
    changed = client.put("/q", "QueueDescription", "<LockDuration>PT5S</LockDuration>", match="*")
    assert (changed.status, value(changed, "LockDuration"), value(changed, "MaxDeliveryCount")) == (
        200,
        "PT5S",
        "3",
    )
    assert client("GET", "/Q").status == 200
    assert titles(client("GET", "/$Resources/queues")) == ["q"]
    deleted = client("DELETE", "/q")
    assert (deleted.status, deleted.body) == (200, b"")
    missing = client("GET", "/q")
    assert (missing.status, detail(missing)) == (
        404,
        "SubCode=40400. Not Found. The messaging entity 'q' could not be found.",
    )
    assert client.put("/q", "QueueDescription", match="*").status == 404


def test_topic_subscription_and_rule(client: Client) -> None:
    """What belongs to a topic has paths below it, in any case, and goes away with it."""
    assert client.put("/t", "TopicDescription").status == 201
    assert client.put("/t/subscriptions/s", "SubscriptionDescription").status == 201
    rule = '<Filter i:type="SqlFilter"><SqlExpression>a = 1</SqlExpression></Filter>'
    assert client.put("/t/subscriptions/s/rules/r", "RuleDescription", rule).status == 201
    assert titles(client("GET", "/t/Subscriptions")) == ["s"]
    assert titles(client("GET", "/T/SUBSCRIPTIONS/S/RULES")) == ["$Default", "r"]
    assert value(client("GET", "/t/subscriptions/s/rules/r"), "SqlExpression") == "a = 1"
    changed = client.put("/t/subscriptions/s/rules/r", "RuleDescription", rule.replace("1", "2"), match="*")
    assert (changed.status, value(changed, "SqlExpression")) == (200, "a = 2")
    assert client("DELETE", "/t/subscriptions/s/rules/$Default").status == 200
    assert client.broker.rules("t", "s") == [Rule("r", SqlFilter("a = 2"))]
    assert value(client("GET", "/t"), "SubscriptionCount") == "1"
    assert client("DELETE", "/t/subscriptions/s").status == 200
    assert client("DELETE", "/t").status == 200
    assert client("GET", "/t/subscriptions/s").status == 404


def test_names_with_slashes(client: Client) -> None:
    """A name may contain slashes, percent-encoded or not; `subscriptions` parts it from what is below."""
    assert client.put("/a%2Fb", "TopicDescription").status == 201
    assert client.put("/a/b/subscriptions/s", "SubscriptionDescription").status == 201
    assert value(client("GET", "/a%2Fb/subscriptions/s"), "Status") == "Active"
    assert tree(client("GET", "/a/b")).findtext(f"{{{ATOM}}}title") == "a/b"


def test_pages(client: Client) -> None:
    """A page has a second link as long as there is more, and that link leads to it."""
    for number in range(5):
        client.broker.create_queue(Queue(f"q{number}"), NOW)
    first = client("GET", "/$Resources/queues?$skip=0&$top=2&api-version=2021-05")
    assert titles(first) == ["q0", "q1"]
    links = [link.get("href") for link in tree(first).iterfind(f"{{{ATOM}}}link")]
    assert links[1:] == ["http://localhost:5300/%24Resources/queues?api-version=2021-05&$skip=2&$top=2"]
    last = client("GET", "/$Resources/queues?$skip=4&$top=2")
    assert (titles(last), len(tree(last).findall(f"{{{ATOM}}}link"))) == (["q4"], 1)
    assert titles(client("GET", "/$Resources/queues?$skip=9")) == []
    refused = client("GET", "/$Resources/queues?$skip=-1")
    assert (refused.status, "$skip must be a number" in detail(refused)) == (400, True)


def test_counts(client: Client) -> None:
    """Runtime counts and sizes are in the same entry."""
    client.broker.create_topic(Topic("t", (Subscription("s"),)), NOW)
    response = client("GET", "/t/subscriptions/s")
    counts = {element.tag.rpartition("}")[2]: element.text for element in tree(response).iter()}
    assert counts["ActiveMessageCount"] == "0"
    assert counts["TransferDeadLetterMessageCount"] == "0"
    assert counts["MessageCount"] == "0"


def test_changes_by_etag(client: Client) -> None:
    """An If-Match that names another state of the entity than the present one is refused."""
    client.put("/q", "QueueDescription")
    etag = client("GET", "/q").headers["ETag"]
    client.now += 1
    changed = client.put("/q", "QueueDescription", "<UserMetadata>x</UserMetadata>", match=etag)
    assert changed.status == 200
    assert changed.headers["ETag"] != etag
    late = client.put("/q", "QueueDescription", match=etag)
    assert (late.status, "its ETag is" in detail(late)) == (412, True)
    assert client("DELETE", "/q", headers={"if-match": etag}).status == 412
    assert client("DELETE", "/q", headers={"if-match": "*"}).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "problem"),
    [
        ("PUT", "/q", b"", 400, "not XML"),
        ("PUT", "/q/subscriptions", b"", 405, "only GET"),
        ("POST", "/q", b"", 405, "only GET, PUT, DELETE"),
        ("DELETE", "/$Resources/queues", b"", 405, "only GET"),
        ("PUT", "/$namespaceinfo", b"", 405, "only GET"),
        ("GET", "/$nothing", b"", 404, "nothing at"),
        ("GET", "/", b"", 404, "nothing at"),
        ("GET", "/nowhere/subscriptions", b"", 404, "could not be found"),
        ("DELETE", "/nowhere", b"", 404, "could not be found"),
    ],
)
def test_wrong_requests(
    client: Client, method: str, path: str, body: bytes, status: int, problem: str
) -> None:
    """What cannot be done is answered with a status and a reason in the service's form."""
    response = client(method, path, body)
    assert (response.status, problem in detail(response)) == (status, True)
    assert f"SubCode={status}00." in detail(response)


def test_descriptions_in_the_wrong_place(client: Client) -> None:
    """A description that does not fit its path, or is not understood, is refused."""
    assert "cannot describe" in detail(client.put("/t/subscriptions/s", "QueueDescription"))
    assert "is not a description" in detail(client.put("/q", "MagicDescription"))
    assert "LockDuration" in detail(client.put("/q", "QueueDescription", "<LockDuration>1</LockDuration>"))
    assert "is not a valid queue name" in detail(client.put("/q%20!", "QueueDescription"))
    assert client.put("/q", "QueueDescription", "<ForwardTo>sb://h/missing</ForwardTo>").status == 404
    client.put("/q", "QueueDescription")
    fixed = client.put("/q", "QueueDescription", "<RequiresSession>true</RequiresSession>", match="*")
    assert (fixed.status, "fixed at its creation" in detail(fixed)) == (400, True)
    bad = client.put("/t", "TopicDescription").status, client.put("/t", "QueueDescription").status
    assert bad == (201, 409)


def test_namespace(client: Client) -> None:
    """The namespace describes itself."""
    response = client("GET", "/$namespaceinfo?api-version=2021-05")
    assert (value(response, "Name"), value(response, "MessagingSKU")) == ("ns", "Standard")


def test_settings_without_a_meaning_come_back(client: Client) -> None:
    """What changes nothing in an emulator is given back as it was given, until the entity is another one."""
    client.put("/q", "QueueDescription", "<EnableBatchedOperations>false</EnableBatchedOperations>")
    assert value(client("GET", "/q"), "EnableBatchedOperations") == "false"
    client.put("/q", "QueueDescription", "<EnableExpress>true</EnableExpress>", match="*")
    assert value(client("GET", "/q"), "EnableBatchedOperations") == "false"
    client.broker.delete_queue("q", NOW)
    client.broker.create_queue(Queue("q"), NOW + 1)
    assert value(client("GET", "/q"), "EnableBatchedOperations") == "true"


AUTHORIZATION = (
    "<AuthorizationRules><AuthorizationRule><Rights><AccessRights>Send</AccessRights></Rights>"
    "<KeyName>sender</KeyName><PrimaryKey>one</PrimaryKey><SecondaryKey>two</SecondaryKey>"
    "</AuthorizationRule></AuthorizationRules>"
)


def test_keys_of_an_entity(client: Client) -> None:
    """Keys given with an entity come back, are kept by changes that do not name them, and end with it."""
    client.put("/q", "QueueDescription", AUTHORIZATION)
    client.put("/q", "QueueDescription", match="*")
    response = client("GET", "/q")
    assert [value(response, name) for name in ("KeyName", "PrimaryKey", "SecondaryKey", "AccessRights")] == [
        "sender",
        "one",
        "two",
        "Send",
    ]
    assert not client.access.enforced
    client("DELETE", "/q")
    assert client.access.keys == ()


def token(
    name: str, key: str, uri: str = "https://localhost:5300", expires: int = int(NOW) + 60
) -> dict[str, str]:
    """An Authorization header as clients make it."""
    resource = quote(uri, safe="")
    digest = hmac.new(key.encode(), f"{resource}\n{expires}".encode(), hashlib.sha256).digest()
    signature = quote(base64.b64encode(digest).decode(), safe="")
    return {"authorization": f"SharedAccessSignature sr={resource}&sig={signature}&se={expires}&skn={name}"}


def test_access_is_checked_where_there_are_keys() -> None:
    """With keys configured only genuine, valid tokens with the Manage claim get through."""
    client = Client(
        AccessKey("root", "secret", frozenset({Right.MANAGE})),
        AccessKey("reader", "other", frozenset({Right.LISTEN})),
        AccessKey("local", "third", frozenset({Right.MANAGE}), entity="mine"),
    )
    client.broker.create(
        [Queue("q"), Topic("mine", (Subscription("s"),))],
        NOW,
    )
    assert client("GET", "/q", headers=token("root", "secret")).status == 200
    assert client("GET", "/mine/subscriptions/s", headers=token("local", "third")).status == 200
    for refused in (
        {},
        {"authorization": "Bearer x"},
        token("root", "wrong"),
        token("root", "secret", expires=int(NOW) - 1),
        token("reader", "other"),
        token("local", "third"),
        token("root", "secret", "https://localhost:5300/elsewhere"),
    ):
        response = client("GET", "/q", headers=refused)
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, "SharedAccessSignature")
    assert client("GET", "/$Resources/queues", headers=token("local", "third")).status == 401


def test_operations_are_booked(client: Client) -> None:
    """Each request about an entity is a management operation on its account."""
    client.put("/q", "QueueDescription")
    client("GET", "/q")
    assert client.broker.books()["q"].management == 2


PIECES = st.sampled_from(
    [
        "q",
        "t",
        "s",
        "subscriptions",
        "rules",
        "$Default",
        "$Resources",
        "queues",
        "$namespaceinfo",
        "%2F",
        "%FF",
        "..",
    ]
)
PATHS = st.lists(PIECES | st.text(max_size=4), max_size=6).map(lambda parts: "/" + "/".join(parts))
BODIES = st.binary(max_size=60) | st.sampled_from(
    ["QueueDescription", "TopicDescription", "SubscriptionDescription", "RuleDescription"]
).map(lambda kind: f'<entry xmlns="{ATOM}"><content><{kind} xmlns="{BUS}"/></content></entry>'.encode())


@given(
    st.lists(st.tuples(st.sampled_from(["GET", "PUT", "DELETE"]), PATHS, BODIES, st.booleans()), max_size=8),
)
def test_no_request_breaks_it(requests: list[tuple[str, str, bytes, bool]]) -> None:
    """Whatever is asked in whatever order, the answer is one of the service's and well-formed."""
    client = Client()
    for method, path, body, matching in requests:
        response = client(method, path.replace("?", ""), body, {"if-match": "*"} if matching else {})
        assert response.status in (200, 201, 400, 404, 405, 409, 412)
        if response.body:
            tree(response)
