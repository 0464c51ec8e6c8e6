// What a scenario works with: clients of its namespace, and words for what it does with them.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

import { ServiceBusClient } from "@azure/service-bus";
import Long from "long";

const PREFIX = "conformance.";
// Milliseconds within which a message that is there arrives, on a busy machine too.
const ARRIVAL = 10_000;
// Milliseconds without a message that are taken to mean that none comes.
const SILENCE = 600;
// Seconds a lock lasts on every entity of the suite.
export const LOCK = 60;

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
export const ahead = (seconds) => new Date(Date.now() + seconds * 1000);
export const numbers = (count) => Array.from({ length: count }, (_, number) => String(number));
export const texts = (count) => numbers(count).map((body) => ({ body }));
export const bodies = (messages) => messages.map((message) => message.body);
export const counts = (messages) => messages.map((message) => message.deliveryCount);

/** Fail unless the promise is rejected with a ServiceBusError of this code (any, if none is given). */
export async function refused(promise, code, pattern) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.name, "ServiceBusError", `not an error of the service: ${error?.stack ?? error}`);
    if (code !== undefined) {
      assert.equal(error.code, code, error.message);
    }
    if (pattern !== undefined) {
      assert.match(error.message, pattern);
    }
    return true;
  });
}

export class Bench {
  #clients = [];
  #shared;

  constructor(scenario, connectionString, advance) {
    this.name = PREFIX + scenario;
    this.connectionString = connectionString;
    this.advance = advance;
  }

  /** A name nobody used before, for sessions and message ids. */
  unique(what = "x") {
    return `${what}-${randomUUID().slice(0, 13)}`;
  }

  /** A client of the namespace that tries once; closed at the end. */
  client(timeoutInMs = 15_000) {
    const client = new ServiceBusClient(this.connectionString, {
      retryOptions: { maxRetries: 0, timeoutInMs },
    });
    this.#clients.push(client);
    return client;
  }

  /** The client that most links of the scenario share. */
  get shared() {
    this.#shared ??= this.client();
    return this.#shared;
  }

  sender(entity = this.name) {
    return this.shared.createSender(entity);
  }

  /** A receiver of a queue, of a subscription, or of the dead letters of either. Locks are not renewed. */
  receiver({ entity = this.name, subscription, dead = false, client = this.shared, ...options } = {}) {
    const all = { maxAutoLockRenewalDurationInMs: 0, ...(dead && { subQueueType: "deadLetter" }), ...options };
    return subscription === undefined
      ? client.createReceiver(entity, all)
      : client.createReceiver(entity, subscription, all);
  }

  /** A receiver of the session of this name. */
  session(name, { subscription, client = this.shared, ...options } = {}) {
    const all = { maxAutoLockRenewalDurationInMs: 0, ...options };
    return subscription === undefined
      ? client.acceptSession(this.name, name, all)
      : client.acceptSession(this.name, subscription, name, all);
  }

  /** A receiver of the next available session. */
  nextSession({ subscription, wait = 8_000, ...options } = {}) {
    const all = { maxAutoLockRenewalDurationInMs: 0, ...options };
    const client = this.client(wait);
    return subscription === undefined
      ? client.acceptNextSession(this.name, all)
      : client.acceptNextSession(this.name, subscription, all);
  }

  /** Close everything. */
  async close() {
    await Promise.all(this.#clients.map((client) => client.close()));
  }

  /** Receive exactly this many messages, or fail. */
  async take(receiver, count = 1) {
    const end = Date.now() + ARRIVAL;
    const messages = [];
    for (let left = ARRIVAL; messages.length < count && left > 0; left = end - Date.now()) {
      messages.push(...(await receiver.receiveMessages(count - messages.length, { maxWaitTimeInMs: left })));
    }
    assert.equal(messages.length, count, `expected ${count} messages, got ${JSON.stringify(bodies(messages))}`);
    return messages;
  }

  /** Receive one message, or fail. */
  async takeOne(receiver) {
    const [message] = await this.take(receiver);
    return message;
  }

  /** Receive exactly this many messages and complete them. */
  async takeAndComplete(receiver, count = 1) {
    const messages = await this.take(receiver, count);
    for (const message of messages) {
      await receiver.completeMessage(message);
    }
    return messages;
  }

  /** Receive as a stream until this many have come, complete each, and return their bodies. */
  async stream(receiver, count) {
    const received = [];
    let subscription;
    await new Promise((resolve, reject) => {
      const processMessage = async (message) => {
        await receiver.completeMessage(message);
        received.push(message.body);
        if (received.length === count) {
          resolve();
        }
      };
      const processError = async ({ error }) => reject(error);
      subscription = receiver.subscribe({ processMessage, processError }, { autoCompleteMessages: false });
    });
    await subscription.close();
    return received;
  }

  /** Fail if a message comes. */
  async silence(receiver) {
    const messages = await receiver.receiveMessages(1, { maxWaitTimeInMs: SILENCE });
    assert.deepEqual(bodies(messages), [], "expected no message");
  }

  /** Peek from the first message on. */
  async seen(receiver, count = 10) {
    return receiver.peekMessages(count, { fromSequenceNumber: Long.ONE });
  }

  /** Fail if the entity holds a message of whatever kind. */
  async isEmpty(receiver) {
    assert.deepEqual(bodies(await this.seen(receiver)), [], "expected nothing to be left");
  }
}
