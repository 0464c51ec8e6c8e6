// What both sides of the JavaScript peer share: the answers, and orders on stdin with answers on stdout.
import { createInterface } from "node:readline";

export const find = (id) => ({
  id,
  title: `The ${id}th Film That Was Made for a Benchmark`,
  version: (id % 7) + 1,
  genre: "Documentary",
  director: "Agnes Example",
  running_time_min: 60 + (id % 120),
  imdb_rating: (id % 100) / 10,
  worldwide_gross: id * 1000,
});

export function check(id, movie) {
  const right = find(id);
  for (const key of Object.keys(right)) {
    if (movie[key] !== right[key]) {
      throw new Error(`asked for movie ${id}, got ${JSON.stringify(movie)}`);
    }
  }
}

export const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");

// Calls `obey` for each order until the input ends, then leaves whatever still runs behind.
export async function obeyOrders(obey) {
  for await (const line of createInterface({ input: process.stdin })) {
    say(await obey(JSON.parse(line)));
  }
  process.exit(0);
}
