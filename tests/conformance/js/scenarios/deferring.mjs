// Setting messages aside and asking for them by number.

import assert from "node:assert/strict";

import Long from "long";

import { LOCK, bodies, refused, sleep, texts } from "../bench.mjs";

/** A receiver of a queue with one deferred message, and its number. */
async function withDeferred(bench) {
  const receiver = bench.receiver();
  await bench.sender().sendMessages({ body: "later" });
  const received = await bench.takeOne(receiver);
  await receiver.deferMessage(received);
  return [receiver, received.sequenceNumber];
}

/** Complete the deferred message, whose deliveries must have been counted like this. */
async function finish(bench, receiver, number, deliveries) {
  const [deferred] = await receiver.receiveDeferredMessages(number);
  assert.deepEqual([deferred.body, deferred.deliveryCount], ["later", deliveries]);
  await receiver.completeMessage(deferred);
  await bench.isEmpty(receiver);
}

export const scenarios = {
  defer: async (bench) => {
    const [receiver, number] = await withDeferred(bench);
    await bench.silence(receiver);
    const [deferred] = await receiver.receiveDeferredMessages(number);
    assert.equal(deferred.body, "later");
    assert.ok(deferred.sequenceNumber.eq(number));
    assert.equal(deferred.deliveryCount, 1);
    assert.equal(deferred.state, "deferred");
    assert.ok(deferred.lockToken);
    assert.ok(deferred.lockedUntilUtc);
    await receiver.completeMessage(deferred);
    await bench.isEmpty(receiver);
  },

  "defer-several": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(texts(5));
    const received = await bench.take(receiver, 5);
    for (const each of received) {
      await receiver.deferMessage(each);
    }
    const number = received.map((each) => each.sequenceNumber);
    const deferred = await receiver.receiveDeferredMessages([number[3], number[0], number[4]]);
    assert.deepEqual(bodies(deferred).sort(), ["0", "3", "4"]);
    deferred.push(...(await receiver.receiveDeferredMessages(number.slice(1, 3))));
    for (const each of deferred) {
      await receiver.completeMessage(each);
    }
    await bench.isEmpty(receiver);
  },

  "deferred-abandoned": async (bench) => {
    const [receiver, number] = await withDeferred(bench);
    const [deferred] = await receiver.receiveDeferredMessages(number);
    await receiver.abandonMessage(deferred);
    await bench.silence(receiver);
    await finish(bench, receiver, number, 2);
  },

  "deferred-again": async (bench) => {
    const [receiver, number] = await withDeferred(bench);
    const [deferred] = await receiver.receiveDeferredMessages(number);
    await receiver.deferMessage(deferred);
    await bench.silence(receiver);
    await finish(bench, receiver, number, 2);
  },

  "deferred-dead-lettered": async (bench) => {
    const [receiver, number] = await withDeferred(bench);
    const [deferred] = await receiver.receiveDeferredMessages(number);
    await receiver.deadLetterMessage(deferred, {
      deadLetterReason: "Late",
      deadLetterErrorDescription: "Too late.",
    });
    await bench.isEmpty(receiver);
    const [dead] = await bench.takeAndComplete(bench.receiver({ dead: true }));
    assert.deepEqual([dead.deadLetterReason, dead.deadLetterErrorDescription], ["Late", "Too late."]);
    assert.equal(dead.deliveryCount, 1);
    assert.equal(dead.state, "active");
  },

  "deferred-deleted": async (bench) => {
    const [receiver, number] = await withDeferred(bench);
    const [deferred] = await bench
      .receiver({ receiveMode: "receiveAndDelete" })
      .receiveDeferredMessages(number);
    assert.equal(deferred.body, "later");
    await bench.isEmpty(receiver);
  },

  "deferred-renewed": async (bench) => {
    const [receiver, number] = await withDeferred(bench);
    const [deferred] = await receiver.receiveDeferredMessages(number);
    const before = deferred.lockedUntilUtc;
    await sleep(1100);
    assert.ok((await receiver.renewMessageLock(deferred)) > before);
    await receiver.deferMessage(deferred);
    await finish(bench, receiver, number, 2);
  },

  "deferred-lock-expiry": async (bench) => {
    const [receiver, number] = await withDeferred(bench);
    await receiver.receiveDeferredMessages(number);
    await bench.advance(LOCK + 1);
    await bench.silence(receiver);
    const [deferred] = await receiver.receiveDeferredMessages(number);
    assert.equal(deferred.body, "later");
    await receiver.completeMessage(deferred);
    await bench.isEmpty(receiver);
  },

  "lock-token-in-message": async (bench) => {
    const sent = (received) => {
      // A Buffer that the SDK has copied property by property.
      const token = received._rawAmqpMessage.deliveryAnnotations?.["x-opt-lock-token"];
      return token && Buffer.from(Object.values(token)).toString("hex");
    };
    const own = (received) => received.lockToken.replaceAll("-", "");
    const receiver = bench.receiver();
    await bench.sender().sendMessages({ body: "x" });
    const received = await bench.takeOne(receiver);
    await receiver.deferMessage(received);
    const [deferred] = await receiver.receiveDeferredMessages(received.sequenceNumber);
    await receiver.completeMessage(deferred);
    assert.equal(sent(received), own(received));
    assert.equal(sent(deferred), own(deferred));
  },

  "deferred-unknown": async (bench) => {
    const receiver = bench.receiver();
    await refused(receiver.receiveDeferredMessages(Long.fromNumber(987654321)), "MessageNotFound");
    await bench.sender().sendMessages({ body: "active" });
    const [active] = await receiver.peekMessages(1);
    await refused(receiver.receiveDeferredMessages(active.sequenceNumber), "MessageNotFound");
  },
};
