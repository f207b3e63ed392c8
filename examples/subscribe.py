#!/usr/bin/env python3
"""Prints what vita-stream says. Needs nats-py: pip install nats-py

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
        case other:
            # A newer version may say more; a reader of today goes on.
            return f"{other} {json.dumps(data)}"


async def main():
    subject = sys.argv[1] if len(sys.argv) > 1 else "vita.>"
    client = await nats.connect(os.environ.get("NATS_URL", "nats://localhost:4222"))
    messages = await client.subscribe(subject)
    await client.flush()
    print(f"listening to {subject}", file=sys.stderr, flush=True)
    async for message in messages.messages:
        event = json.loads(message.data)
        source = event["source"].removeprefix("/sources/")
        print(f"{event['time']} {source}: {describe(event)}", flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
