"""The administration client of the JavaScript SDK against the emulator, through TLS."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import anyio.to_thread
import pytest

from sbrpc.emulator import Emulator
from tests.conformance.drivers import JavaScript, Unavailable

SDK = JavaScript.HOME / "node_modules" / "@azure" / "service-bus"

# Only against hanging for ever; nothing is measured with it.
HANGS = 60

SCRIPT = """
const [sdk, connection] = process.argv.slice(1);
const { ServiceBusAdministrationClient } = require(sdk);
const attempt = call => call().catch(error => [error.code, error.statusCode]);
const all = async pages => {
  const found = [];
  for await (const page of pages) found.push(page.length);
  return found;
};
(async () => {
  const client = new ServiceBusAdministrationClient(connection), told = {};
  const key = { claimType: "SharedAccessKey", accessRights: ["Send"], keyName: "k" };
  Object.assign(key, { primaryKey: "cA==", secondaryKey: "cw==" });
  const created = await client.createQueue("js/q",
    { lockDuration: "PT30S", requiresSession: true, userMetadata: "a<b", authorizationRules: [key] });
  created.maxDeliveryCount = 5;
  const { name, lockDuration, requiresSession, userMetadata, authorizationRules, maxDeliveryCount } =
    await client.updateQueue(created);
  told.queue = { name, lockDuration, requiresSession, userMetadata, authorizationRules, maxDeliveryCount };
  for (let n = 0; n < 7; n++) await client.createQueue(`q${n}`);
  told.pages = await all(client.listQueues().byPage({ maxPageSize: 3 }));
  await client.createTopic("t");
  const filter = { sqlExpression: "a = @x", sqlParameters: { "@x": 5 } };
  await client.createSubscription("t", "s", { defaultRuleOptions: { name: "first", filter } });
  await client.createRule("t", "s", "second",
    { subject: "x", applicationProperties: { n: 1, s: "t", b: true, d: new Date(0) } },
    { sqlExpression: "SET a = 1" });
  told.rules = [];
  for await (const { name, filter, action } of client.listRules("t", "s"))
    told.rules.push({ name, filter, action });
  told.exists = [await client.queueExists("q1"), await client.queueExists("no")];
  told.exists.push(await client.ruleExists("t", "s", "second"));
  told.active = (await client.getSubscriptionRuntimeProperties("t", "s")).activeMessageCount;
  told.namespace = (await client.getNamespaceProperties()).name;
  told.again = await attempt(() => client.createQueue("q1"));
  told.missing = await attempt(() => client.getQueue("no"));
  await client.deleteRule("t", "s", "first");
  await client.deleteSubscription("t", "s");
  await client.deleteTopic("t");
  told.deleted = await client.topicExists("t");
  console.log(JSON.stringify(told));
})().catch(error => { console.error(error); process.exit(1); });
"""


async def test_the_javascript_client_administers_the_emulator() -> None:
    """It creates, changes, lists by pages and deletes, and sees rules, keys and errors as it expects them."""
    try:
        node = (await anyio.to_thread.run_sync(JavaScript)).node
    except Unavailable as reason:
        pytest.skip(str(reason))
    async with Emulator(http_port=0) as emulator:
        process = await asyncio.create_subprocess_exec(
            *(node, "-e", SCRIPT, "--", str(SDK), emulator.admin_connection_string),
            env={**os.environ, "NODE_EXTRA_CA_CERTS": emulator.certificate_file},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, errors = await asyncio.wait_for(process.communicate(), HANGS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, errors.decode()
    told: dict[str, Any] = json.loads(out)
    assert told["queue"] == {
        "name": "js/q",
        "lockDuration": "PT30S",
        "requiresSession": True,
        "userMetadata": "a<b",
        "authorizationRules": [
            {
                "claimType": "SharedAccessKey",
                "accessRights": ["Send"],
                "keyName": "k",
                "primaryKey": "cA==",
                "secondaryKey": "cw==",
            }
        ],
        "maxDeliveryCount": 5,
    }
    assert told["pages"] == [3, 3, 2]
    properties = {"n": 1, "s": "t", "b": True, "d": "1970-01-01T00:00:00.000Z"}
    assert told["rules"] == [
        {"name": "first", "filter": {"sqlExpression": "a = @x", "sqlParameters": {"@x": 5}}, "action": {}},
        {
            "name": "second",
            "filter": {"subject": "x", "applicationProperties": properties},
            "action": {"sqlExpression": "SET a = 1"},
        },
    ]
    assert told["exists"] == [True, False, True]
    assert (told["active"], told["namespace"], told["deleted"]) == (0, "sbemulatorns", False)
    assert told["again"] == ["MessageEntityAlreadyExistsError", 409]
    assert told["missing"] == ["MessageEntityNotFoundError", 404]
