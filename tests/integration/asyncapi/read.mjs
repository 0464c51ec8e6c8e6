// Reads an AsyncAPI document from stdin; says what it finds in it, and what is wrong with it, as JSON.
import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

const { document, diagnostics } = await new Parser().parse(readFileSync(0, 'utf8'));
const operations = {};
for (const operation of document?.operations().all() ?? []) {
  const reply = operation.reply();
  operations[operation.id()] = {
    action: operation.action(),
    channels: operation.channels().all().map((channel) => channel.address()),
    messages: operation.messages().all().map((message) => message.name()),
    reply: reply && {
      location: reply.address()?.location(),
      channel: reply.channel()?.address(),
      messages: reply.messages().all().map((message) => message.name()),
    },
  };
}
console.log(JSON.stringify({
  version: document?.version(),
  problems: diagnostics.map((each) => `${each.path.join('.')}: ${each.message}`),
  operations,
}));
