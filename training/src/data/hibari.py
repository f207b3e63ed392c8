"""Speaks lines of JSON ({"text", "speed", "path"}) from standard input; answers each with a line."""
import json
import sys

from hibari import Hibari

voice = Hibari(threads=1)
for line in sys.stdin:
    job = json.loads(line)
    try:
        voice.save(job["text"], job["path"], speed=job["speed"], seed=job["seed"])
        print("ok", flush=True)
    except Exception as error:  # one sentence that can't be spoken does not end the others
        print(f"{type(error).__name__}: {error}", flush=True)
