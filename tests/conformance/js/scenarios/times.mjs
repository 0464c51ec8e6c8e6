// Where time decides: schedules, expiry and windows of duplicate detection.

import assert from "node:assert/strict";

import Long from "long";

import { ahead, bodies, refused, sleep, texts } from "../bench.mjs";

const expiring = (body, seconds, rest = {}) => ({ body, timeToLive: seconds * 1000, ...rest });

export const scenarios = {
  "schedule-and-cancel": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    const [number] = await sender.scheduleMessages({ body: "later" }, ahead(3600));
    await bench.silence(receiver);
    const [seen] = await receiver.peekMessages(10);
    assert.equal(seen.body, "later");
    assert.ok(seen.sequenceNumber.eq(number));
    await sender.cancelScheduledMessages(number);
    await bench.isEmpty(receiver);
  },

  "schedule-list": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    const scheduled = await sender.scheduleMessages(texts(5), ahead(3600));
    const found = (await receiver.peekMessages(10)).map((each) => [each.sequenceNumber.toString(), each.body]);
    assert.deepEqual(
      new Map(found),
      new Map(scheduled.map((number, at) => [number.toString(), String(at)])),
    );
    await sender.cancelScheduledMessages(scheduled.slice(0, 2));
    assert.deepEqual(bodies(await bench.seen(receiver)), ["2", "3", "4"]);
    await sender.cancelScheduledMessages(scheduled.slice(2));
    await bench.isEmpty(receiver);
  },

  "schedule-soon": async (bench) => {
    const receiver = bench.receiver();
    const due = ahead(1.5);
    await bench.sender().scheduleMessages({ body: "soon" }, due);
    const [received] = await bench.takeAndComplete(receiver);
    assert.equal(received.body, "soon");
    assert.ok(received.enqueuedTimeUtc >= due - 5);
    assert.deepEqual(new Date(received.scheduledEnqueueTimeUtc), due);
  },

  "schedule-past": async (bench) => {
    await bench.sender().scheduleMessages({ body: "overdue" }, ahead(-3600));
    assert.deepEqual(bodies(await bench.takeAndComplete(bench.receiver())), ["overdue"]);
  },

  "schedule-due": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    const due = ahead(600);
    const [number] = await sender.scheduleMessages({ body: "scheduled" }, due);
    await sender.sendMessages({ body: "sent" });
    const [sent] = await bench.takeAndComplete(receiver);
    assert.equal(sent.body, "sent");
    await bench.advance(580);
    await bench.silence(receiver);
    await bench.advance(40);
    const [received] = await bench.takeAndComplete(receiver);
    assert.equal(received.body, "scheduled");
    assert.ok(received.enqueuedTimeUtc >= due - 1000);
    assert.ok(received.enqueuedTimeUtc - due <= 60_000);
    assert.ok(received.sequenceNumber.gt(sent.sequenceNumber));
    assert.ok(received.sequenceNumber.neq(number));
    await bench.isEmpty(receiver);
  },

  "schedule-by-property": async (bench) => {
    const receiver = bench.receiver();
    await bench
      .sender()
      .sendMessages([{ body: "scheduled", scheduledEnqueueTimeUtc: ahead(600) }, { body: "sent" }]);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["sent"]);
    await bench.silence(receiver);
    await bench.advance(610);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["scheduled"]);
  },

  "cancel-unknown": async (bench) => {
    const sender = bench.sender();
    await refused(sender.cancelScheduledMessages(Long.fromNumber(987654321)), "MessageNotFound");
    const [number] = await sender.scheduleMessages({ body: "later" }, ahead(3600));
    await sender.cancelScheduledMessages(number);
    await refused(sender.cancelScheduledMessages(number), "MessageNotFound");
  },

  "expiry-drops": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages([expiring("brief", 30), { body: "lasting" }]);
    await bench.advance(31);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["lasting"]);
    await bench.silence(receiver);
    await bench.isEmpty(bench.receiver({ dead: true }));
  },

  "expiry-dead-letters": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(expiring("brief", 30, { applicationProperties: { own: 1 } }));
    await bench.advance(31);
    await bench.silence(receiver);
    const [dead] = await bench.takeAndComplete(bench.receiver({ dead: true }));
    assert.deepEqual([dead.body, dead.deadLetterReason], ["brief", "TTLExpiredException"]);
    assert.ok(dead.deadLetterErrorDescription);
    assert.equal(dead.applicationProperties.own, 1);
  },

  "expiry-default": async (bench) => {
    const receiver = bench.receiver();
    await bench
      .sender()
      .sendMessages([{ body: "default" }, expiring("longer", 3600), expiring("shorter", 5)]);
    await bench.advance(10);
    const received = await bench.take(receiver, 2);
    assert.deepEqual(bodies(received), ["default", "longer"]);
    await Promise.all(received.map((each) => receiver.abandonMessage(each)));
    await bench.advance(11);
    await bench.silence(receiver);
  },

  "expiry-spares-locked": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages([expiring("kept", 30), expiring("lost", 30)]);
    const [kept, lost] = await bench.take(receiver, 2);
    await bench.advance(40);
    await receiver.completeMessage(kept);
    await receiver.abandonMessage(lost);
    await bench.silence(receiver);
  },

  "expiry-soon": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages([expiring("brief", 1), { body: "lasting" }]);
    await sleep(2000);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["lasting"]);
    await bench.silence(receiver);
  },

  "expiry-on-topic": async (bench) => {
    const receivers = ["keeps", "drops"].map((subscription) => bench.receiver({ subscription }));
    await bench.sender().sendMessages(expiring("capped", 3600));
    await bench.advance(31);
    await Promise.all(receivers.map((receiver) => bench.silence(receiver)));
    const [kept, dropped] = ["keeps", "drops"].map((subscription) =>
      bench.receiver({ subscription, dead: true }),
    );
    const [dead] = await bench.takeAndComplete(kept);
    assert.deepEqual([dead.body, dead.deadLetterReason], ["capped", "TTLExpiredException"]);
    await bench.isEmpty(dropped);
  },

  "expiry-of-deferred": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(expiring("deferred", 30));
    const received = await bench.takeOne(receiver);
    await receiver.deferMessage(received);
    await bench.advance(40);
    await bench.silence(receiver);
    assert.deepEqual(bodies(await receiver.peekMessages(10)), ["deferred"]);
    const deadLetters = bench.receiver({ dead: true });
    await bench.isEmpty(deadLetters);
    // What the caller is told is not documented; that the message is not handed out is.
    const found = await receiver.receiveDeferredMessages(received.sequenceNumber).catch((error) => {
      assert.equal(error.code, "MessageNotFound", error.message);
      return [];
    });
    assert.deepEqual(bodies(found), []);
    const [dead] = await bench.takeAndComplete(deadLetters);
    assert.deepEqual([dead.body, dead.deadLetterReason], ["deferred", "TTLExpiredException"]);
  },

  "expiry-of-scheduled": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().scheduleMessages(expiring("scheduled", 60), ahead(600));
    await bench.advance(630);
    const received = await bench.takeOne(receiver);
    assert.equal(received.body, "scheduled");
    await receiver.abandonMessage(received);
    await bench.advance(60);
    await bench.silence(receiver);
  },

  duplicates: async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    const [one, two] = [bench.unique("one"), bench.unique("two")];
    await sender.sendMessages({ body: "first", messageId: one });
    await sender.sendMessages({ body: "second", messageId: one });
    await sender.sendMessages([
      { body: "third", messageId: two },
      { body: "fourth", messageId: one },
      { body: "fifth", messageId: two },
    ]);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver, 2)), ["first", "third"]);
    await sender.sendMessages([{ body: "sixth", messageId: one }, { body: "last" }]);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["last"]);
    await bench.isEmpty(receiver);
  },

  "duplicates-later": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    const messageId = bench.unique("same");
    await sender.sendMessages({ body: "first", messageId });
    await bench.advance(50);
    await sender.sendMessages({ body: "second", messageId });
    await bench.advance(15);
    await sender.sendMessages({ body: "third", messageId });
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver, 2)), ["first", "third"]);
    await bench.isEmpty(receiver);
  },

  "duplicates-on-topic": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver({ subscription: "all" })];
    const messageId = bench.unique("same");
    await sender.sendMessages({ body: "first", messageId });
    await sender.sendMessages({ body: "second", messageId });
    await sender.sendMessages({ body: "last" });
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver, 2)), ["first", "last"]);
    await bench.isEmpty(receiver);
  },
};
