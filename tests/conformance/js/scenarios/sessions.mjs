// Sessions: who holds one, what comes in which order, what stays and what is refused.

import assert from "node:assert/strict";

import { LOCK, ahead, bodies, counts, numbers, refused, sleep } from "../bench.mjs";

const of = (sessionId, ...contents) => contents.map((body) => ({ body, sessionId }));

export const scenarios = {
  "session-by-id": async (bench) => {
    const [mine, other] = [bench.unique("mine"), bench.unique("other")];
    const receiver = await bench.session(mine);
    assert.equal(receiver.sessionId, mine);
    await bench
      .sender()
      .sendMessages([...of(other, "x"), ...of(mine, "a", "b"), ...of(other, "y"), ...of(mine, "c")]);
    const received = await bench.takeAndComplete(receiver, 3);
    assert.deepEqual(bodies(received), ["a", "b", "c"]);
    assert.ok(received.every((each) => each.sessionId === mine));
    assert.deepEqual(counts(received), [0, 0, 0]);
    await bench.silence(receiver);
  },

  "session-next": async (bench) => {
    const session = bench.unique();
    await bench.sender().sendMessages(of(session, "a", "b"));
    const receiver = await bench.nextSession();
    assert.equal(receiver.sessionId, session);
    assert.ok(receiver.sessionLockedUntilUtc > Date.now());
    assert.ok(receiver.sessionLockedUntilUtc <= Date.now() + 90_000);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver, 2)), ["a", "b"]);
  },

  "session-next-waits": async (bench) => {
    const session = bench.unique();
    const waiting = bench.nextSession();
    await sleep(1500);
    await bench.sender().sendMessages(of(session, "a"));
    const receiver = await waiting;
    assert.equal(receiver.sessionId, session);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["a"]);
  },

  "session-next-times-out": async (bench) => {
    await refused(bench.nextSession({ wait: 2000 }), "ServiceTimeout");
  },

  "session-next-skips-locked": async (bench) => {
    const [first, second] = [bench.unique("first"), bench.unique("second")];
    await bench.sender().sendMessages([...of(first, "a"), ...of(second, "b")]);
    const holder = await bench.session(first);
    const receiver = await bench.nextSession();
    assert.equal(receiver.sessionId, second);
    await refused(bench.nextSession({ wait: 2000 }), "ServiceTimeout");
    await bench.takeAndComplete(holder);
    await bench.takeAndComplete(receiver);
  },

  "session-locked-elsewhere": async (bench) => {
    const session = bench.unique();
    const holder = await bench.session(session);
    await bench.sender().sendMessages(of(session, "a"));
    await refused(bench.session(session, { client: bench.client() }), "SessionCannotBeLocked");
    assert.deepEqual(bodies(await bench.take(holder)), ["a"]);
    await holder.close();
    assert.deepEqual(bodies(await bench.takeAndComplete(await bench.session(session))), ["a"]);
  },

  "session-order": async (bench) => {
    const names = [bench.unique("one"), bench.unique("two")];
    const receivers = await Promise.all(names.map((name) => bench.session(name)));
    const sender = bench.sender();
    for (const number of numbers(20)) {
      await sender.sendMessages(names.flatMap((name) => of(name, `${name} ${number}`)));
    }
    for (const [at, receiver] of receivers.entries()) {
      const received = bodies(await bench.takeAndComplete(receiver, 20));
      assert.deepEqual(
        received,
        numbers(20).map((number) => `${names[at]} ${number}`),
      );
    }
  },

  "session-empty": async (bench) => {
    const session = bench.unique();
    const receiver = await bench.session(session);
    assert.equal(receiver.sessionId, session);
    await bench.silence(receiver);
    await bench.sender().sendMessages(of(session, "a"));
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["a"]);
  },

  "session-several": async (bench) => {
    const sessions = numbers(4).map((number) => bench.unique(number));
    const sender = bench.sender();
    for (const session of sessions) {
      await sender.sendMessages(of(session, session));
    }
    const receivers = await Promise.all(sessions.map(() => bench.nextSession()));
    assert.deepEqual(receivers.map((receiver) => receiver.sessionId).sort(), [...sessions].sort());
    for (const receiver of receivers) {
      assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), [receiver.sessionId]);
    }
  },

  "session-state": async (bench) => {
    const session = await bench.session(bench.unique());
    assert.ok(!(await session.getSessionState()));
    await session.setSessionState("first");
    assert.equal(await session.getSessionState(), "first");
    await session.setSessionState({ step: 2, text: "x".repeat(5000) });
    assert.deepEqual(await session.getSessionState(), { step: 2, text: "x".repeat(5000) });
    await session.setSessionState(null);
    assert.ok(!(await session.getSessionState()));
  },

  "session-state-stays": async (bench) => {
    const name = bench.unique();
    const receiver = await bench.session(name);
    await bench.sender().sendMessages(of(name, "a"));
    await bench.takeAndComplete(receiver);
    await receiver.setSessionState("kept");
    await receiver.close();
    const again = await bench.session(name);
    assert.equal(await again.getSessionState(), "kept");
    await again.setSessionState(null);
  },

  "session-renew": async (bench) => {
    const session = await bench.session(bench.unique());
    const before = session.sessionLockedUntilUtc;
    await sleep(1100);
    const renewed = await session.renewSessionLock();
    assert.ok(renewed > before);
    assert.deepEqual(session.sessionLockedUntilUtc, renewed);
  },

  "session-renew-keeps": async (bench) => {
    const name = bench.unique();
    const receiver = await bench.session(name);
    await bench.sender().sendMessages(of(name, "a"));
    const received = await bench.takeOne(receiver);
    for (let count = 0; count < 3; count += 1) {
      await bench.advance(LOCK * 0.7);
      await receiver.renewSessionLock();
    }
    await receiver.completeMessage(received);
    await bench.isEmpty(receiver);
  },

  "session-lock-lost": async (bench) => {
    const name = bench.unique();
    const holder = await bench.session(name, { client: bench.client() });
    await bench.sender().sendMessages(of(name, "a", "b"));
    const held = await bench.takeOne(holder);
    await bench.advance(LOCK + 1);
    await refused(holder.renewSessionLock(), "SessionLockLost");
    await refused(holder.completeMessage(held), "SessionLockLost");
    await refused(holder.receiveMessages(1, { maxWaitTimeInMs: 2000 }), "SessionLockLost");
    const received = await bench.takeAndComplete(await bench.session(name), 2);
    assert.deepEqual([bodies(received), counts(received)], [["a", "b"], [1, 0]]);
  },

  "session-close-releases": async (bench) => {
    const name = bench.unique();
    const holder = await bench.session(name);
    await bench.sender().sendMessages(of(name, "a", "b", "c"));
    assert.deepEqual(bodies(await bench.take(holder, 2)), ["a", "b"]);
    await holder.close();
    const received = await bench.takeAndComplete(await bench.session(name), 3);
    assert.deepEqual([bodies(received), counts(received)], [["a", "b", "c"], [0, 0, 0]]);
  },

  "session-abandon": async (bench) => {
    const name = bench.unique();
    const receiver = await bench.session(name);
    await bench.sender().sendMessages(of(name, "a", "b"));
    await receiver.abandonMessage(await bench.takeOne(receiver));
    const received = await bench.takeAndComplete(receiver, 2);
    assert.deepEqual([bodies(received), counts(received)], [["a", "b"], [1, 0]]);
  },

  "session-dead-letter": async (bench) => {
    const name = bench.unique();
    const receiver = await bench.session(name);
    await bench.sender().sendMessages(of(name, "a", "b"));
    const [bad, good] = await bench.take(receiver, 2);
    await receiver.deadLetterMessage(bad, { deadLetterReason: "Because" });
    await receiver.completeMessage(good);
    const [dead] = await bench.takeAndComplete(bench.receiver({ dead: true }));
    assert.deepEqual([dead.body, dead.sessionId, dead.deadLetterReason], ["a", name, "Because"]);
  },

  "session-defer": async (bench) => {
    const name = bench.unique();
    const receiver = await bench.session(name);
    await bench.sender().sendMessages(of(name, "a", "b"));
    const first = await bench.takeOne(receiver);
    await receiver.deferMessage(first);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["b"]);
    await receiver.close();
    const again = await bench.session(name);
    const [deferred] = await again.receiveDeferredMessages(first.sequenceNumber);
    assert.deepEqual([deferred.body, deferred.sessionId, deferred.deliveryCount], ["a", name, 1]);
    await again.completeMessage(deferred);
    await bench.isEmpty(again);
  },

  "session-receive-and-delete": async (bench) => {
    const name = bench.unique();
    const receiver = await bench.session(name, { receiveMode: "receiveAndDelete" });
    await bench.sender().sendMessages(of(name, "a", "b"));
    assert.deepEqual(bodies(await bench.take(receiver, 2)), ["a", "b"]);
    await bench.isEmpty(receiver);
  },

  "session-stream": async (bench) => {
    const name = bench.unique();
    const receiver = await bench.session(name);
    await bench.sender().sendMessages(of(name, ...numbers(10)));
    assert.deepEqual(await bench.stream(receiver, 10), numbers(10));
    await receiver.close();
    await bench.isEmpty(await bench.session(name));
  },

  "session-peek": async (bench) => {
    const [mine, other] = [bench.unique("mine"), bench.unique("other")];
    const receiver = await bench.session(mine);
    await bench
      .sender()
      .sendMessages([...of(other, "x"), ...of(mine, "a"), ...of(other, "y"), ...of(mine, "b")]);
    const seen = await receiver.peekMessages(10);
    assert.deepEqual(bodies(seen), ["a", "b"]);
    assert.ok(seen.every((each) => each.sessionId === mine));
    await bench.takeAndComplete(receiver, 2);
  },

  "session-schedule": async (bench) => {
    const name = bench.unique();
    const receiver = await bench.session(name);
    await bench.sender().scheduleMessages(of(name, "soon"), ahead(1.5));
    const [received] = await bench.takeAndComplete(receiver);
    assert.deepEqual([received.body, received.sessionId], ["soon", name]);
  },

  "session-id-required": async (bench) => {
    const sender = bench.sender();
    await refused(sender.sendMessages({ body: "nobody's" }), undefined, /SessionId/);
    const session = bench.unique();
    await sender.sendMessages(of(session, "somebody's"));
    assert.deepEqual(bodies(await bench.takeAndComplete(await bench.session(session))), ["somebody's"]);
  },

  "session-receiver-required": async (bench) => {
    await refused(bench.receiver().receiveMessages(1, { maxWaitTimeInMs: 2000 }));
  },

  "session-id-missing": async (bench) => {
    await bench.sender().sendMessages({ body: "nobody's" });
    const plain = bench.receiver({ subscription: "plain" });
    assert.deepEqual(bodies(await bench.takeAndComplete(plain)), ["nobody's"]);
    const [dead] = await bench.takeAndComplete(bench.receiver({ subscription: "ordered", dead: true }));
    assert.equal(dead.body, "nobody's");
    assert.match(dead.deadLetterReason, /^session id is null/i);
  },

  "session-not-supported": async (bench) => {
    await refused(bench.session("any"));
  },

  "session-subscription": async (bench) => {
    const [one, two] = [bench.unique("one"), bench.unique("two")];
    await bench.sender().sendMessages([...of(one, "a"), ...of(two, "x"), ...of(one, "b")]);
    const receiver = await bench.session(one, { subscription: "ordered" });
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver, 2)), ["a", "b"]);
    const following = await bench.nextSession({ subscription: "ordered" });
    assert.equal(following.sessionId, two);
    assert.deepEqual(bodies(await bench.takeAndComplete(following)), ["x"]);
  },
};
