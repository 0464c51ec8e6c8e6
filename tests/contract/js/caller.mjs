// A caller written from docs/wire-contract.md with the JavaScript SDK. Prints what it got as one JSON object.
//
// Usage: node caller.mjs <connection string>

import { createRequire } from "node:module";
import { randomUUID } from "node:crypto";
import { pathToFileURL } from "node:url";

// The SDK is installed once, for the conformance scenarios.
const require = createRequire(new URL("../../conformance/js/package.json", import.meta.url));
const { ServiceBusClient } = require("@azure/service-bus");

const SESSION = "javascript-caller";
const client = new ServiceBusClient(process.argv[2]);
const requests = client.createSender("movies");
const replies = await client.acceptSession("gateway.replies", SESSION);
const plain = client.createReceiver("plain.replies");
const dead = client.createReceiver("movies", { subQueueType: "deadLetter" });

async function send(subject, body, more = {}) {
  const messageId = randomUUID();
  await requests.sendMessages({
    // Bytes, so that the SDK does not turn them into JSON itself.
    body: Buffer.from(typeof body === "string" ? body : JSON.stringify(body)),
    contentType: "application/json",
    subject,
    messageId,
    replyTo: "gateway.replies",
    replyToSessionId: SESSION,
    timeToLive: 30_000,
    ...more,
  });
  return messageId;
}

async function take(receiver) {
  const [message] = await receiver.receiveMessages(1, { maxWaitTimeInMs: 10_000 });
  if (message === undefined) {
    throw new Error("nothing came within ten seconds");
  }
  await receiver.completeMessage(message);
  return message;
}

const parsed = (message) => {
  const { body } = message;
  if (Buffer.isBuffer(body)) {
    return body.length === 0 ? null : JSON.parse(body.toString());
  }
  return body === "" ? null : body;
};

async function ask(subject, body, more) {
  const id = await send(subject, body, more);
  const reply = await take(replies);
  if (reply.correlationId !== id || reply.sessionId !== SESSION) {
    throw new Error(`a reply to ${reply.correlationId} in ${reply.sessionId} came instead of one to ${id}`);
  }
  return { status: reply.applicationProperties["sbrpc-status"], body: parsed(reply) };
}

const got = {};
got.value = await ask("get_movie", { id: 1 });
got.metadata = await ask("get_movie", { id: 1 }, { applicationProperties: { title: "Brazil" } });
got.typed = await ask("get_movie", { id: 0 });
got.malformed = await ask("get_movie", "{");
got.wrong = await ask("get_movie", { id: "one" });
got.unknown = await ask("no_such_method", {});
got.late = await ask("get_movie", { id: 1 }, { applicationProperties: { "sbrpc-timeout-ms": 0 } });

await send("get_movie", { id: 3 }, { replyTo: "plain.replies", replyToSessionId: undefined });
got.plain = parsed(await take(plain));

await send("forget", { id: 5 }, { replyTo: undefined, replyToSessionId: undefined });
await send("get_movie", { id: 1 }, { replyTo: "elsewhere" });
got.forbidden = (await take(dead)).deadLetterReason;
await send("forget", "{", { replyTo: undefined, replyToSessionId: undefined });
got.mute = (await take(dead)).deadLetterReason;

await send("export", 3);
const parts = [];
do {
  parts.push(await take(replies));
} while (!parts.at(-1).applicationProperties["sbrpc-end"]);
parts.sort((a, b) => a.applicationProperties["sbrpc-seq"] - b.applicationProperties["sbrpc-seq"]);
got.stream = parts.slice(0, -1).map((part) => parsed(part).id);

console.log(JSON.stringify(got));
await client.close();
process.exit(0);
