// Getting messages out: modes, waiting, streaming, sharing, closing.

import assert from "node:assert/strict";

import { bodies, numbers, sleep, texts } from "../bench.mjs";

export const scenarios = {
  "receive-and-delete": async (bench) => {
    const receiver = bench.receiver({ receiveMode: "receiveAndDelete" });
    await bench.sender().sendMessages(texts(3));
    const received = await bench.take(receiver, 3);
    assert.deepEqual(bodies(received), numbers(3));
    await bench.isEmpty(receiver);
    await assert.rejects(receiver.completeMessage(received[0]));
  },

  "receive-nothing": async (bench) => {
    const began = Date.now();
    assert.deepEqual(await bench.receiver().receiveMessages(1, { maxWaitTimeInMs: 1000 }), []);
    assert.ok(Date.now() - began >= 900);
  },

  "receive-waits": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver()];
    const received = bench.takeAndComplete(receiver);
    await sleep(500);
    await sender.sendMessages({ body: "at last" });
    assert.deepEqual(bodies(await received), ["at last"]);
  },

  "receive-fewer": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(texts(3));
    const received = await receiver.receiveMessages(10, { maxWaitTimeInMs: 5000 });
    assert.deepEqual(bodies(received), numbers(3));
    await Promise.all(received.map((each) => receiver.completeMessage(each)));
    await bench.isEmpty(receiver);
  },

  "receive-stream": async (bench) => {
    const receiver = bench.receiver();
    await bench.sender().sendMessages(texts(20));
    assert.deepEqual(await bench.stream(receiver, 20), numbers(20));
    await receiver.close();
    await bench.isEmpty(bench.receiver());
  },

  "competing-receivers": async (bench) => {
    const [one, two] = [bench.receiver(), bench.receiver()];
    await bench.sender().sendMessages(texts(20));
    const [ofOne, ofTwo] = await Promise.all([one, two].map((each) => bench.takeAndComplete(each, 10)));
    const all = [...bodies(ofOne), ...bodies(ofTwo)];
    assert.deepEqual(
      all.sort((a, b) => a - b),
      numbers(20),
    );
    await bench.isEmpty(one);
  },

  "close-returns-credit": async (bench) => {
    const first = bench.receiver();
    await bench.silence(first);
    await first.close();
    await bench.sender().sendMessages({ body: "for the second" });
    const [received] = await bench.takeAndComplete(bench.receiver());
    assert.equal(received.body, "for the second");
    assert.equal(received.deliveryCount, 0);
  },
};
