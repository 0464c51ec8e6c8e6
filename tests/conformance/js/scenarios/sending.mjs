// Getting messages in: singly, in lists, in batches, large, many, and where they cannot go.

import assert from "node:assert/strict";

import { bodies, counts, numbers, refused, texts } from "../bench.mjs";

// How far apart the clocks of the client and the namespace may be, in milliseconds.
const SKEW = 30_000;

export const scenarios = {
  "send-and-complete": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    await sender.sendMessages({ body: "hello" });
    const received = await bench.takeOne(receiver);
    assert.equal(received.body, "hello");
    assert.equal(received.deliveryCount, 0);
    assert.ok(received.sequenceNumber.gt(0));
    assert.ok(Math.abs(received.enqueuedTimeUtc - Date.now()) < SKEW);
    assert.ok(received.lockToken);
    assert.ok(received.lockedUntilUtc > Date.now());
    assert.ok(received.lockedUntilUtc <= Date.now() + 60_000 + SKEW);
    assert.equal(received.state, "active");
    assert.equal(received.deadLetterReason, undefined);
    assert.equal(received.deadLetterSource, undefined);
    await receiver.completeMessage(received);
    await bench.isEmpty(receiver);
  },

  "send-list": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(texts(10));
    const received = await bench.takeAndComplete(receiver, 10);
    assert.deepEqual(bodies(received), numbers(10));
    for (let at = 1; at < received.length; at += 1) {
      assert.ok(received[at].sequenceNumber.gt(received[at - 1].sequenceNumber));
    }
  },

  "send-batch": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    const batch = await sender.createMessageBatch({ maxSizeInBytes: 4096 });
    for (const subject of numbers(6)) {
      assert.ok(batch.tryAddMessage({ body: Buffer.alloc(500, "x"), subject }));
    }
    assert.equal(batch.tryAddMessage({ body: Buffer.alloc(1000, "x") }), false);
    assert.equal(batch.count, 6);
    await sender.sendMessages(batch);
    const received = await bench.takeAndComplete(receiver, 6);
    assert.deepEqual(
      received.map((each) => each.subject),
      numbers(6),
    );
  },

  "send-large-batch": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver({ skipParsingBodyAsJson: true })];
    const batch = await sender.createMessageBatch();
    const contents = numbers(24).map((number) => Buffer.alloc(8000, Number(number)));
    for (const body of contents) {
      assert.ok(batch.tryAddMessage({ body }));
    }
    assert.ok(batch.sizeInBytes > 190_000);
    await sender.sendMessages(batch);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver, 24)), contents);
  },

  "send-large-message": async (bench) => {
    const receiver = bench.receiver({ skipParsingBodyAsJson: true });
    const content = Buffer.from(Array.from({ length: 900_000 }, (_, at) => at % 251));
    await bench.sender().sendMessages({ body: content });
    const received = await bench.takeOne(receiver);
    assert.ok(content.equals(received.body));
    await receiver.completeMessage(received);
    await bench.isEmpty(receiver);
  },

  "send-oversize": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    await refused(
      sender.sendMessages({ body: Buffer.alloc(1024 * 1024 + 1000, "x") }),
      "MessageSizeExceeded",
    );
    await sender.sendMessages({ body: "small" });
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["small"]);
  },

  "send-singly": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver({ receiveMode: "receiveAndDelete" })];
    for (const body of numbers(1100)) {
      await sender.sendMessages({ body });
    }
    assert.deepEqual(bodies(await bench.take(receiver, 1100)), numbers(1100));
  },

  "two-thousand": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver({ receiveMode: "receiveAndDelete" })];
    const sent = texts(2000);
    for (let start = 0; start < 2000; start += 100) {
      await sender.sendMessages(sent.slice(start, start + 100));
    }
    const received = [];
    while (received.length < 2000) {
      received.push(...(await bench.take(receiver, 100)));
    }
    assert.deepEqual(bodies(received), numbers(2000));
    await bench.isEmpty(receiver);
  },

  "concurrent-senders": async (bench) => {
    const receiver = bench.receiver();
    await Promise.all(
      numbers(3).map(async (mark) => {
        const sender = bench.sender();
        for (const number of numbers(40)) {
          await sender.sendMessages({ body: `${mark}.${number}` });
        }
      }),
    );
    const received = bodies(await bench.takeAndComplete(receiver, 120));
    for (const mark of numbers(3)) {
      assert.deepEqual(
        received.filter((each) => each.startsWith(`${mark}.`)),
        numbers(40).map((number) => `${mark}.${number}`),
      );
    }
  },

  "unknown-entity": async (bench) => {
    const unknown = "MessagingEntityNotFound";
    await refused(bench.sender().sendMessages({ body: "x" }), unknown);
    await refused(bench.receiver().receiveMessages(1, { maxWaitTimeInMs: 2000 }), unknown);
    const subscription = bench.receiver({ subscription: "none" });
    await refused(subscription.receiveMessages(1, { maxWaitTimeInMs: 2000 }), unknown);
  },

  "name-ignores-case": async (bench) => {
    const receiver = bench.receiver({ entity: bench.name.replace("name", "Name") });
    await bench.sender(bench.name.toUpperCase()).sendMessages({ body: "same" });
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["same"]);
  },

  "send-to-subscription": async (bench) => {
    await refused(bench.sender(`${bench.name}/Subscriptions/all`).sendMessages({ body: "x" }));
  },

  "any-credentials": async (bench) => {
    bench.connectionString = bench.connectionString
      .replace(/SharedAccessKeyName=[^;]*/, "SharedAccessKeyName=nobody")
      .replace(/SharedAccessKey=[^;]*/, "SharedAccessKey=bm90IGEga2V5IG9mIHRoaXMgbmFtZXNwYWNl");
    const receiver = bench.receiver();
    await bench.sender().sendMessages({ body: "welcome" });
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["welcome"]);
  },

  disabled: async (bench) => {
    const refusesToSend = (entity) =>
      refused(bench.sender(entity).sendMessages({ body: "x" }), "MessagingEntityDisabled");
    const refusesToReceive = (entity) =>
      refused(
        bench.receiver({ entity }).receiveMessages(1, { maxWaitTimeInMs: 2000 }),
        "MessagingEntityDisabled",
      );
    await refusesToSend(`${bench.name}.sending`);
    await bench.silence(bench.receiver({ entity: `${bench.name}.sending` }));
    await refusesToReceive(`${bench.name}.receiving`);
    await bench.sender(`${bench.name}.receiving`).sendMessages({ body: "x" });
    await refusesToSend(`${bench.name}.both`);
    await refusesToReceive(`${bench.name}.both`);
  },

  "queue-full": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver({ receiveMode: "receiveAndDelete" })];
    const body = Buffer.alloc(240_000, "x");
    for (let count = 0; count < 4; count += 1) {
      await sender.sendMessages({ body });
    }
    // The first may fill the queue and yet be taken.
    const twoMore = async () => {
      await sender.sendMessages({ body });
      await sender.sendMessages({ body });
    };
    await refused(twoMore(), "QuotaExceeded");
    await bench.take(receiver, 4);
    await sender.sendMessages({ body: "room" });
  },

  "auto-delete": async (bench) => {
    const sender = bench.sender();
    await bench.advance(200);
    await sender.sendMessages({ body: "used" });
    await sender.close();
    await bench.advance(200);
    const receiver = bench.receiver();
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["used"]);
    await receiver.close();
    await bench.advance(400);
    await refused(
      bench.receiver().receiveMessages(1, { maxWaitTimeInMs: 2000 }),
      "MessagingEntityNotFound",
    );
  },

  "idle-sender": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    await sender.sendMessages({ body: "before" });
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["before"]);
    await bench.advance(720);
    await sender.sendMessages({ body: "after" });
    assert.deepEqual(bodies(await bench.takeAndComplete(bench.receiver())), ["after"]);
  },

  "idle-receiver": async (bench) => {
    const receiver = bench.receiver();
    await bench.silence(receiver);
    await bench.advance(720);
    await bench.sender().sendMessages({ body: "after" });
    const received = await bench.takeAndComplete(receiver);
    assert.deepEqual([bodies(received), counts(received)], [["after"], [0]]);
  },
};
