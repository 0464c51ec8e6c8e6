// What becomes of a received message: outcomes, delivery counts, locks and dead letters.

import assert from "node:assert/strict";

import { LOCK, bodies, counts, numbers, refused, sleep, texts } from "../bench.mjs";

export const scenarios = {
  abandon: async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(texts(2));
    const first = await bench.takeOne(receiver);
    assert.deepEqual([first.body, first.deliveryCount], ["0", 0]);
    await receiver.abandonMessage(first);
    const again = await bench.takeOne(receiver);
    assert.deepEqual([again.body, again.deliveryCount], ["0", 1]);
    assert.ok(again.sequenceNumber.eq(first.sequenceNumber));
    assert.deepEqual(again.enqueuedTimeUtc, first.enqueuedTimeUtc);
    assert.notEqual(again.lockToken, first.lockToken);
    await receiver.completeMessage(again);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["1"]);
  },

  "max-delivery-count": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages({ body: "poison", applicationProperties: { own: "kept" } });
    for (let count = 0; count < 3; count += 1) {
      const received = await bench.takeOne(receiver);
      assert.equal(received.deliveryCount, count);
      await receiver.abandonMessage(received);
    }
    const [dead] = await bench.takeAndComplete(bench.receiver({ dead: true }));
    assert.equal(dead.body, "poison");
    assert.equal(dead.deadLetterReason, "MaxDeliveryCountExceeded");
    assert.ok(dead.deadLetterErrorDescription);
    assert.equal(dead.applicationProperties.own, "kept");
    await bench.isEmpty(receiver);
  },

  "dead-letter": async (bench) => {
    const receiver = bench.receiver();
    const messageId = bench.unique("id");
    await bench.sender().sendMessages({ body: "bad", messageId, applicationProperties: { own: 1 } });
    const received = await bench.takeOne(receiver);
    await receiver.deadLetterMessage(received, {
      deadLetterReason: "Because",
      deadLetterErrorDescription: "It was bad.",
    });
    await bench.isEmpty(receiver);
    const deadLetters = bench.receiver({ dead: true });
    const dead = await bench.takeOne(deadLetters);
    assert.deepEqual([dead.body, dead.messageId], ["bad", messageId]);
    assert.equal(dead.deadLetterReason, "Because");
    assert.equal(dead.deadLetterErrorDescription, "It was bad.");
    assert.deepEqual(
      { ...dead.applicationProperties },
      { own: 1, DeadLetterReason: "Because", DeadLetterErrorDescription: "It was bad." },
    );
    assert.deepEqual(dead.enqueuedTimeUtc, received.enqueuedTimeUtc);
    await deadLetters.completeMessage(dead);
    await bench.isEmpty(deadLetters);
  },

  "dead-letter-plain": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages({ body: "bad" });
    await receiver.deadLetterMessage(await bench.takeOne(receiver));
    const [dead] = await bench.takeAndComplete(bench.receiver({ dead: true }));
    assert.equal(dead.body, "bad");
    assert.ok(!dead.deadLetterReason);
    assert.ok(!dead.deadLetterErrorDescription);
  },

  "dead-letter-keeps": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages({ body: "bad" });
    await receiver.deadLetterMessage(await bench.takeOne(receiver), { deadLetterReason: "Because" });
    const deadLetters = bench.receiver({ dead: true });
    for (let count = 0; count < 4; count += 1) {
      await deadLetters.abandonMessage(await bench.takeOne(deadLetters));
    }
    const [dead] = await bench.takeAndComplete(deadLetters);
    assert.equal(dead.deadLetterReason, "Because");
  },

  "complete-in-any-order": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(texts(6));
    const received = await bench.take(receiver, 6);
    await Promise.all([3, 0, 5, 1, 4, 2].map((at) => receiver.completeMessage(received[at])));
    await bench.isEmpty(receiver);
  },

  "settle-mixed": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(texts(4));
    const [first, second, third, fourth] = await bench.take(receiver, 4);
    await Promise.all([
      receiver.deadLetterMessage(third, { deadLetterReason: "third" }),
      receiver.deferMessage(second),
      receiver.completeMessage(first),
      receiver.abandonMessage(fourth),
    ]);
    const again = await bench.takeOne(receiver);
    assert.deepEqual([again.body, again.deliveryCount], ["3", 1]);
    await receiver.completeMessage(again);
    const [deferred] = await receiver.receiveDeferredMessages(second.sequenceNumber);
    assert.equal(deferred.body, "1");
    await receiver.completeMessage(deferred);
    await bench.isEmpty(receiver);
    const [dead] = await bench.takeAndComplete(bench.receiver({ dead: true }));
    assert.deepEqual([dead.body, dead.deadLetterReason], ["2", "third"]);
  },

  "many-locked": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    const sent = texts(1500);
    for (let start = 0; start < 1500; start += 100) {
      await sender.sendMessages(sent.slice(start, start + 100));
    }
    const received = [];
    while (received.length < 1500) {
      received.push(...(await bench.take(receiver, 100)));
    }
    assert.deepEqual(bodies(received), numbers(1500));
    await Promise.all(received.reverse().map((each) => receiver.completeMessage(each)));
    await bench.isEmpty(receiver);
  },

  "auto-renewal": async (bench) => {
    const receiver = bench.receiver({ maxAutoLockRenewalDurationInMs: 60_000 });
    await bench.sender().sendMessages({ body: "x" });
    const received = await bench.takeOne(receiver);
    await sleep(7000);
    await receiver.completeMessage(received);
    await bench.isEmpty(receiver);
  },

  "lock-expiry-soon": async (bench) => {
    const [first, second] = [bench.receiver(), bench.receiver()];
    await bench.sender().sendMessages({ body: "x" });
    const received = await bench.takeOne(first);
    assert.ok(received.lockedUntilUtc - received.enqueuedTimeUtc < 20_000);
    const again = await bench.takeOne(second);
    // The namespace's own times: this machine may be busy for longer than a lock lasts.
    assert.ok(again.lockedUntilUtc - 5000 >= received.lockedUntilUtc - 100);
    assert.equal(again.deliveryCount, 1);
    await refused(first.completeMessage(received), "MessageLockLost");
    await second.completeMessage(again);
    await bench.isEmpty(second);
  },

  "transfer-dead-letters": async (bench) => {
    const receiver = bench.receiver({ subQueueType: "transferDeadLetter" });
    await bench.silence(receiver);
    await bench.isEmpty(receiver);
  },

  "renew-lock": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages({ body: "x" });
    const received = await bench.takeOne(receiver);
    const before = received.lockedUntilUtc;
    await sleep(1100);
    const renewed = await receiver.renewMessageLock(received);
    assert.ok(renewed > before);
    assert.deepEqual(received.lockedUntilUtc, renewed);
    await receiver.completeMessage(received);
    await bench.isEmpty(receiver);
  },

  "renew-keeps-lock": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages({ body: "x" });
    const received = await bench.takeOne(receiver);
    for (let count = 0; count < 3; count += 1) {
      await bench.advance(LOCK * 0.7);
      await receiver.renewMessageLock(received);
    }
    await receiver.completeMessage(received);
    await bench.isEmpty(receiver);
  },

  "lock-expiry": async (bench) => {
    const [first, second] = [bench.receiver(), bench.receiver()];
    await bench.sender().sendMessages(texts(2));
    const received = await bench.takeOne(first);
    await bench.advance(LOCK + 1);
    const again = await bench.take(second, 2);
    assert.deepEqual([bodies(again), counts(again)], [numbers(2), [1, 0]]);
    assert.ok(again[0].sequenceNumber.eq(received.sequenceNumber));
    await refused(first.completeMessage(received), "MessageLockLost");
    await Promise.all(again.map((each) => second.completeMessage(each)));
    await bench.isEmpty(second);
  },

  "lock-lost": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(texts(5));
    const received = await bench.take(receiver, 5);
    await bench.advance(LOCK + 1);
    const settle = ["complete", "abandon", "defer", "deadLetter"].map((name) => `${name}Message`);
    for (const [at, name] of [...settle, "renewMessageLock"].entries()) {
      await refused(receiver[name](received[at]), "MessageLockLost");
    }
    const again = await bench.takeAndComplete(receiver, 5);
    assert.deepEqual([bodies(again), counts(again)], [numbers(5), [1, 1, 1, 1, 1]]);
  },

  "lock-expiry-dead-letters": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages({ body: "slow" });
    for (let count = 0; count < 2; count += 1) {
      const received = await bench.takeOne(receiver);
      assert.equal(received.deliveryCount, count);
      await bench.advance(LOCK + 1);
    }
    const [dead] = await bench.takeAndComplete(bench.receiver({ dead: true }));
    assert.deepEqual([dead.body, dead.deadLetterReason], ["slow", "MaxDeliveryCountExceeded"]);
  },

  "lock-outlives-receiver": async (bench) => {
    const [first, second] = [bench.receiver(), bench.receiver()];
    await bench.sender().sendMessages(texts(2));
    assert.equal((await bench.takeOne(first)).body, "0");
    await first.close();
    assert.deepEqual(bodies(await bench.takeAndComplete(second)), ["1"]);
    await bench.silence(second);
    await bench.advance(LOCK + 1);
    const [again] = await bench.takeAndComplete(second);
    assert.deepEqual([again.body, again.deliveryCount], ["0", 1]);
  },

  "settle-after-close": async (bench) => {
    const [first, second] = [bench.receiver(), bench.receiver()];
    await bench.sender().sendMessages(texts(4));
    const [completed, abandoned, deferred, dead] = await bench.take(first, 4);
    await first.close();
    await second.completeMessage(completed);
    await second.abandonMessage(abandoned);
    await second.deferMessage(deferred);
    await second.deadLetterMessage(dead, { deadLetterReason: "Because" });
    const again = await bench.takeOne(second);
    assert.deepEqual([again.body, again.deliveryCount], ["1", 1]);
    await second.completeMessage(again);
    const [later] = await second.receiveDeferredMessages(deferred.sequenceNumber);
    assert.equal(later.body, "2");
    await second.completeMessage(later);
    await bench.isEmpty(second);
    const [letter] = await bench.takeAndComplete(bench.receiver({ dead: true }));
    assert.deepEqual([letter.body, letter.deadLetterReason], ["3", "Because"]);
  },

  "settle-with-properties": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages({ body: "x", applicationProperties: { own: 1, kept: true } });
    await receiver.abandonMessage(await bench.takeOne(receiver), { own: 2, step: "abandoned" });
    const again = await bench.takeOne(receiver);
    assert.deepEqual({ ...again.applicationProperties }, { own: 2, kept: true, step: "abandoned" });
    await receiver.deferMessage(again, { step: "deferred" });
    const [deferred] = await receiver.receiveDeferredMessages(again.sequenceNumber);
    assert.equal(deferred.applicationProperties.step, "deferred");
    await receiver.abandonMessage(deferred, { step: "abandoned again" });
    const [later] = await receiver.receiveDeferredMessages(again.sequenceNumber);
    assert.equal(later.applicationProperties.step, "abandoned again");
    await receiver.deadLetterMessage(later, {
      deadLetterReason: "Because",
      deadLetterErrorDescription: "It was bad.",
      step: "dead",
    });
    const [dead] = await bench.takeAndComplete(bench.receiver({ dead: true }));
    assert.deepEqual([dead.deadLetterReason, dead.deadLetterErrorDescription], ["Because", "It was bad."]);
    const { own, kept, step } = dead.applicationProperties;
    assert.deepEqual([own, kept, step], [2, true, "dead"]);
  },
};
