// Prints what vita-stream says. Words of an answer that is over are passed over.
// Needs nats.js: npm install @nats-io/transport-node
//
// usage: NATS_URL=nats://localhost:4222 node subscribe.mjs [SUBJECT]

import { connect } from "@nats-io/transport-node";

function describe({ type, data }) {
  switch (type) {
    case "vita.speech.v1":
      return `speech ${data.utterance_id} ${data.edge}s`;
    case "vita.source.v1":
      return `source is ${data.state}`;
    case "vita.query.v1":
      return `question ${data.turn_id} is taken`;
    case "vita.delta.v1":
      return `answer ${data.generation_id}... ${data.text}`;
    case "vita.answer.v1":
      return `answer ${data.generation_id}: ${data.text}${data.cut_off ? " (cut off)" : ""}`;
    default:
      // A newer version may say more; a reader of today goes on.
      return `${type} ${JSON.stringify(data)}`;
  }
}

// The newest answer of each source.
const newest = new Map();

// Words of an answer older than one that was already met.
function isStale({ type, source, data }) {
  if (type !== "vita.delta.v1" && type !== "vita.query.v1") return false;
  const known = newest.get(source) ?? data;
  const age = data.session_id - known.session_id || data.generation_id - known.generation_id;
  if (age >= 0) newest.set(source, data);
  return age < 0;
}

const subject = process.argv[2] ?? "vita.>";
const client = await connect({ servers: process.env.NATS_URL ?? "nats://localhost:4222" });
const messages = client.subscribe(subject);
await client.flush();
console.error(`listening to ${subject}`);
for await (const message of messages) {
  const event = message.json();
  if (isStale(event)) continue;
  const source = event.source.replace("/sources/", "");
  console.log(`${event.time} ${source}: ${describe(event)}`);
}
