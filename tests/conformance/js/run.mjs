// Runs scenarios and reports each on a line of JSON; `--list` prints the names of those there are.
//
// The first line of the input says which scenarios to run and where. A scenario that moves the clock asks
// for it on the output, {"scenario", "advance", "call"}, and goes on at {"advanced": call} on the input.

import { createInterface } from "node:readline";

import { Bench } from "./bench.mjs";
import { scenarios as browsing } from "./scenarios/browsing.mjs";
import { scenarios as deferring } from "./scenarios/deferring.mjs";
import { scenarios as forwarding } from "./scenarios/forwarding.mjs";
import { scenarios as messages } from "./scenarios/messages.mjs";
import { scenarios as receiving } from "./scenarios/receiving.mjs";
import { scenarios as sending } from "./scenarios/sending.mjs";
import { scenarios as sessions } from "./scenarios/sessions.mjs";
import { scenarios as settling } from "./scenarios/settling.mjs";
import { scenarios as times } from "./scenarios/times.mjs";
import { scenarios as topics } from "./scenarios/topics.mjs";

const scenarios = {
  ...sending,
  ...messages,
  ...receiving,
  ...settling,
  ...deferring,
  ...browsing,
  ...times,
  ...sessions,
  ...topics,
  ...forwarding,
};

function say(words) {
  process.stdout.write(`${JSON.stringify(words)}\n`);
}

async function within(seconds, work) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`took more than ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function explain(error) {
  const code = error?.code === undefined ? "" : ` [${error.code}]`;
  return `${error?.stack ?? error}${code}`;
}

async function main() {
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const plan = JSON.parse((await lines.next()).value);
  const advancing = new Map();
  let calls = 0;

  (async () => {
    for await (const line of { [Symbol.asyncIterator]: () => lines }) {
      const { advanced } = JSON.parse(line);
      advancing.get(advanced)();
      advancing.delete(advanced);
    }
  })();

  const clockOf = (scenario) => (seconds) =>
    new Promise((resolve) => {
      calls += 1;
      advancing.set(calls, resolve);
      say({ scenario, advance: seconds, call: calls });
    });

  const waiting = [...plan.scenarios];
  const closing = [];
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const bench = new Bench(next.name, next.connectionString, clockOf(next.name));
      try {
        await within(plan.seconds, scenarios[next.name](bench));
        say({ scenario: next.name, passed: true });
      } catch (error) {
        say({ scenario: next.name, passed: false, why: explain(error) });
      }
      closing.push(within(plan.seconds, bench.close()).catch(() => {})); // all of it has been reported
    }
  };
  await Promise.all(Array.from({ length: plan.atOnce }, worker));
  await Promise.all(closing);
  process.exit(0);
}

if (process.argv.includes("--list")) {
  console.log(JSON.stringify(Object.keys(scenarios)));
} else {
  await main();
}
