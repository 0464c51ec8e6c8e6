// Entities that hand their messages on to others.

import assert from "node:assert/strict";

import { bodies, counts, numbers, refused, sleep, texts } from "../bench.mjs";

export const scenarios = {
  forward: async (bench) => {
    const receiver = bench.receiver({ entity: `${bench.name}.to` });
    await bench.sender().sendMessages(texts(3));
    const received = await bench.takeAndComplete(receiver, 3);
    assert.deepEqual([bodies(received), counts(received)], [numbers(3), [0, 0, 0]]);
    assert.ok(received.every((each) => Number(each.enqueuedSequenceNumber) > 0));
  },

  "forward-chain": async (bench) => {
    const receiver = bench.receiver({ entity: `${bench.name}.last` });
    await bench.sender().sendMessages({ body: "through", applicationProperties: { own: 1 }, subject: "s" });
    const [received] = await bench.takeAndComplete(receiver);
    assert.deepEqual([received.body, received.subject], ["through", "s"]);
    assert.equal(received.applicationProperties.own, 1);
  },

  "forward-dead-letters": async (bench) => {
    const [receiver, target] = [bench.receiver(), bench.receiver({ entity: `${bench.name}.to` })];
    await bench.sender().sendMessages({ body: "bad" });
    await receiver.deadLetterMessage(await bench.takeOne(receiver), { deadLetterReason: "Because" });
    const [forwarded] = await bench.takeAndComplete(target);
    assert.deepEqual([forwarded.body, forwarded.deadLetterReason], ["bad", "Because"]);
    assert.equal(forwarded.deadLetterSource.toLowerCase(), bench.name.toLowerCase());
  },

  "forward-too-far": async (bench) => {
    await bench.sender(`${bench.name}.1`).sendMessages({ body: "far" });
    await sleep(1000);
    const found = [];
    for (let hop = 1; hop <= 7; hop += 1) {
      found.push(...(await bench.seen(bench.receiver({ entity: `${bench.name}.${hop}`, dead: true }))));
    }
    assert.deepEqual(
      found.map((each) => [each.body, each.deadLetterReason]),
      [["far", "MaxTransferHopCountExceeded"]],
    );
    await bench.isEmpty(bench.receiver({ entity: `${bench.name}.7` }));
  },

  "forward-not-received": async (bench) => {
    await refused(bench.receiver().receiveMessages(1, { maxWaitTimeInMs: 2000 }));
    await bench.sender().sendMessages({ body: "on" });
    const target = bench.receiver({ entity: `${bench.name}.to` });
    assert.deepEqual(bodies(await bench.takeAndComplete(target)), ["on"]);
    await bench.isEmpty(bench.receiver({ dead: true }));
  },
};
