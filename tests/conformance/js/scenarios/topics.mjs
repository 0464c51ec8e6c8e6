// Topics: who gets a copy, what an action makes of it, and the rules that decide.

import assert from "node:assert/strict";

import { ahead, bodies, numbers, refused, texts } from "../bench.mjs";

/** Send messages given as [body, properties of the message, application properties]. */
async function send(bench, ...sent) {
  const sender = bench.sender();
  for (const [body, properties, applicationProperties] of sent) {
    await sender.sendMessages({ body, ...properties, applicationProperties });
  }
}

/** Receive what each subscription holds. */
async function copies(bench, expected) {
  await Promise.all(
    Object.entries(expected).map(async ([subscription, names]) => {
      const receiver = bench.receiver({ subscription, receiveMode: "receiveAndDelete" });
      if (names.length > 0) {
        assert.deepEqual(bodies(await bench.take(receiver, names.length)), names, subscription);
      }
      assert.deepEqual(bodies(await bench.seen(receiver)), [], `besides ${names} ${subscription} got`);
    }),
  );
}

async function listed(manager) {
  const rules = [];
  for await (const rule of manager.listRules()) {
    rules.push(rule);
  }
  return rules;
}

export const scenarios = {
  "fan-out": async (bench) => {
    const [one, two] = ["one", "two"].map((subscription) => bench.receiver({ subscription }));
    await bench.sender().sendMessages(texts(3));
    assert.deepEqual(bodies(await bench.takeAndComplete(one, 3)), numbers(3));
    await bench.isEmpty(one);
    assert.deepEqual(bodies(await bench.takeAndComplete(two, 3)), numbers(3));
  },

  "no-match": async (bench) => {
    const receiver = bench.receiver({ subscription: "none" });
    await bench.sender().sendMessages({ body: "x" });
    await bench.silence(receiver);
    await bench.isEmpty(receiver);
  },

  "no-subscription": async (bench) => {
    const sender = bench.sender();
    await sender.sendMessages({ body: "x" });
    await sender.sendMessages(texts(3));
  },

  correlation: async (bench) => {
    await send(
      bench,
      ["red", { subject: "red" }],
      ["red c1", { subject: "red", correlationId: "c1" }],
      ["Red", { subject: "Red", correlationId: "c1" }],
      ["red property", {}, { colour: "red", size: 3 }],
      ["text three", {}, { size: "3" }],
      ["all", { messageId: "m1", to: "t", replyTo: "r", contentType: "c" }],
      ["not all", { messageId: "m1", to: "t", replyTo: "r" }],
    );
    await copies(bench, {
      subject: ["red", "red c1"],
      both: ["red c1"],
      text: ["red property"],
      number: ["red property"],
      system: ["all"],
    });
  },

  sql: async (bench) => {
    await send(
      bench,
      ["red 3", {}, { colour: "red", size: 3, flag: true, note: "it's" }],
      ["red 1", {}, { colour: "red", size: 1, flag: false }],
      ["blue 4", {}, { colour: "blue", size: 4.5 }],
      ["rudder", {}, { colour: "rudder", size: 2 }],
      ["Red 3", {}, { Colour: "Red", size: 3 }],
    );
    await copies(bench, {
      equal: ["red 3", "red 1"],
      greater: ["blue 4"],
      combined: ["red 3"],
      sum: ["red 3", "Red 3"],
      in: ["blue 4"],
      like: ["red 3", "red 1", "rudder"],
      flag: ["red 3"],
      quoted: ["red 3"],
    });
  },

  "sql-absent": async (bench) => {
    await send(
      bench,
      ["none", {}, { size: 1 }],
      ["red", {}, { colour: "red" }],
      ["blue", {}, { colour: "blue", size: 1 }],
    );
    await copies(bench, {
      different: ["blue"],
      negated: ["blue"],
      null: ["none"],
      "not-null": ["red", "blue"],
      exists: ["red", "blue"],
      either: ["none", "red", "blue"],
    });
  },

  "sql-system": async (bench) => {
    await send(
      bench,
      ["label", { subject: "urgent" }],
      ["id", { messageId: bench.unique("order") }],
      ["correlation", { correlationId: "c1" }, { Label: "urgent" }],
      ["correlation 2", { correlationId: "c1", replyTo: "r" }],
      ["content", { contentType: "application/json", to: "here" }],
    );
    await copies(bench, {
      label: ["label"],
      id: ["id"],
      correlation: ["correlation"],
      content: ["content"],
    });
  },

  action: async (bench) => {
    const [plain, changed] = ["plain", "changed"].map((subscription) => bench.receiver({ subscription }));
    await send(
      bench,
      ["two", { subject: "as sent" }, { size: 2, colour: "red", note: "x" }],
      ["one", {}, { size: 1 }],
    );
    const [original] = await bench.takeAndComplete(plain, 2);
    assert.deepEqual({ ...original.applicationProperties }, { size: 2, colour: "red", note: "x" });
    assert.equal(original.subject, "as sent");
    const [copy] = await bench.takeAndComplete(changed);
    const { size, colour, note } = copy.applicationProperties;
    assert.deepEqual([size, colour, note], [12, "blue", undefined]);
    assert.deepEqual([copy.subject, copy.body], ["new", "two"]);
    await bench.isEmpty(changed);
  },

  "several-actions": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver({ subscription: "copies" })];
    const by = (messages) => messages.map((each) => each.applicationProperties.by ?? "nobody").sort();
    await sender.sendMessages({ body: "three", applicationProperties: { size: 3 } });
    assert.deepEqual(by(await bench.takeAndComplete(receiver, 3)), ["first", "nobody", "second"]);
    await sender.sendMessages({ body: "two", applicationProperties: { size: 2 } });
    assert.deepEqual(by(await bench.takeAndComplete(receiver, 2)), ["first", "nobody"]);
    await bench.isEmpty(receiver);
  },

  "topic-batch": async (bench) => {
    const sender = bench.sender();
    const batch = await sender.createMessageBatch();
    for (const body of numbers(6)) {
      assert.ok(batch.tryAddMessage({ body, applicationProperties: { n: Number(body) } }));
    }
    await sender.sendMessages(batch);
    await copies(bench, { even: ["0", "2", "4"], all: numbers(6) });
  },

  "topic-dead-letter": async (bench) => {
    const [one, two] = ["one", "two"].map((subscription) => bench.receiver({ subscription }));
    await bench.sender().sendMessages({ body: "bad" });
    await one.deadLetterMessage(await bench.takeOne(one), { deadLetterReason: "Because" });
    const [dead] = await bench.takeAndComplete(bench.receiver({ subscription: "one", dead: true }));
    assert.deepEqual([dead.body, dead.deadLetterReason], ["bad", "Because"]);
    await bench.isEmpty(bench.receiver({ subscription: "two", dead: true }));
    assert.deepEqual(bodies(await bench.takeAndComplete(two)), ["bad"]);
  },

  "topic-schedule": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver({ subscription: "all" })];
    const [, cancelled] = await sender.scheduleMessages(
      [{ body: "due" }, { body: "cancelled" }],
      ahead(600),
    );
    await bench.isEmpty(receiver);
    await sender.cancelScheduledMessages(cancelled);
    await bench.silence(receiver);
    await bench.advance(610);
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["due"]);
    await bench.isEmpty(receiver);
  },

  rules: async (bench) => {
    const manager = bench.shared.createRuleManager(bench.name, "managed");
    const [initial, ...others] = await listed(manager);
    assert.deepEqual([initial.name, others], ["$Default", []]);
    const filter = {
      correlationId: "c",
      subject: "s",
      messageId: "m",
      replyTo: "r",
      replyToSessionId: "rs",
      sessionId: "se",
      to: "t",
      contentType: "ct",
      applicationProperties: { text: "x", number: 2, flag: true, moment: new Date(Date.UTC(2000, 0, 1)) },
    };
    const sqlExpression = "SET sys.CorrelationId = 'new'";
    await manager.createRule("sql", { sqlExpression: "price > 10" });
    await manager.createRule("correlation", filter, { sqlExpression });
    const rules = new Map((await listed(manager)).map((rule) => [rule.name, rule]));
    assert.deepEqual([...rules.keys()].sort(), ["$Default", "correlation", "sql"]);
    assert.equal(rules.get("sql").filter.sqlExpression, "price > 10");
    assert.equal(rules.get("correlation").action.sqlExpression, sqlExpression);
    const { applicationProperties, ...system } = rules.get("correlation").filter;
    const { applicationProperties: sent, ...sentSystem } = filter;
    assert.deepEqual({ ...system }, sentSystem);
    assert.deepEqual({ ...applicationProperties }, sent);
    const pages = [];
    for await (const page of manager.listRules().byPage({ maxPageSize: 2 })) {
      pages.push(page.length);
    }
    assert.deepEqual(pages.filter(Boolean), [2, 1]);
    await manager.deleteRule("sql");
    await manager.deleteRule("correlation");
    assert.deepEqual(
      (await listed(manager)).map((rule) => rule.name),
      ["$Default"],
    );
  },

  "rules-take-effect": async (bench) => {
    const [sender, receiver] = [bench.sender(), bench.receiver({ subscription: "managed" })];
    const manager = bench.shared.createRuleManager(bench.name, "managed");
    await manager.createRule(
      "blue",
      { applicationProperties: { colour: "blue" } },
      { sqlExpression: "SET priority = 'high'" },
    );
    await manager.createRule("red", { sqlExpression: "colour = 'red'" });
    await manager.deleteRule("$Default");
    const send = () =>
      sender.sendMessages(
        ["blue", "green", "red"].map((colour) => ({ body: colour, applicationProperties: { colour } })),
      );
    await send();
    const received = await bench.takeAndComplete(receiver, 2);
    assert.deepEqual(bodies(received), ["blue", "red"]);
    assert.equal(received[0].applicationProperties.priority, "high");
    assert.equal(received[1].applicationProperties.priority, undefined);
    await manager.deleteRule("blue");
    await send();
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver)), ["red"]);
    await manager.deleteRule("red");
    await send();
    await bench.isEmpty(receiver);
    await manager.createRule("$Default", { sqlExpression: "1=1" });
    await send();
    assert.deepEqual(bodies(await bench.takeAndComplete(receiver, 3)), ["blue", "green", "red"]);
  },

  "rules-are-unique": async (bench) => {
    const manager = bench.shared.createRuleManager(bench.name, "managed");
    await manager.createRule("once", { subject: "a" });
    await refused(manager.createRule("once", { subject: "b" }), "MessagingEntityAlreadyExists", /once/);
    await manager.deleteRule("once");
    await refused(manager.deleteRule("once"), "MessagingEntityNotFound");
    await refused(manager.createRule("wrong", { sqlExpression: "colour = = 'x'" }));
  },
};
