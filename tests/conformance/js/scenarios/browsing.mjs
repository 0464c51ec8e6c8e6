// Looking at messages without taking them.

import assert from "node:assert/strict";

import Long from "long";

import { ahead, bodies, counts, numbers, texts } from "../bench.mjs";

export const scenarios = {
  peek: async (bench) => {
    const receiver = bench.receiver();
    await bench
      .sender()
      .sendMessages(numbers(3).map((body) => ({ body, applicationProperties: { n: Number(body) } })));
    const seen = await receiver.peekMessages(10);
    assert.deepEqual(bodies(seen), numbers(3));
    assert.deepEqual(
      seen.map((each) => each.applicationProperties.n),
      [0, 1, 2],
    );
    assert.ok(seen.every((each) => each.enqueuedTimeUtc !== undefined));
    const received = await bench.takeAndComplete(receiver, 3);
    assert.deepEqual(
      received.map((each) => each.sequenceNumber.toString()),
      seen.map((each) => each.sequenceNumber.toString()),
    );
    assert.deepEqual(counts(received), [0, 0, 0]);
  },

  "peek-states": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    await sender.sendMessages([{ body: "deferred" }, { body: "locked" }, { body: "active" }]);
    const due = ahead(3600);
    const [number] = await sender.scheduleMessages({ body: "scheduled" }, due);
    const [deferred, locked] = await bench.take(receiver, 2);
    await receiver.deferMessage(deferred);
    const seen = new Map((await receiver.peekMessages(10)).map((each) => [each.body, each]));
    assert.deepEqual(Object.fromEntries([...seen].map(([name, each]) => [name, each.state])), {
      deferred: "deferred",
      locked: "active",
      active: "active",
      scheduled: "scheduled",
    });
    assert.ok(seen.get("scheduled").sequenceNumber.eq(number));
    assert.deepEqual(new Date(seen.get("scheduled").scheduledEnqueueTimeUtc), due);
    await receiver.completeMessage(locked);
    await sender.cancelScheduledMessages(number);
    assert.deepEqual(bodies(await bench.seen(receiver)).sort(), ["active", "deferred"]);
  },

  "peek-pages": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(texts(25));
    const pages = [];
    for (let page = await receiver.peekMessages(10); page.length; page = await receiver.peekMessages(10)) {
      assert.ok(page.length <= 10);
      pages.push(...page);
    }
    assert.deepEqual(bodies(pages), numbers(25));
    assert.deepEqual(await receiver.peekMessages(10), []);
    const again = await receiver.peekMessages(5, { fromSequenceNumber: pages[7].sequenceNumber });
    assert.deepEqual(bodies(again), ["7", "8", "9", "10", "11"]);
  },

  "peek-nothing": async (bench) => {
    const receiver = bench.receiver();
    assert.deepEqual(await receiver.peekMessages(5), []);
    assert.deepEqual(await receiver.peekMessages(5, { fromSequenceNumber: Long.fromNumber(1000) }), []);
  },

  "large-when-managed": async (bench) => {
    const content = Buffer.from(Array.from({ length: 204_800 }, (_, at) => at % 251));
    const [sender, receiver] = [bench.sender(), bench.receiver({ skipParsingBodyAsJson: true })];
    const [number] = await sender.scheduleMessages({ body: content }, ahead(3600));
    const [scheduled] = await bench.seen(receiver);
    assert.ok(content.equals(scheduled.body));
    await sender.cancelScheduledMessages(number);
    await sender.sendMessages({ body: content });
    const received = await bench.takeOne(receiver);
    await receiver.deferMessage(received);
    const [deferred] = await receiver.receiveDeferredMessages(received.sequenceNumber);
    assert.ok(content.equals(deferred.body));
    await receiver.completeMessage(deferred);
    await bench.isEmpty(receiver);
  },

  "peek-dead-letters": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(texts(2));
    for (const each of await bench.take(receiver, 2)) {
      await receiver.deadLetterMessage(each, { deadLetterReason: `reason ${each.body}` });
    }
    await bench.isEmpty(receiver);
    const deadLetters = bench.receiver({ dead: true });
    const seen = await deadLetters.peekMessages(10);
    assert.deepEqual(
      seen.map((each) => [each.body, each.deadLetterReason]),
      [
        ["0", "reason 0"],
        ["1", "reason 1"],
      ],
    );
    await bench.takeAndComplete(deadLetters, 2);
  },
};
