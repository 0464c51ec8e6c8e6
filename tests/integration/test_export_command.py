"""`sbrpc export`, through its entry point; each format read by its own tool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pycep
import pytest
import yaml
from jsonschema import Draft202012Validator

from sbrpc.emulator.config import parse
from tests import forked
from tests.conformance.drivers import JavaScript, Unavailable

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = ["tests.exported:service", "tests.exported:api", "tests.exported:events"]


def sbrpc(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command with nothing in the environment that says where Service Bus is."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SERVICEBUS_")}
    run = forked.run("-m", "sbrpc", *arguments, env=environment | {"COLUMNS": "200", "NO_COLOR": "1"})
    out, err = run.stdout.decode(), run.stderr.decode()
    assert run.returncode == status, err
    return subprocess.CompletedProcess(run.args, run.returncode, out, err)


@pytest.fixture(scope="module")
def exported() -> Any:
    """The text of a format, each made once."""
    made: dict[str, str] = {}

    def get(format: str) -> str:
        if format not in made:
            done = sbrpc("export", format, *PROCESSES)
            assert done.stderr == ""
            made[format] = done.stdout
        return made[format]

    return get


def test_bicep(exported: Any) -> None:
    """A Bicep parser finds the namespace, each entity in its place, and a role assignment for each right."""
    found = pycep.BicepParser().parse(text=exported("bicep"))
    assert {
        "namespaceName",
        "location",
        "sku",
        "servicePrincipalId",
        "apiPrincipalId",
        "eventsPrincipalId",
    } <= {*found["parameters"]}
    kinds: dict[str, list[str]] = {}
    for name, resource in found["resources"].items():
        kinds.setdefault(resource["type"], []).append(name)
    bus = "Microsoft.ServiceBus/namespaces"
    assert kinds[f"{bus}/queues"] == ["ratingsQueue", "gatewayRepliesQueue", "moviesQueue"]
    assert kinds[f"{bus}/topics/subscriptions"] == ["movieEventsTopicViews"]
    assert len(kinds[f"{bus}/topics/subscriptions/rules"]) == 3
    assert len(kinds["Microsoft.Authorization/roleAssignments"]) == 9
    views = found["resources"]["movieEventsTopicViews"]["config"]
    assert views["properties"]["requiresSession"] is True
    rule = found["resources"]["movieEventsTopicViewsDefault"]["config"]
    assert rule["name"] == "$Default"
    assert "1=1" not in exported("bicep")


def test_terraform(exported: Any, tmp_path: Path) -> None:
    """An HCL parser finds the same, and `terraform fmt`, where there is one, has nothing to mend."""
    text = exported("terraform")
    found = hcl2.loads(text)
    resources = [next(iter(each)).strip('"') for each in found["resource"]]
    assert resources.count("azurerm_servicebus_queue") == 2
    assert resources.count("azurerm_servicebus_subscription_rule") == 3
    assert resources.count("azurerm_role_assignment") == 9
    assert len(found["data"]) == 1
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("the HCL parser read it; there is no terraform here to ask as well")
    (tmp_path / "main.tf").write_text(text)
    done = subprocess.run(
        [terraform, "fmt", "-check", "-diff", str(tmp_path / "main.tf")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_az(exported: Any, tmp_path: Path) -> None:
    """Bash runs it, here against an `az` that writes down what it is asked for."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    script, log, az = tmp_path / "main.sh", tmp_path / "log", tmp_path / "az"
    script.write_text(exported("az"))
    az.write_text(
        f'#!{bash}\necho "$*" >> {log}\ncase "$*" in *show*) echo /ns;; *rule\\ list*) echo found;; esac\n'
    )
    az.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "RESOURCE_GROUP": "group",
        "NAMESPACE": "contoso",
        "API_PRINCIPAL_ID": "11",
    }
    run = subprocess.run([bash, str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == "SERVICEBUS_FULLY_QUALIFIED_NAMESPACE=contoso.servicebus.windows.net\n"
    commands = log.read_text().splitlines()
    place = "--resource-group group --namespace-name contoso"
    assert (
        f"servicebus queue create {place} --output none --name gateway.replies --lock-duration PT1M "
        "--max-delivery-count 10 --max-size 1024 --enable-session true"
    ) in commands
    where = f"{place} --topic-name movie-events --subscription-name views"
    assert f"servicebus topic subscription rule delete {where} --name $Default" in commands
    assigned = [command for command in commands if command.startswith("role assignment create")]
    assert len(assigned) == 4
    assert all("--assignee-object-id 11 " in command for command in assigned)
    missing = subprocess.run(
        [bash, str(script)], env={"PATH": environment["PATH"]}, capture_output=True, timeout=60
    )
    assert missing.returncode != 0
    assert b"RESOURCE_GROUP: set it to a resource group" in missing.stderr


def test_roles(exported: Any) -> None:
    """Sender or Receiver on one entity each, and nothing that manages or owns."""
    assignments = json.loads(exported("roles"))["assignments"]
    assert len(assignments) == 9
    assert {each["role"] for each in assignments} == {
        "Azure Service Bus Data Sender",
        "Azure Service Bus Data Receiver",
    }
    views = next(each for each in assignments if each["process"] == "events")
    assert views["scope"] == "/topics/movie-events/subscriptions/views"
    assert views["entity"] == "movie-events/Subscriptions/views"
    assert views["right"] == "Listen"


def test_emulator_config(exported: Any) -> None:
    """Our emulator reads it without a warning, and finds what the programs need."""
    config = parse(exported("emulator-config"))
    assert config.warnings == ()
    queues = {queue.name: queue for queue in config.queues}
    assert {name: queue.requires_session for name, queue in queues.items()} == {
        "gateway.replies": True,
        "movies": False,
        "ratings": False,
    }
    assert queues["movies"].lock_duration == 30
    (topic,) = config.topics
    (views,) = topic.subscriptions
    assert [rule.name for rule in views.rules] == [
        "movies.movie.created.v1",
        "movies.movie.deleted.v1",
        "sbrpc-replay",
    ]


def test_keda() -> None:
    """A YAML parser finds an object for each program that takes messages, and one way to sign in."""
    text = sbrpc("export", "keda", *PROCESSES, "--namespace", "contoso", "--max", "7").stdout
    authentication, events, service = yaml.safe_load_all(text)
    assert authentication["spec"]["podIdentity"] == {"provider": "azure-workload"}
    assert (events["metadata"]["name"], events["spec"]["minReplicaCount"]) == ("events", 0)
    assert (service["metadata"]["name"], service["spec"]["minReplicaCount"]) == ("service", 1)
    assert service["spec"]["maxReplicaCount"] == 7
    (trigger,) = events["spec"]["triggers"]
    assert trigger == {
        "type": "azure-servicebus",
        "metadata": {
            "namespace": "contoso",
            "topicName": "movie-events",
            "subscriptionName": "views",
            "messageCount": "8",
        },
        "authenticationRef": {"name": authentication["metadata"]["name"]},
    }
    (trigger,) = service["spec"]["triggers"]
    assert (trigger["metadata"]["queueName"], trigger["metadata"]["messageCount"]) == ("movies", "16")


class Parser(JavaScript):
    """AsyncAPI's own parser, installed as the JavaScript SDK is for other tests."""

    HOME = Path(__file__).resolve().parent / "asyncapi"
    PACKAGE = "@asyncapi/parser"


def test_asyncapi(exported: Any) -> None:
    """AsyncAPI's parser has nothing to complain of, and finds calls with replies, and events."""
    try:
        parser = Parser()
    except Unavailable as reason:
        pytest.skip(str(reason))
    done = subprocess.run(
        [parser.node, "read.mjs"],
        cwd=parser.HOME,
        input=exported("asyncapi"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["version"], found["problems"]) == ("3.1.0", [])
    operations = found["operations"]
    assert operations["movies.get_movie"] == {
        "action": "receive",
        "channels": ["movies"],
        "messages": ["get_movie"],
        "reply": {
            "location": "$message.header#/reply_to",
            "channel": None,
            "messages": ["movies.get_movie.reply", "error", "movies.get_movie.NoSuchMovie"],
        },
    }
    assert operations["call.ratings.rate"]["reply"]["channel"] == "gateway.replies"
    assert "reply" not in operations["movies.forget"]
    assert operations["movie-events.views.handle"]["channels"] == ["movie-events/Subscriptions/views"]


def test_asyncapi_page() -> None:
    """The same as a page."""
    done = sbrpc("export", "asyncapi", *PROCESSES, "--html", "--title", "Shop", "--version", "7")
    assert "<title>Shop</title>" in done.stdout
    assert "<small>7</small>" in done.stdout


def test_json_schema(exported: Any) -> None:
    """A validator takes it, recursion included."""
    document = json.loads(exported("json-schema"))
    Draft202012Validator.check_schema(document)
    reply = Draft202012Validator({**document, "$ref": "#/$defs/movies.get_movie.reply"})
    assert reply.is_valid({"id": 1, "title": "Alien", "sequel": {"id": 2, "title": "Aliens"}})
    assert not reply.is_valid({"id": 1, "title": "Alien", "sequel": {"id": 2}})


def test_processes_have_names_and_files(tmp_path: Path) -> None:
    """A process is named as one says, and the text goes into a file where one is named."""
    file = tmp_path / "roles.json"
    done = sbrpc("export", "roles", "billing=tests.exported:api", "--output", str(file))
    assert done.stdout == ""
    assert {each["process"] for each in json.loads(file.read_text())["assignments"]} == {"billing"}


def test_a_program_may_be_made_by_a_function_that_opens_things() -> None:
    """An async context manager, found as the `app` of its module; what runs beside servers is left out."""
    done = sbrpc("export", "roles", "ratings=tests.exported")
    assignments = json.loads(done.stdout)["assignments"]
    assert [(each["process"], each["right"], each["entity"]) for each in assignments] == [
        ("ratings", "Send", "all.replies"),
        ("ratings", "Listen", "ratings"),
    ]


def test_what_is_not_said_is_warned_of() -> None:
    """On stderr, so that stdout stays what it has to be."""
    done = sbrpc("export", "roles", "tests.exported:server")
    assert "no reply queue here is named like *.replies" in done.stderr
    assert json.loads(done.stdout)["assignments"]


@pytest.mark.parametrize(
    ("reference", "status", "problem"),
    [
        ("tests.exported:servicee", 2, "did you mean 'service'?"),
        ("tests.nothing:x", 2, "there is no module 'tests.nothing'"),
        ("nonsense!", 2, "is not written module:name"),
        ("tests.exported:GetMovie", 1, "is no server, client, event bus"),
    ],
)
def test_mistakes_are_named(reference: str, status: int, problem: str) -> None:
    """Each ends with a line that says what is wrong and a status that says that something is."""
    assert problem in sbrpc("export", "bicep", reference, status=status).stderr
