// The serving side in JavaScript: answers requests by hand over @azure/service-bus.
import { ServiceBusClient } from "@azure/service-bus";
import { find, obeyOrders, say } from "./common.mjs";

const settings = JSON.parse(process.argv[2]);
const bus = new ServiceBusClient(settings.url);
const sender = bus.createSender("gateway.replies");
const receiver = bus.createReceiver("movies");

receiver.subscribe(
  {
    processMessage: async (message) => {
      await sender.sendMessages({
        body: find(message.body.id),
        sessionId: message.replyToSessionId,
        correlationId: message.messageId,
        contentType: "application/json",
      });
    },
    processError: async ({ error }) => {
      console.error(error);
    },
  },
  // The default is one at a time.
  { maxConcurrentCalls: 100 },
);
say({ ready: true });
await obeyOrders(async () => ({ count: 0, distinct: 0 }));
