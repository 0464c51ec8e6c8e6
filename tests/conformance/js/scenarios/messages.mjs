// What a message says: that nothing of it is lost or changed on the way.

import assert from "node:assert/strict";

async function through(bench, sent, options = {}) {
  const [sender, receiver] = [bench.sender(), bench.receiver(options)];
  for (const each of sent) {
    await sender.sendMessages(each);
  }
  return bench.takeAndComplete(receiver, sent.length);
}

export const scenarios = {
  "message-properties": async (bench) => {
    const properties = {
      messageId: bench.unique("id"),
      correlationId: "corr \u00e4\u4e16",
      subject: "subject",
      to: "to",
      replyTo: "reply/to",
      replyToSessionId: "reply-session",
      contentType: "application/json",
    };
    const [first, second] = await through(bench, [
      { body: "x", ...properties },
      { body: "x", messageId: 7, correlationId: 8 },
    ]);
    for (const [name, value] of Object.entries(properties)) {
      assert.equal(first[name], value, name);
    }
    assert.equal(first.sessionId, undefined);
    assert.equal(first.scheduledEnqueueTimeUtc, undefined);
    assert.deepEqual([second.messageId, second.correlationId], [7, 8]);
  },

  "application-properties": async (bench) => {
    const moment = new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 678));
    const sent = {
      text: "t\u00e4xt \u4e16",
      empty: "",
      int: 7,
      negative: -3,
      large: 2 ** 31 - 1,
      beyond: 2 ** 40,
      float: 1.5,
      true: true,
      false: false,
      moment,
      none: null,
      "with space": "x",
      long: "y".repeat(5000),
    };
    const [received] = await through(bench, [{ body: "x", applicationProperties: { ...sent } }]);
    assert.deepEqual({ ...received.applicationProperties }, { ...sent, moment: moment.getTime() });
  },

  "body-data": async (bench) => {
    const contents = [Buffer.alloc(0), Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))];
    const received = await through(
      bench,
      contents.map((body) => ({ body })),
      { skipParsingBodyAsJson: true },
    );
    for (const [at, content] of contents.entries()) {
      assert.ok(content.equals(received[at].body));
      assert.equal(received[at]._rawAmqpMessage.bodyType, "data");
    }
  },

  "body-value": async (bench) => {
    const values = [{ name: "x", list: [1, 2.5, null] }, "text", -12, true, [1, [2, "three"]]];
    const received = await through(
      bench,
      values.map((body) => ({ body, bodyType: "value" })),
    );
    for (const [at, value] of values.entries()) {
      assert.equal(received[at]._rawAmqpMessage.bodyType, "value");
      assert.deepEqual(received[at].body, value);
    }
  },

  "body-sequence": async (bench) => {
    const [received] = await through(bench, [{ body: [1, "two", [3.5]], bodyType: "sequence" }]);
    assert.equal(received._rawAmqpMessage.bodyType, "sequence");
    assert.deepEqual(received.body, [1, "two", [3.5]]);
  },

  "time-to-live-shown": async (bench) => {
    const hour = 3_600_000;
    const [plain, limited] = await through(bench, [{ body: "plain" }, { body: "limited", timeToLive: hour }]);
    assert.ok(plain.timeToLive === undefined || plain.timeToLive > 24 * hour);
    assert.equal(limited.timeToLive, hour);
    assert.equal(limited.expiresAtUtc.getTime(), limited.enqueuedTimeUtc.getTime() + hour);
  },
};
