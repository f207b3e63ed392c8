#!/usr/bin/env python3
"""Prints what vita-stream says. Words of an answer that is over are passed over. Needs nats-py: pip install nats-py

usage: NATS_URL=nats://localhost:4222 subscribe.py [SUBJECT]
"""

import asyncio
import json
import os
import sys

import nats


def describe(event):
    data = event["data"]
    match event["type"]:
        case "vita.speech.v1":
            return f"speech {data['utterance_id']} {data['edge']}s"
        case "vita.source.v1":
            return f"source is {data['state']}"
        case "vita.query.v1":
            return f"question {data['turn_id']} is taken"
        case "vita.delta.v1":
            return f"answer {data['generation_id']}... {data['text']}"
        case "vita.answer.v1":
            cut_off = " (cut off)" if "cut_off" in data else ""
            return f"answer {data['generation_id']}: {data['text']}{cut_off}"
        case other:
            # A newer version may say more; a reader of today goes on.
            return f"{other} {json.dumps(data)}"


def is_stale(event, newest):
    """Words of an answer older than one that was already met; newest: (session, generation) of each source."""
    if event["type"] not in ("vita.delta.v1", "vita.query.v1"):
        return False
    data, source = event["data"], event["source"]
    generation = (data["session_id"], data["generation_id"])
    newest[source] = max(generation, newest.get(source, generation))
    return generation < newest[source]


async def main():
    subject = sys.argv[1] if len(sys.argv) > 1 else "vita.>"
    client = await nats.connect(os.environ.get("NATS_URL", "nats://localhost:4222"))
    messages = await client.subscribe(subject)
    await client.flush()
    print(f"listening to {subject}", file=sys.stderr, flush=True)
    newest = {}
    async for message in messages.messages:
        event = json.loads(message.data)
        if is_stale(event, newest):
            continue
        source = event["source"].removeprefix("/sources/")
        print(f"{event['time']} {source}: {describe(event)}", flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
