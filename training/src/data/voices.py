

# Stands behind a voice's own part, which defines `say`: speaks lines of JSON ({"voice", "text", "speed", "seed", "path"}) from
# standard input, and answers each with a line.
import json
import sys

for line in sys.stdin:
    try:
        say(json.loads(line))
        print("ok", flush=True)
    except Exception as error:  # one sentence that can't be spoken does not end the others
        print(f"{type(error).__name__}: {error}", flush=True)
