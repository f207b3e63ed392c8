// Prints what vita-stream says. Needs nats.js: npm install @nats-io/transport-node
//
// usage: NATS_URL=nats://localhost:4222 node subscribe.mjs [SUBJECT]

import { connect } from "@nats-io/transport-node";

function describe({ type, data }) {
  switch (type) {
    case "vita.speech.v1":
      return `speech ${data.utterance_id} ${data.edge}s`;
    case "vita.source.v1":
      return `source is ${data.state}`;
    default:
      // A newer version may say more; a reader of today goes on.
      return `${type} ${JSON.stringify(data)}`;
  }
}

const subject = process.argv[2] ?? "vita.>";
const client = await connect({ servers: process.env.NATS_URL ?? "nats://localhost:4222" });
const messages = client.subscribe(subject);
await client.flush();
console.error(`listening to ${subject}`);
for await (const message of messages) {
  const event = message.json();
  const source = event.source.replace("/sources/", "");
  console.log(`${event.time} ${source}: ${describe(event)}`);
}
