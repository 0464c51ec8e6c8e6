// The calling side in JavaScript: request-reply by hand over @azure/service-bus, one message per call.
import { randomUUID } from "node:crypto";
import { ServiceBusClient } from "@azure/service-bus";
import { check, obeyOrders, say } from "./common.mjs";

const settings = JSON.parse(process.argv[2]);
const bus = new ServiceBusClient(settings.url);
const session = randomUUID();
const waiting = new Map();
const sender = bus.createSender("movies");
const receiver = await bus.acceptSession("gateway.replies", session);

receiver.subscribe({
  processMessage: async (message) => waiting.get(message.correlationId)?.resolve(message.body),
  processError: async ({ error }) => {
    console.error(error);
  },
});

async function call(id) {
  const messageId = randomUUID();
  let timer;
  const reply = new Promise((resolve, reject) => {
    waiting.set(messageId, { resolve });
    timer = setTimeout(() => reject(new Error(`no reply for ${id} in 30 s`)), 30_000);
  });
  try {
    await sender.sendMessages({
      body: { id },
      messageId,
      subject: "get_movie",
      contentType: "application/json",
      replyTo: "gateway.replies",
      replyToSessionId: session,
    });
    check(id, await reply);
  } finally {
    clearTimeout(timer);
    waiting.delete(messageId);
  }
}

let number = 0;
const one = () => call(++number);
const cpu = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};
const now = () => performance.now() / 1000;

function quantiles(latencies) {
  const ordered = Float64Array.from(latencies).sort();
  if (!ordered.length) return {};
  const at = (share) => ordered[Math.min(ordered.length - 1, Math.floor(share * ordered.length))] * 1000;
  return { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: ordered[ordered.length - 1] * 1000 };
}

const orders = {
  async sequential({ seconds, warm = 30 }) {
    for (let i = 0; i < warm; i++) await one();
    const latencies = [];
    const before = cpu();
    const began = now();
    for (let start; (start = now()) < began + seconds; ) {
      await one();
      latencies.push(now() - start);
    }
    const elapsed = now() - began;
    return {
      calls: latencies.length,
      all_calls: latencies.length + warm,
      per_second: latencies.length / elapsed,
      client_cpu: cpu() - before,
      ...quantiles(latencies),
    };
  },
  async concurrent({ callers, seconds, warm }) {
    const latencies = [];
    // What counts begins after the warm-up, or when every caller has had its first reply if that is later,
    // but not more than three seconds later.
    const warmed = now() + warm;
    let begins = Infinity;
    let ends = Infinity;
    let everything = 0;
    let answered = 0;
    const before = cpu();
    const caller = async () => {
      let first = true;
      for (let start; (start = now()) < ends; ) {
        await one();
        everything++;
        const time = now();
        if (first) {
          first = false;
          answered++;
        }
        if (time >= begins && time < ends) latencies.push(time - start);
        else if (begins === Infinity && time >= warmed + (answered === callers ? 0 : 3)) {
          begins = time;
          ends = time + seconds;
        }
      }
    };
    await Promise.all(Array.from({ length: callers }, caller));
    return {
      calls: latencies.length,
      all_calls: everything,
      per_second: latencies.length / seconds,
      client_cpu: cpu() - before,
      ...quantiles(latencies),
    };
  },
};

await one();
say({ ready: true });
await obeyOrders(({ do: what, ...rest }) => orders[what](rest));
